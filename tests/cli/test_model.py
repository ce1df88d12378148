"""`thetastream model now` as it is typed."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.models import ModelRequest, ModelResult
from stream.calibration.runs import Run
from stream.cli import model
from stream.cli.main import app
from stream.errors import NothingToCalibrateError
from stream.models.registry import KINDS


def run_of(status: str = "", **more: Any) -> Run:
    request = ModelRequest("req1", "glmm", "manual", "2024-03-18", "none", {"0": 5}, 1)
    if not status:
        return Run(request, 0)
    values: dict[str, Any] = {"dataset": {"rows": 9}, "n_learners": 3, **more}
    result = ModelResult(
        "glmm-req1-0", "req1", "glmm", status, "manual", "2024-03-18", "none", 5, 0, **values
    )  # type: ignore[arg-type]
    return Run(request, 0, result)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was asked for; ``answer`` is what comes of it."""
    found: dict[str, Any] = {"answer": run_of("succeeded")}

    async def ask(_settings: object, kind: str, _detail: str, **options: Any) -> Run:
        found.update(kind=kind, **options)
        if isinstance(found["answer"], Exception):
            raise found["answer"]
        answer: Run = found["answer"]
        return answer

    monkeypatch.setattr(model, "ask", ask)
    return found


def test_every_kind_can_be_asked_for(asked: dict[str, Any]) -> None:
    for kind in KINDS:
        done = CliRunner().invoke(app, ["model", "now", kind])
        assert done.exit_code == 0, done.output
        assert (asked["kind"], asked["as_of"], asked["wait_s"]) == (kind, None, 3600.0)


def test_a_day_may_be_named(asked: dict[str, Any]) -> None:
    done = CliRunner().invoke(app, ["model", "now", "glmm", "--as-of", "2024-03-18", "--json"])
    assert asked["as_of"] == date(2024, 3, 18)
    told = json.loads(done.stdout)
    assert (told["status"], told["run_id"], told["n_learners"]) == ("succeeded", "glmm-req1-0", 3)


def test_a_failed_fit_is_exit_code_1_with_its_reason(asked: dict[str, Any]) -> None:
    asked["answer"] = run_of("failed", error="the fit is singular")
    done = CliRunner().invoke(app, ["model", "now", "glmm"])
    assert done.exit_code == 1
    assert "failed, what was there stays: the fit is singular" in done.stdout


def test_without_waiting_it_is_only_asked_for(asked: dict[str, Any]) -> None:
    asked["answer"] = run_of()
    done = CliRunner().invoke(app, ["model", "now", "glmm", "--no-wait"])
    assert (done.exit_code, asked["wait_s"]) == (0, None)
    assert "is asked for" in done.stdout


def test_having_nothing_to_fit_is_no_error_for_the_clock(asked: dict[str, Any]) -> None:
    asked["answer"] = NothingToCalibrateError("nothing was folded")
    command = ["model", "now", "glmm", "--json"]
    assert CliRunner().invoke(app, command).exit_code == 1
    done = CliRunner().invoke(app, [*command, "--reason", "schedule"])
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"status": "nothing"})


@pytest.mark.parametrize("arguments", [["weather"], ["glmm", "--as-of", "yesterday"], []])
def test_a_wrong_argument_is_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["model", "now", *arguments]).exit_code == 2
