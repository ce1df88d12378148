"""``thetastream verify``: check the tables against the input file alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.calibration import MANIFEST_KEY, ItemParamsRecord, ParamsManifest
from schemas.codec import decode
from stream.domain.ability import filter_from
from stream.domain.practice import NO_WEIGHTS, weights_from
from stream.errors import StreamError, VerifyError
from stream.kafka.reader import Record, read_whole
from stream.settings import Settings
from topics.catalogue import item_params_topic

if TYPE_CHECKING:
    from stream.verify import Report
    from stream.verify.abilities import InForce

__all__ = ["verify"]

EXIT_MISMATCH = 1
EXIT_UNUSABLE = 2

_out = Console()
_err = Console(stderr=True)


def verify(
    file: Annotated[
        Path, typer.Argument(help="The file that was replayed: .csv, .jsonl, .ndjson, or .gz.")
    ],
    database_url: Annotated[
        str | None,
        typer.Option(help="PostgreSQL; default DATABASE_URL.", show_default=False),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            help="Schema of the tables; default THETASTREAM_DB_SCHEMA.", show_default=False
        ),
    ] = None,
    lateness_days: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=28,
            help="Days an attempt may be late; default THETASTREAM_LATENESS_DAYS.",
            show_default=False,
        ),
    ] = None,
    ingest_time_ms: Annotated[
        int | None,
        typer.Option(
            help="When the records reached the stream, epoch ms; default now. Attempts more than"
            " 24 h later were refused as too early.",
            show_default=False,
        ),
    ] = None,
    use_theta: Annotated[
        bool | None,
        typer.Option(
            "--theta/--no-theta",
            help="Whether I_t takes its theta form; default METRICS_USE_IRT_THETA.",
            show_default=False,
        ),
    ] = None,
    abilities: Annotated[
        bool,
        typer.Option(
            "--abilities",
            help="Compare abilities, P and I_t's theta form too. Only where the parameters now in"
            " force were so before the first attempt or since a rebuild, without batch abilities.",
        ),
    ] = False,
    only_users_in_file: Annotated[
        bool,
        typer.Option(
            "--only-users-in-file", help="Leave out rows of learners the file does not name."
        ),
    ] = False,
    max_list: Annotated[int, typer.Option(min=0, help="Mismatches to list of each table.")] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for a program to read.")
    ] = False,
) -> None:
    """Recompute from FILE what the tables must hold, and compare every row and column.

    The recomputation reads the file with DuckDB and uses none of the engine's code. Ends with 0
    when nothing differs, 1 on any mismatch, 2 when nothing could be compared.

    Examples: thetastream verify attempts.csv.gz; thetastream verify school.csv.gz --json
    """
    try:
        settings = Settings.from_env()
        report = _verified(
            file,
            database_url=database_url or settings.database_url,
            schema=schema or settings.db_schema,
            lateness_days=settings.lateness_days if lateness_days is None else lateness_days,
            ingest_time_ms=int(time.time() * 1000) if ingest_time_ms is None else ingest_time_ms,
            params=_in_force(settings) if abilities else None,
            target=settings.metrics_default_target,
            include_theta=settings.agg_include_theta,
            use_theta=settings.metrics_use_irt_theta if use_theta is None else use_theta,
            only_users_in_file=only_users_in_file,
            max_list=max_list,
            quiet=as_json,
        )
    except StreamError as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(EXIT_MISMATCH)


def _verified(
    file: Path,
    *,
    database_url: str,
    schema: str,
    lateness_days: int,
    ingest_time_ms: int,
    params: InForce | None,
    target: float,
    include_theta: bool,
    quiet: bool,
    **options: Any,
) -> Report:
    try:
        # Here, since DuckDB comes with the extra `local` only and nothing else needs it.
        from stream.verify import compare, recompute
    except ModuleNotFoundError as error:
        raise VerifyError(
            f"verify needs {error.name}; install it with: pip install 'thetastream[local]'"
        ) from error
    with _err.status(f"recomputing {escape(str(file))}") as status:
        if quiet:
            status.stop()
        with recompute(
            file,
            lateness_days=lateness_days,
            ingest_time_ms=ingest_time_ms,
            params=params,
            target=target,
            include_theta=include_theta,
        ) as expected:
            status.update("comparing with PostgreSQL")
            return compare(expected, database_url, schema, **options)


def _in_force(settings: Settings) -> InForce:
    """Read the newest whole version of the item parameters; what follows its manifest waits."""
    from stream.verify.abilities import InForce, ItemCurve

    newest = InForce()
    pending: dict[str, ItemCurve] = {}

    def take(records: list[Record]) -> None:
        nonlocal newest, pending
        for record in records:
            key, value = record.key(), record.value()
            if value is None:
                continue
            if key == MANIFEST_KEY:
                manifest = decode(value, ParamsManifest)
                newest = InForce(
                    manifest.version,
                    {**newest.items, **pending},
                    weights_from(manifest.weights) if manifest.weights else NO_WEIGHTS,
                    filter_from(manifest.filter),
                )
                pending = {}
            else:
                item = decode(value, ItemParamsRecord)
                a, b, se_b = item.live or (item.a, item.b, item.se_b)
                pending[item.item_id] = ItemCurve(a, b, item.c, se_b**2, item.recall)

    read_whole(settings, {item_params_topic.name: take})
    return newest


def _print(report: Report) -> None:
    records = ", ".join(f"{count:,} {outcome}" for outcome, count in report.outcomes.items())
    _out.print(f"Records of the file: {records or 'none'}")
    table = Table("table", *(("rows expected", "rows found", "compared", "mismatches")))
    for column in table.columns[1:]:
        column.justify = "right"
    for line in report.tables:
        table.add_row(
            line.table,
            f"{line.expected_rows:,}",
            f"{line.actual_rows:,}",
            f"{line.compared_rows:,}",
            f"[{'red' if line.mismatches else 'green'}]{line.mismatches:,}[/]",
        )
    _out.print(table)
    for mismatch in report.mismatches:
        key = " ".join(mismatch.key.values())
        what = (
            mismatch.kind
            if mismatch.column is None
            else f"{mismatch.column}: expected {mismatch.expected}, found {mismatch.actual}"
        )
        _out.print(escape(f"{mismatch.table}  {key}  {what}"), soft_wrap=True, highlight=False)
    if report.learners_left_out:
        _out.print(
            f"Abilities of {report.learners_left_out:,} learners with voids or regrades were not"
            " compared."
        )
    if len(report.mismatches) < report.total:
        _out.print(f"... and {report.total - len(report.mismatches):,} more (see --max-list)")
    _out.print(
        "[green]0 mismatches: every row is what the file leads to.[/]"
        if report.ok
        else f"[red]{report.total:,} mismatches.[/]"
    )


def _fail(error: StreamError) -> NoReturn:
    _err.print(f"[red]verify:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
    raise typer.Exit(EXIT_UNUSABLE)
