"""From a request to its result: anchors, abilities in parts, and failures that say why."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest

from schemas.calibration import (
    CalibratedItem,
    CalibrationAbilities,
    CalibrationRequest,
    CalibrationResult,
)
from schemas.codec import decode
from stream.calibration.observations import Observations
from stream.calibration.practice_weights import practice_weights
from stream.calibration.run import Fit, calibrate, superseded
from stream.calibration.runs import Run
from stream.domain.irt import ItemParams
from stream.errors import CalibrationRefusedError
from stream.settings import Settings
from tests.calibration.test_practice_weights import observed, school

REQUEST = CalibrationRequest("0123456789abcdef", "irt", "manual", "none", {"0": 9}, "2PL", 30, 5)
ANCHORS = {f"i{n}": ItemParams(1.0, float(n), 0.0) for n in range(8)}


def observations(learners: int = 4, items: int = 6, correct: bool | None = None) -> Observations:
    learner = np.repeat(np.arange(learners), items)
    item = np.tile(np.arange(items), learners)
    right = (learner + item) % 2 == 0 if correct is None else np.full(len(item), correct)
    return Observations(
        learners=[f"u{n}" for n in range(learners)],
        items=[f"i{n}" for n in range(items)],
        learner=learner,
        item=item,
        correct=right,
        responded_at=np.arange(len(item)),
        cut_time=77,
        responses="first",
        skipped={"repeats": 3},
    )


class Service:
    """Remembers the anchors it was given."""

    def __init__(self) -> None:
        self.anchors: Mapping[str, ItemParams] = {}

    async def __call__(
        self, observations: Observations, model: str, anchors: Mapping[str, ItemParams]
    ) -> Fit:
        self.anchors = anchors
        return Fit(
            [CalibratedItem(item, 1.0, 0.0, 0.0) for item in observations.items],
            [(user, 0.0, 1.0) for user in observations.learners],
            {"run_id": "theirs", "metrics": {"warnings": ["The service warns."]}},
        )


async def run(
    service: Service,
    found: Observations,
    *,
    anchors: dict[str, ItemParams] | None = None,
    has_reference: bool = False,
) -> tuple[list[CalibrationAbilities], CalibrationResult]:
    def read(_s: Settings, _r: CalibrationRequest, _c: threading.Event | None) -> Observations:
        return found

    async def read_anchors(_settings: Settings) -> dict[str, ItemParams] | None:
        return anchors

    messages = await calibrate(
        Settings(),
        REQUEST,
        7,
        service,
        has_reference=has_reference,
        read=read,
        read_anchors=read_anchors,
    )
    *parts, result = (m.value or b"" for m in messages)
    return (
        [decode(part, CalibrationAbilities) for part in parts],
        decode(result, CalibrationResult),
    )


async def test_a_result_tells_what_it_rests_on() -> None:
    parts, result = await run(Service(), observations(), anchors={})
    assert (result.status, result.run_id, result.request_offset) == (
        "succeeded",
        "irt-0123456789-7",
        7,
    )
    assert (result.n_observations, result.n_learners, result.cut_time) == (24, 4, 77)
    assert {item.n for item in result.items} == {4}
    assert result.fit_meta["observations"] == {
        "responses": "first",
        "n": 24,
        "learners": 4,
        "items": 6,
        "lookback_days": 30,
        "skipped": {"repeats": 3},
    }
    assert result.warnings == ["The service warns."]
    assert [len(part.abilities) for part in parts] == [4]


async def test_what_the_live_filter_folds_with_is_in_the_result() -> None:
    found = observed(school(1.0, recall=0.8))
    _, result = await run(Service(), found)
    live = practice_weights(found, [CalibratedItem(i, 1.0, 0.0, 0.0) for i in found.items])
    assert result.weights == live.weights
    assert result.filter == live.filter
    assert {i.item_id: (*(i.live or ()), i.recall) for i in result.items} == live.items
    assert any(item.recall > 0.2 for item in result.items)


async def test_abilities_come_in_parts() -> None:
    parts, result = await run(Service(), observations(learners=12_000, items=2), anchors={})
    assert [(part.part, len(part.abilities)) for part in parts] == [
        (0, 5000),
        (1, 5000),
        (2, 2000),
    ]
    assert (result.ability_parts, result.n_abilities) == (3, 12_000)


async def test_tagged_anchors_are_fixed_in_the_first_calibration_alone() -> None:
    service = Service()
    _, result = await run(service, observations(), anchors=ANCHORS)
    names = [f"i{n}" for n in range(6)]
    assert service.anchors == {name: ANCHORS[name] for name in names}
    assert result.fixed_anchors == result.tagged_anchors == names
    _, result = await run(service, observations(), anchors=ANCHORS, has_reference=True)
    assert service.anchors == {}
    assert (result.fixed_anchors, result.tagged_anchors) == ([], names)


async def test_too_few_anchors_do_not_set_the_scale_and_it_is_said() -> None:
    service = Service()
    _, result = await run(service, observations(items=4), anchors=ANCHORS)
    assert service.anchors == {}
    assert "Only 4 of 8 tagged anchors" in result.warnings[0]


async def test_a_database_that_is_away_is_told_of() -> None:
    _, result = await run(Service(), observations(), anchors=None)
    assert (result.status, result.warnings[0]) == (
        "succeeded",
        "PostgreSQL was away: tagged anchors were not used.",
    )


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (observations(learners=0), "no responses in the window (left out: {'repeats': 3})"),
        (observations(correct=True), "all 24 responses are right"),
        (observations(correct=False), "all 24 responses are wrong"),
    ],
)
async def test_what_cannot_be_fitted_fails_with_its_reason(found: Observations, error: str) -> None:
    parts, result = await run(Service(), found, anchors={})
    assert parts == []
    assert result.status == "failed"
    assert error in result.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CalibrationRefusedError("401: the token differs"), "401: the token differs"),
        (ZeroDivisionError("oops"), "unexpected ZeroDivisionError: oops"),
    ],
)
async def test_whatever_the_service_does_ends_in_one_failed_result(
    error: Exception, said: str
) -> None:
    class Broken(Service):
        async def __call__(
            self, observations: Observations, model: str, anchors: Mapping[str, ItemParams]
        ) -> Fit:
            raise error

    parts, result = await run(Broken(), observations(), anchors={})
    assert (parts, result.status, result.error) == ([], "failed", said)


def test_a_request_overtaken_while_it_waited_is_answered_too() -> None:
    (message,) = superseded(Run(REQUEST, 3), Run(REQUEST, 4))
    result = decode(message.value or b"", CalibrationResult)
    assert (result.status, result.request_offset) == ("failed", 3)
    assert result.error == "overtaken by the newer request 0123456789abcdef"
