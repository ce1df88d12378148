"""``thetastream simulate``: write the attempts of a simulated school, and its truth."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stream.errors import StreamError
from stream.sources.simulate import SchoolConfig, simulate

__all__ = ["simulate_command"]

_DEFAULT = SchoolConfig()

_err = Console(stderr=True)


def simulate_command(
    out: Annotated[Path, typer.Argument(help="Where to write the attempts: .csv or .csv.gz.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the true abilities, items and anchors, as JSON.",
            show_default=False,
        ),
    ] = None,
    learners: Annotated[int, typer.Option(min=1)] = _DEFAULT.learners,
    items: Annotated[int, typer.Option(min=1)] = _DEFAULT.items,
    topics: Annotated[int, typer.Option(min=1, help="Curriculum topics.")] = _DEFAULT.topics,
    attempts: Annotated[
        int, typer.Option(min=1, help="Original attempts; repeats and corrections come on top.")
    ] = _DEFAULT.attempts,
    days: Annotated[int, typer.Option(min=1)] = _DEFAULT.days,
    start: Annotated[
        dt.datetime, typer.Option(formats=["%Y-%m-%d"], help="First day (UTC).")
    ] = dt.datetime.combine(_DEFAULT.start, dt.time()),
    growth: Annotated[
        float, typer.Option(help="Mean growth of ability, logits a week; 0: none.")
    ] = _DEFAULT.growth,
    anchors: Annotated[
        int, typer.Option(min=0, help="Items whose parameters the truth file marks as anchors.")
    ] = _DEFAULT.anchors,
    share_duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="Share of records sent twice.")
    ] = _DEFAULT.share_duplicates,
    share_late: Annotated[
        float, typer.Option(min=0, max=1, help="Share of attempts that arrive late.")
    ] = _DEFAULT.share_late,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = _DEFAULT.seed,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for a program to read.")
    ] = False,
) -> None:
    """Write the attempts of a simulated school to OUT, in the order of their arrival.

    Learners grow, practise in sessions, some come late or leave early; records arrive late,
    twice, and are voided or regraded. True abilities and item parameters are known.

    Examples: thetastream simulate school.csv.gz --truth truth.json;
    thetastream simulate small.csv --learners 50 --items 40 --attempts 5000 --growth 0
    """
    try:
        config = SchoolConfig(
            learners=learners,
            items=items,
            topics=topics,
            attempts=attempts,
            days=days,
            start=start.date(),
            growth=growth,
            anchors=anchors,
            share_duplicates=share_duplicates,
            share_late=share_late,
            seed=seed,
        )
        school = simulate(config)
        with Progress(
            TextColumn("writing {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=_err,
            disable=as_json,
        ) as progress:
            task = progress.add_task(escape(str(out)), total=len(school))
            school.write_csv(out, lambda done: progress.update(task, completed=done))
        if truth is not None:
            school.write_truth(truth)
    except StreamError as error:
        _err.print(f"[red]simulate:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from None
    if as_json:
        summary = {
            "file": str(out),
            "truth": None if truth is None else str(truth),
            "records": len(school),
            "attempts": config.attempts,
            "learners": config.learners,
            "items": config.items,
            "seed": config.seed,
        }
        typer.echo(json.dumps(summary, indent=2))
    else:
        typer.echo(
            f"{len(school):,} records: {config.attempts:,} attempts of {config.learners:,} learners"
            f" at {config.items:,} items, and their repeats and corrections"
        )
