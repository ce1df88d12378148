"""One fit, against a real database and a service that misbehaves over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from schemas.codec import decode
from schemas.models import ModelLearners, ModelRequest, ModelResult
from stream.models import run as run_module
from stream.models.registry import KINDS
from stream.models.run import fit_model
from stream.settings import Settings
from stream.testing.fake_models import (
    FakeModels,
    Step,
    changed,
    html,
    killed,
    slow,
    status,
    truncated,
)
from tests.models.school import AS_OF, LEARNERS

pytestmark = pytest.mark.integration

KIND_URLS = {kind.url: "" for kind in KINDS.values()}


@pytest.fixture
async def service() -> AsyncIterator[FakeModels]:
    async with FakeModels(token="secret").running() as fake:
        yield fake


@pytest.fixture
def settings(school: Settings, service: FakeModels) -> Settings:
    return replace(
        school,
        r_irt_internal_token="secret",
        model_timeout_secs=0.5,
        **dict.fromkeys(KIND_URLS, service.url),
    )


def request_of(kind: str) -> ModelRequest:
    return ModelRequest(
        "0123456789abcdef", kind, "manual", AS_OF.isoformat(), "irt-1", {"0": 5}, 1, "who asks"
    )


async def fit(
    settings: Settings, kind: str
) -> tuple[list[ModelLearners], ModelResult, list[float]]:
    """Fit without waiting; return the parts, the result, and the waits between tries."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    messages = await fit_model(settings, request_of(kind), 7, sleep=sleep)
    assert {(m.topic, m.key, m.partition) for m in messages} == {
        ("calibration-results", b"0123456789abcdef", 0)
    }
    *parts, last = [m.value or b"" for m in messages]
    return [decode(part, ModelLearners) for part in parts], decode(last, ModelResult), waits


@pytest.mark.parametrize("kind", KINDS)
async def test_a_kind_is_fitted_on_its_dataset_under_our_run_id(
    settings: Settings, service: FakeModels, kind: str
) -> None:
    parts, result, _ = await fit(settings, kind)
    assert (result.status, result.error) == ("succeeded", "")
    assert result.run_id == f"{kind}-0123456789-7"
    ((route, body),) = service.bodies
    assert route == KINDS[kind].route
    assert body["run_id"] == result.run_id
    assert result.dataset["rows"] == len(next(iter(next(iter(_tables(body))).values())))
    assert result.answer["fit_meta"]["model_spec"] == {"package": "fake"}
    assert result.answer["warnings"] == ["made up"]
    if KINDS[kind].learners:
        assert KINDS[kind].learners not in result.answer
        assert (result.parts, result.n_learners) == (1, LEARNERS)
        assert {one["user_id"] for one in parts[0].learners} == {
            f"u{n:02}" for n in range(LEARNERS)
        }
        assert result.summary
    else:
        assert parts == []


def _tables(body: dict[str, Any]) -> list[dict[str, list[Any]]]:
    return [body[name] for name in ("rows", "series") if name in body]


async def test_learners_go_in_parts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "LEARNERS_A_PART", 5)
    parts, result, _ = await fit(settings, "segments")
    assert [len(part.learners) for part in parts] == [5, 5, 2]
    assert (result.parts, result.n_learners) == (3, LEARNERS)


async def test_a_dry_run_tells_the_result_and_nothing_of_learners(settings: Settings) -> None:
    parts, result, _ = await fit(replace(settings, dry_run=True), "segments")
    assert (parts, result.status, result.n_learners) == ([], "succeeded", LEARNERS)


@pytest.mark.parametrize(
    ("steps", "waits"),
    [
        ([killed], [5.0]),
        ([status(500), status(503)], [5.0, 10.0]),
        ([slow(2.0)], [5.0]),
        ([status(429, Retry_After="40")], [40.0]),
        ([killed, status(429, Retry_After="1")], [5.0, 10.0]),
    ],
    ids=["killed", "5xx", "slow", "429", "killed, 429"],
)
async def test_what_may_pass_is_tried_again_and_each_try_is_logged(
    settings: Settings,
    service: FakeModels,
    caplog: pytest.LogCaptureFixture,
    steps: list[Step],
    waits: list[float],
) -> None:
    service.then(steps)
    with caplog.at_level(logging.INFO, "stream.service_client"):
        _, result, waited = await fit(settings, "glmm")
    assert result.status == "succeeded"
    assert waited == waits
    tries = [r.getMessage() for r in caplog.records if " try " in r.getMessage()]
    assert len(tries) == len(service.bodies) == len(steps) + 1


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (killed, "failed"),
        (status(500, "out of memory"), "500: out of memory"),
        (status(429, "busy", Retry_After="2"), "429: busy"),
        (slow(2.0), "did not answer within 0.5 s"),
    ],
    ids=["killed", "500", "429", "slow"],
)
async def test_after_the_last_try_one_result_says_what_happened(
    settings: Settings, service: FakeModels, step: Step, said: str
) -> None:
    service.then([step] * 3)
    parts, result, waits = await fit(settings, "survival")
    assert parts == []
    assert (result.status, result.retriable, result.answer) == ("failed", True, {})
    assert said in result.error
    assert "try 3 of 3, the last" in result.error
    assert (len(service.bodies), waits) == (3, [5.0, 10.0])


