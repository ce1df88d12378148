"""``thetastream calibrate``: ask for a calibration."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from schemas.calibration import CalibrationRequest, CalibrationResult
from stream.calibration.ask import ask
from stream.calibration.runs import Run
from stream.errors import NothingToCalibrateError
from stream.settings import Settings

__all__ = ["app"]

app = typer.Typer(name="calibrate", help="Calibrations of the items.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``now`` a command of its own."""


@app.command()
def now(
    kind: Annotated[Literal["irt"], typer.Option(help="What to calibrate.")] = "irt",
    reason: Annotated[
        Literal["manual", "schedule"],
        typer.Option(help="schedule: asked by the clock; having nothing to calibrate is no error."),
    ] = "manual",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the result is applied or refused.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds to wait at most, with --wait.")
    ] = 1200.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for a program to read.")
    ] = False,
) -> None:
    """Ask for a calibration of what has been folded so far.

    Publishes a request with the reason "manual", which no cool-down holds back. If the same is
    being worked on already, nothing is published and that run is shown.
    Exit code: 0 asked (with --wait: applied, or reported by DRY_RUN), 1 otherwise.

    Examples:

        thetastream calibrate now

        thetastream calibrate now --wait --json
    """
    asking = ask(
        Settings.from_env(),
        kind,
        "thetastream calibrate now",
        reason=reason,
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
        Console().print(_sentence(shown), highlight=False, markup=False)
    if shown["status"] in ("failed", "refused") and (wait or reason == "manual"):
        raise typer.Exit(1)


def _shown(run: Run) -> dict[str, Any]:
    assert isinstance(run.request, CalibrationRequest)
    shown: dict[str, Any] = {
        "request_id": run.request.request_id,
        "kind": run.request.kind,
        "responses": run.request.responses,
        "base_version": run.request.base_version,
        "status": "requested",
    }
    if run.decided and isinstance(run.result, CalibrationResult):
        shown |= {"run_id": run.result.run_id, "n_observations": run.result.n_observations}
        if run.outcome is None:
            shown |= {"status": run.result.status, "error": run.result.error}
        else:
            outcome = run.outcome
            shown |= {
                "status": outcome.status,
                "version": outcome.version,
                "linking_constants": {"slope": outcome.slope, "intercept": outcome.intercept},
                "linking_method": outcome.method,
                "n_items": outcome.n_items,
                "n_abilities": outcome.n_abilities,
                "reasons": outcome.reasons,
                "warnings": outcome.warnings,
            }
    return shown


def _sentence(shown: dict[str, Any]) -> str:
    request_id, status = shown["request_id"], shown["status"]
    if status == "failed":
        return f"calibration {request_id} failed, old parameters stay: {shown['error']}"
    if status == "refused":
        return f"calibration {request_id} was refused, old parameters stay: " + " ".join(
            shown["reasons"]
        )
    if status in ("applied", "dry_run"):
        constants = shown["linking_constants"]
        what = f"in force as {shown['version']}" if status == "applied" else "a dry run"
        return (
            f"calibration {request_id} is {what}: {shown['n_observations']} responses, slope "
            f"{constants['slope']:.4f}, intercept {constants['intercept']:.4f} "
            f"({shown['linking_method']})"
        )
    return f"calibration {request_id} of {shown['responses']} responses is asked for"
