"""``thetastream evaluate``: how well the live filter predicts, beside what others use."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from stream.errors import StreamError
from stream.evaluate.protocols import OURS, PROTOCOLS, REFERENCE, Protocol
from stream.evaluate.run import Report, data_sets, run, write

__all__ = ["evaluate"]

DEFAULT_DATA = Path("../shared/data")

_out = Console()
if not _out.is_terminal:
    _out = Console(width=130)  # a log file has room for the whole table


def evaluate(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files of attempts (user_id, item_id, correct; topic_id, completed_at and"
            " response_time_ms where known). Default: the data sets in ../shared/data.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help=f"Any of {', '.join(PROTOCOLS)}; default all.", show_default=False),
    ] = None,
    ablations: Annotated[
        bool, typer.Option("--ablations/--no-ablations", help="Also run without each part.")
    ] = True,
    simulations: Annotated[
        bool, typer.Option("--simulations/--no-simulations", help="Also on simulated learners.")
    ] = True,
    processes: Annotated[int, typer.Option(min=1, help="Data sets worked on at once.")] = 2,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("bench/results"),
) -> None:
    """Predict each answer before it is seen, and compare.

    Prints AUC, log-loss, Brier and calibration error with 95 % intervals (bootstrap over
    learners, gains paired against Elo), and writes evaluate.json and evaluate.svg.

    Examples:

        thetastream evaluate attempts.csv --protocol learners
    """
    unknown = sorted(set(protocol or ()) - set(PROTOCOLS))
    if unknown:
        raise StreamError(f"no protocol {', '.join(unknown)}; there are {', '.join(PROTOCOLS)}")
    chosen = cast("list[Protocol]", list(protocol or PROTOCOLS))
    sources = [(_name(path), path) for path in data or ()] or list(data_sets(DEFAULT_DATA))
    if not sources:
        _out.print(f"no data sets in {DEFAULT_DATA}: simulations only; give files to evaluate them")
    began = time.monotonic()
    report = run(
        sources,
        chosen,
        ablations=ablations,
        simulations=simulations,
        processes=processes,
        progress=lambda done: _out.print(f"  done: {done}", style="dim"),
    )
    for name, _ in sources:
        for each in chosen:
            _print(
                name, each, [r for r in report.rows if (r["data"], r["protocol"]) == (name, each)]
            )
    _print_simulations(report)
    for line in report.skipped:
        _out.print(f"skipped: {line}")
    paths = write(report, output)
    _out.print(f"{time.monotonic() - began:.0f} s; wrote {', '.join(str(p) for p in paths)}")


def _name(path: Path) -> str:
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    return path.resolve().parent.name if stem == "attempts" else stem


def _print(name: str, protocol: Protocol, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    first = rows[0]
    table = Table(
        title=f"{name}, {protocol}: {first['n']:,} attempts of {first['learners']:,} learners",
        caption=f"{PROTOCOLS[protocol]} Gains are over {REFERENCE}.",
        title_justify="left",
        caption_justify="left",
    )
    for column in (
        "method",
        "AUC",
        "gain",
        "95 %",
        "log-loss",
        "gain",
        "95 %",
        "Brier",
        "calib. error",
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    reference = next(row for row in rows if row["method"] == REFERENCE)
    for row in rows:
        auc, loss = row["auc_gain_interval"], row["log_loss_gain_interval"]
        table.add_row(
            row["method"],
            f"{row['auc']:.4f}",
            f"{row['auc'] - reference['auc']:+.4f}",
            f"{auc[0]:+.3f} {auc[1]:+.3f}",
            f"{row['log_loss']:.4f}",
            f"{reference['log_loss'] - row['log_loss']:+.4f}",
            f"{loss[0]:+.3f} {loss[1]:+.3f}",
            f"{row['brier']:.4f}",
            f"{row['calibration_error']:.4f}",
            style="bold" if row["method"] == OURS else None,
        )
    _out.print(table)


def _print_simulations(report: Report) -> None:
    if not report.simulations:
        return
    off = report.simulations["distance_to_exact"]
    _out.print(
        "simulated 2PL, drift zero: mean distance to exact EAP "
        + ", ".join(f"{value:.4f} after {count}" for count, value in off.items())
    )
    for found in report.simulations["coverage"]:
        _out.print(
            f"simulated, {found['motion']}: 95 % intervals hold {found['coverage']:.3f} of the true"
            f" thetas, RMSE {found['rmse']:.3f}"
        )
