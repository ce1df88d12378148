"""``thetastream rebuild``: the engines' state made anew from the log of attempts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import asyncpg
import typer
from asyncpg.exceptions import InterfaceError, PostgresError
from rich.console import Console
from rich.table import Table

from stream.database import CONNECT_TIMEOUT_S, convert_error, quoted, shown
from stream.errors import StreamError
from stream.kafka.progress import unseen_partitions
from stream.settings import Settings
from topics.catalogue import (
    feature_updates_topic,
    item_partials_topic,
    kpi_updates_topic,
    theta_updates_topic,
    topic_partials_topic,
)

if TYPE_CHECKING:
    from stream.engine.survey import PartitionSurvey

__all__ = ["rebuild"]

_ROWS = {
    "features_topic_daily": "true",
    "weekly_kpi": "true",
    "student_topic_theta": "true",
    "topic_partials": "true",
    "item_partials": "true",
    "mirt_ability": "version = 'live'",
}
"""Table -> which of its rows follow the engines; the others are the calibrations'."""

_TOPICS = (
    theta_updates_topic,
    feature_updates_topic,
    kpi_updates_topic,
    topic_partials_topic,
    item_partials_topic,
)

_out = Console()
_err = Console(stderr=True)


def rebuild(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and whether it can be.")
    ] = False,
    keep_rows: Annotated[
        bool,
        typer.Option(
            "--keep-rows",
            help="Leave PostgreSQL alone: a row there gives way to a rebuilt one only where that"
            " was made from as much of the log.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Forget what the engines have folded, so that they fold the whole log again.

    Engines and calibrator must be stopped. The newest item parameters are then in force from the
    first attempt on. Until the log is folded, lookups and tables show what is folded so far.
    Refused where the log has lost its beginning. Broken off, it is simply run again.

    Examples:

        thetastream rebuild --dry-run

        thetastream rebuild --yes && thetastream run
    """
    # Imported late: it loads the whole engine, which few commands need.
    from stream.engine.survey import refuse_if_unfit, survey

    settings = Settings.from_env()
    partitions = survey(settings)
    if not as_json:
        _print(partitions)
    refuse_if_unfit(settings, partitions)
    if not keep_rows:
        _refuse_if_sinks_are_behind(settings)
    if not dry_run:
        _ask(settings, yes=yes, keep_rows=keep_rows)
        asyncio.run(_rebuild(settings, keep_rows=keep_rows, quiet=as_json))
    if as_json:
        print(json.dumps({"dry_run": dry_run, "partitions": _plain(partitions)}))
    elif dry_run:
        _out.print("It can be done; nothing was changed.")
    else:
        _out.print("The state is forgotten. Start the engines: they fold the log from its start.")


async def _rebuild(settings: Settings, *, keep_rows: bool, quiet: bool) -> None:
    from stream.engine.rebuild import forget

    async def renew() -> None:
        if not keep_rows:
            await _let_rows_be_written_anew(settings)

    def told(number: int) -> None:
        if not quiet:
            _out.print(f"partition {number} is forgotten", highlight=False)

    await forget(settings, before_first=renew, after_each=told)


def _ask(settings: Settings, *, yes: bool, keep_rows: bool) -> None:
    if yes:
        return
    rows = "" if keep_rows else f" Rows in {shown(settings.database_url)} are written anew."
    _err.print(
        f"The state of all {settings.partitions} partitions is forgotten and folded again.{rows}",
        highlight=False,
    )
    if not typer.confirm("Go on?", err=True):
        _err.print("Nothing was changed.")
        raise typer.Exit(1)


def _refuse_if_sinks_are_behind(settings: Settings) -> None:
    """Refuse while old rows wait in Kafka.

    Written after the tables were prepared, they would look newer than what is rebuilt.
    """
    behind = unseen_partitions(settings, "sink", _TOPICS)
    if behind:
        topics = ", ".join(sorted({topic for topic, _ in behind}))
        raise StreamError(
            f"The sink has not written all records of {topics} yet. Nothing was changed. Let a "
            "sink run until it has, and run this again; or give --keep-rows where no sink is used."
        )


async def _let_rows_be_written_anew(settings: Settings) -> None:
    """Take from every row of the engines what holds rows off that were made from less of the log.

    A rebuild flushes at other places than the engines did before, and so may end a row's history
    with a smaller offset.
    """
    try:
        connection = await asyncpg.connect(settings.database_url, timeout=CONNECT_TIMEOUT_S)
        try:
            async with connection.transaction():
                for table, ours in _ROWS.items():
                    await connection.execute(
                        f"update {quoted(settings.db_schema)}.{table} set source_offset = null "  # noqa: S608 - quoted
                        f"where source_offset is not null and {ours}"
                    )
        finally:
            await connection.close()
    except (PostgresError, InterfaceError, OSError, ValueError) as error:
        told = convert_error(error, settings.database_url)
        raise type(told)(f"{told} Nothing was forgotten; mend it and run this again.") from error


def _print(partitions: list[PartitionSurvey]) -> None:
    table = Table("partition", "log", "folded up to", "state rows", "learners", "dead letters")
    for column in table.columns:
        column.justify = "right"
    for one in partitions:
        table.add_row(
            str(one.number),
            f"{one.log_begin:,} to {one.log_end:,}",
            f"{one.position.attempts:,}" if one.position.attempts >= 0 else "-",
            f"{one.rows:,}",
            f"{one.learners:,}",
            f"{one.dead_letters:,}",
        )
    _out.print(table)


def _plain(partitions: list[PartitionSurvey]) -> list[dict[str, int]]:
    return [
        {
            "partition": one.number,
            "log_begin": one.log_begin,
            "log_end": one.log_end,
            "folded_up_to": one.position.attempts,
            "rows": one.rows,
            "learners": one.learners,
        }
        for one in partitions
    ]