@pytest.mark.parametrize("code", [400, 401, 413, 422])
async def test_a_refusal_fails_at_once_with_the_services_reason(
    settings: Settings, service: FakeModels, code: int
) -> None:
    service.then([status(code, "the fit is singular")])
    _, result, waits = await fit(settings, "glmm")
    assert (result.status, result.retriable) == ("failed", False)
    assert f"{code}: the fit is singular" in result.error
    assert (len(service.bodies), waits) == (1, [])


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return what sets a value within an answer; a number in the path is a place in a list."""

    def change(answer: dict[str, Any]) -> None:
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        node: Any = answer
        for step in way:
            node = node[step]
        node[last] = value

    return change


def _twice(answer: dict[str, Any]) -> None:
    answer["segments"].append(answer["segments"][0])


@pytest.mark.parametrize(
    ("kind", "step", "said"),
    [
        ("glmm", truncated, "is not the contract's"),
        ("forecast", html, "starts with '<html>"),
        ("glmm", changed(_set("students.0.slope", float("nan"))), "is not the contract's"),
        ("glmm", changed(_set("students.0.slope", None)), "is not the contract's"),
        ("glmm", changed(_set("fixed.0.estimate", "NaN")), "is not the contract's"),
        ("glmm", changed(_set("fit_meta.metrics.aic", "NaN")), "'NaN' in place of a number"),
        ("glmm", changed(_set("fit_meta.run_id", "another")), "answered for the run 'another'"),
        ("glmm", changed(_set("students.0.user_id", "u99")), "1 learners that were not in"),
        ("glmm", changed(_set("topics.0.topic_id", "t9")), "1 topics that were not in"),
        ("glmm", changed(_set("fixed", [])), "no fixed effect of week"),
        ("glmm", changed(_set("students", [])), "returned no learners"),
        ("growth", changed(_set("fixed", [])), "no fixed effect of week"),
        ("growth", changed(_set("status", "failed")), "status 'failed'"),
        ("segments", changed(_twice), "returned a learner twice"),
        ("segments", changed(_set("segments.0.segment", "Z")), "segment 'Z', which has no centre"),
        ("segments", changed(_set("centers.1.segment", "A")), "centres without labels"),
        ("segments", changed(_set("centers.0.accuracy", "NaN")), "'NaN' as accuracy"),
        ("survival", changed(_set("risks.0.risk", 1.5)), "risk of 1.5"),
        ("survival", changed(_set("kaplan_meier.0.survival", -1)), "survival of -1"),
        ("forecast", changed(_set("forecast.0.week_start", "2020-01-06")), "other weeks than"),
        ("forecast", changed(_set("forecast.0.lower", 9)), "outside its own interval"),
        ("forecast", changed(_set("anomalies.0.week_start", "2020-01-06")), "1 weeks that"),
    ],
)
async def test_an_answer_that_cannot_be_right_is_refused_whole(
    settings: Settings, service: FakeModels, kind: str, step: Step, said: str
) -> None:
    service.then([step])
    parts, result, _ = await fit(settings, kind)
    assert (parts, result.status, result.retriable, result.answer) == ([], "failed", False, {})
    assert said in result.error
    assert len(service.bodies) == 1


async def test_a_kind_without_an_address_says_which_setting_is_empty(settings: Settings) -> None:
    _, result, _ = await fit(replace(settings, r_growth_base_url=""), "growth")
    assert result.status == "failed"
    assert "R_GROWTH_BASE_URL is empty" in result.error


async def test_nothing_to_fit_fails_without_asking_the_service(
    settings: Settings, service: FakeModels
) -> None:
    _, result, _ = await fit(replace(settings, glmm_min_observations=9999), "glmm")
    assert "GLMM_MIN_OBSERVATIONS asks for 9999" in result.error
    assert service.bodies == []


async def test_a_database_that_is_away_is_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "DATABASE_TRIES", 3)
    away = replace(settings, database_url="postgresql://127.0.0.1:1/none")
    _, result, waits = await fit(away, "glmm")
    assert (result.status, result.retriable, waits) == ("failed", True, [10.0, 10.0])
    assert "127.0.0.1:1/none" in result.error
