"""Weights of practice and memory: fitted in a calibration, published, folded by the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from schemas.calibration import MANIFEST_KEY, CalibratedItem, ItemParamsRecord, ParamsManifest
from schemas.codec import encode
from stream.calibration.observations import ObservationReader, Observations
from stream.calibration.practice_weights import practice_weights
from stream.domain.follow import LearnerState
from stream.domain.practice import Weights
from stream.engine.params import ParamsStore
from stream.engine.state import PartitionState
from tests.engine.events import FakeRecord, event

START_MS = 1_727_654_400_000
ITEMS = [f"i{n}" for n in range(30)]


def school(memory: float, learners: int = 60, attempts: int = 120) -> list[dict[str, Any]]:
    """Draw a log in which an item seen before is easier by ``memory`` logits."""
    rng = np.random.default_rng(4)
    b = rng.normal(size=len(ITEMS))
    events = []
    for learner in range(learners):
        theta, seen = rng.normal(), set()
        for number in range(attempts):
            item = int(rng.integers(len(ITEMS)))
            logit = theta - b[item] + (memory if item in seen else 0.0)
            seen.add(item)
            events.append(
                event(
                    f"{learner}-{number}",
                    f"u{learner:03d}",
                    item_id=ITEMS[item],
                    correct=bool(rng.random() < 1 / (1 + np.exp(-logit))),
                    response_time_ms=5000,
                    completed_at=START_MS + number * 60_000,
                )
            )
    return events


class _Read:
    """A confluent_kafka message."""

    def __init__(self, one: dict[str, Any]) -> None:
        self._one = one

    def key(self) -> bytes:
        return str(self._one["user_id"]).encode()

    def value(self) -> bytes:
        return orjson.dumps(self._one)

    def timestamp(self) -> tuple[int, int]:
        return 1, START_MS + 10**9


def observed(events: list[dict[str, Any]]) -> Observations:
    reader = ObservationReader(7)
    reader.take([_Read(one) for one in events])  # type: ignore[misc]
    return reader.observations(30, "first")


def average_items() -> list[CalibratedItem]:
    return [CalibratedItem(item, 1.0, 0.0, 0.0) for item in ITEMS]


def test_the_log_holds_every_attempt_in_order_though_first_ones_are_fitted() -> None:
    events = school(0.0, learners=3, attempts=50)
    observations = observed(events)
    log = observations.log
    assert log is not None
    assert len(observations) < len(log) == 150
    assert [observations.items[i] for i in log.item[:50]] == [e["item_id"] for e in events[:50]]
    assert log.correct[:50].tolist() == [e["correct"] for e in events[:50]]
    assert log.end_s[1] - log.end_s[0] == 60.0
    assert log.end_s[0] - log.start_s[0] == 5.0


def test_memory_in_the_data_is_found_and_none_is_not_invented() -> None:
    strong = practice_weights(observed(school(1.5)), average_items())
    none = practice_weights(observed(school(0.0)), average_items())
    assert strong["seen"] > 0.3
    assert abs(none.get("seen", 0.0)) < 0.3


def test_a_small_log_gives_no_weights() -> None:
    assert practice_weights(observed(school(1.5, learners=4, attempts=50)), average_items()) == {}


def test_the_engine_folds_as_the_reference_does() -> None:
    weights = Weights(seen=0.6, item_last=0.2, topic_right=0.1, form=0.3, item_age=-0.05)
    store = ParamsStore()
    for number, item in enumerate(ITEMS):
        record = ItemParamsRecord(item, 1.0 + number / 50, number / 20 - 0.7, 0.0, 0.1, "v1")
        store.add(item.encode(), encode(record))
    manifest = ParamsManifest(
        "v1", 1, "calibrated", "r", len(ITEMS), 1, 0, "reference", 0, weights._asdict()
    )
    store.add(MANIFEST_KEY, encode(manifest))
    state = PartitionState(0, 7, store)
    events = school(1.0, learners=1, attempts=200)
    reference = LearnerState(weights=weights)
    for number, one in enumerate(events):
        item = store.items[one["item_id"]]
        reference.step(
            ITEMS.index(one["item_id"]),
            0,
            one["correct"],
            item.a,
            item.b,
            item.c,
            item.b_variance,
            one["completed_at"] / 1000 - 5.0,
            one["completed_at"] / 1000,
        )
        state.fold(FakeRecord(one["user_id"].encode(), orjson.dumps(one), number))
    learner = state.learner("u000")
    assert learner is not None
    assert learner.g == pytest.approx(reference.g, abs=1e-9)
    assert learner.form == pytest.approx(reference.form, abs=1e-9)
