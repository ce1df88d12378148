"""``thetastream model``: ask for a model of growth, forecast, churn or segments."""

from __future__ import annotations

import asyncio
import json
from datetime import date, datetime
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from schemas.models import ModelRequest, ModelResult
from stream.calibration.ask import ask
from stream.calibration.runs import Run
from stream.errors import NothingToCalibrateError
from stream.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    name="model", help="Models of growth, forecast, churn and segments.", no_args_is_help=True
)

Kind = Literal["glmm", "growth", "forecast", "survival", "segments"]


@app.callback()
def _group() -> None:
    """Keep ``now`` a command of its own."""


@app.command()
def now(
    kind: Annotated[Kind, typer.Argument(help="What to fit.")],
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="What happened before this day counts; default: the whole weeks so far.",
        ),
    ] = None,
    reason: Annotated[
        Literal["manual", "schedule"],
        typer.Option(help="schedule: asked by the clock; having nothing to fit is no error."),
    ] = "manual",
    wait: Annotated[bool, typer.Option(help="Wait until the fit succeeded or failed.")] = True,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait at most.")] = 3600.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for a program to read.")
    ] = False,
) -> None:
    """Ask for a fit of what has been folded so far, and wait for its outcome.

    If the same is being worked on already, or has been answered, nothing is fitted anew and that
    run is shown. Exit code: 0 fitted (with --no-wait: asked), 1 otherwise.

    Examples:

        thetastream model now glmm

        thetastream model now survival --as-of 2026-03-02 --json
    """
    day: date | None = as_of.date() if as_of else None
    asking = ask(
        Settings.from_env(),
        kind,
        "thetastream model now",
        reason=reason,
        as_of=day,
        wait_s=timeout if wait else None,
    )
    try:
        run = asyncio.run(asking)
    except NothingToCalibrateError as error:
        if reason == "manual":
            raise
        print(json.dumps({"status": "nothing"}) if as_json else str(error))
        return
    shown = _shown(run)
    if as_json:
        print(json.dumps(shown, indent=2))
    else:
        Console().print(_sentence(shown), highlight=False, markup=False, soft_wrap=True)
    if shown["status"] == "failed":
        raise typer.Exit(1)


def _shown(run: Run) -> dict[str, Any]:
    assert isinstance(run.request, ModelRequest)
    shown: dict[str, Any] = {
        "request_id": run.request.request_id,
        "kind": run.request.kind,
        "as_of": run.request.as_of,
        "base_version": run.request.base_version,
        "status": "requested",
    }
    if run.decided and isinstance(run.result, ModelResult):
        shown |= {
            "status": run.result.status,
            "run_id": run.result.run_id,
            "dataset": run.result.dataset,
            "n_learners": run.result.n_learners,
            "summary": run.result.summary,
        }
        if run.failed:
            shown |= {"error": run.result.error, "retriable": run.result.retriable}
    return shown


def _sentence(shown: dict[str, Any]) -> str:
    what = f"{shown['kind']} as of {shown['as_of']} (request {shown['request_id']})"
    if shown["status"] == "failed":
        return f"{what} failed, what was there stays: {shown['error']}"
    if shown["status"] == "succeeded":
        rows = shown["dataset"].get("rows", 0)
        return f"{what} is fitted: {rows} rows, {shown['n_learners']} learners, {shown['run_id']}"
    return f"{what} is asked for"
