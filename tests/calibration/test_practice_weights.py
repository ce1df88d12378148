"""Weights of practice and memory: fitted in a calibration, published, folded by the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from schemas.calibration import MANIFEST_KEY, CalibratedItem, ItemParamsRecord, ParamsManifest
from schemas.codec import encode
from stream.calibration.observations import ObservationReader, Observations
from stream.calibration.practice_weights import LiveFit, fit_live, practice_weights, rescaled
from stream.domain.ability import filter_from
from stream.domain.practice import Weights
from stream.engine.params import ParamsStore
from stream.engine.state import PartitionState
from stream.follow import follow
from tests.domain.plain_follow import LearnerState
from tests.engine.events import FakeRecord, event

START_MS = 1_727_654_400_000
ITEMS = [f"i{n}" for n in range(30)]


def school(
    memory: float,
    learners: int = 60,
    attempts: int = 120,
    recall: float = 0.0,
    of_hard: float = 0.0,
) -> list[dict[str, Any]]:
    """Draw a log in which an item seen before is easier by ``memory`` logits.

    With ``recall`` every second item by as much more, the others by as much less; with ``of_hard``
    each by as much more for every logit of its difficulty.
    """
    rng = np.random.default_rng(4)
    b = rng.normal(size=len(ITEMS))
    events = []
    for learner in range(learners):
        theta, seen = rng.normal(), set()
        for number in range(attempts):
            item = int(rng.integers(len(ITEMS)))
            gain = memory + (recall if item % 2 else -recall) + of_hard * b[item]
            logit = theta - b[item] + (gain if item in seen else 0.0)
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
    strong = practice_weights(observed(school(1.5)), average_items()).weights
    none = practice_weights(observed(school(0.0)), average_items()).weights
    assert strong["seen"] > 0.3
    assert abs(none.get("seen", 0.0)) < 0.3


def test_items_that_gain_more_than_others_from_a_first_meeting_are_found() -> None:
    observations = observed(school(1.0, learners=240, attempts=60, recall=0.8))
    assert observations.log is not None
    fitted = fit_live(observations.log).items
    at = [observations.items.index(item) for item in ITEMS]
    recall, b = fitted.recall[at], fitted.b[at]
    assert recall[1::2].mean() - recall[::2].mean() == pytest.approx(1.6, abs=0.3)
    assert recall[1::2].min() > recall[::2].max()
    # The difficulty stays that of a first meeting.
    assert np.corrcoef(b, np.random.default_rng(4).normal(size=len(ITEMS)))[0, 1] > 0.97


def test_hard_items_that_gain_more_are_found_also_where_answers_are_few() -> None:
    # Some 35 first meetings an item and 45 repeats: items together tell what one alone cannot.
    observations = observed(school(1.0, learners=40, attempts=60, of_hard=0.7))
    assert observations.log is not None
    items = fit_live(observations.log).items
    b = dict(zip(ITEMS, np.random.default_rng(4).normal(size=len(ITEMS)), strict=True))
    difficulty = [b[item] for item in observations.items]
    slope, _ = np.polyfit(difficulty, items.recall, 1)
    assert slope == pytest.approx(0.7, abs=0.25)
    assert np.corrcoef(difficulty, items.recall)[0, 1] > 0.8


def test_recall_travels_from_the_fit_to_the_result() -> None:
    observations = observed(school(1.0, recall=0.8))
    found = practice_weights(observations, average_items())
    assert found.items["i1"].recall > 0.2 > -0.2 > found.items["i0"].recall


def test_without_repeats_no_item_has_a_recall() -> None:
    observations = observed(school(0.0, learners=200, attempts=12))
    log = observations.log
    assert log is not None
    first = np.unique(log.learner * log.n_items + log.item, return_index=True)[1]
    once = np.zeros(len(log), bool)
    once[first] = True
    assert not fit_live(log.where(once)).items.recall.any()


def test_live_items_lie_on_the_scale_of_the_calibrated_ones() -> None:
    observations = observed(school(1.0))
    b = dict(zip(ITEMS, np.random.default_rng(4).normal(size=len(ITEMS)), strict=True))
    # The calibration's scale is another: theta* = .5 theta + 2.
    calibrated = [CalibratedItem(i, 2.0, 0.5 * b[i] + 2.0, 0.0, 0.1, 0.1) for i in ITEMS]
    found = practice_weights(observations, calibrated)
    assert found.items.keys() == set(ITEMS)
    a, b_live, se, _ = np.array([found.items[i] for i in ITEMS]).T
    assert np.exp(np.log(a).mean()) == pytest.approx(2.0, rel=0.15)
    # A calibrated difficulty holds what practice does to the average first answer.
    log = observations.log
    assert log is not None
    live = np.array([found.items[item] for item in observations.items])[log.item].T
    rows = follow(
        log,
        *(live[0], live[1], np.zeros(len(log)), live[2] ** 2, live[3]),
        Weights(**found.weights),
        filter_from(found.filter),
    ).features
    first = rows[:, Weights._fields.index("seen")] == 0.0
    eased = float(np.mean(rows[first] @ np.array(Weights(**found.weights)))) / 2.0
    assert np.mean(b_live - [i.b for i in calibrated]) == pytest.approx(eased, abs=0.06)
    assert np.corrcoef(b_live, [i.b for i in calibrated])[0, 1] > 0.9
    assert (se > 0.0).all()
    assert found.filter["prior_mean"] == pytest.approx(2.0, abs=0.3)
    assert 0.1 < found.filter["prior_var"] < 0.6
    # Put back on any scale it predicts the same.
    fit = fit_live(log)
    moved = rescaled(fit, 0.7, -1.0)
    same = [
        follow(
            log,
            *f.items.at(log.item),
            f.weights,
            f.config,
        ).probability
        for f in (fit, moved)
    ]
    assert same[0] == pytest.approx(same[1], abs=1e-9)


def test_without_items_that_hold_the_scale_weights_belong_to_the_calibrated_ones() -> None:
    items = [CalibratedItem(item, 1.0, 0.0, 0.0, 0.9, 0.9) for item in ITEMS]
    found = practice_weights(observed(school(1.5)), items)
    assert found.weights["seen"] > 0.3
    assert (found.filter, found.items) == ({}, {})


def test_of_a_large_log_the_weights_rest_on_some_learners_and_the_items_on_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = observed(school(1.0)).log
    assert log is not None
    whole = fit_live(log)
    monkeypatch.setattr("stream.calibration.practice_weights.MAX_ATTEMPTS", 3000)
    sampled = fit_live(log)
    assert sampled.weights != whole.weights
    # But for the scale's origin, which the effect of a learner's first answers shares in.
    assert np.std(sampled.items.b - whole.items.b) < 0.1
    assert np.corrcoef(sampled.items.recall, whole.items.recall)[0, 1] > 0.9
    assert sampled.items.b_var == pytest.approx(whole.items.b_var, rel=0.3)


def test_a_small_log_gives_no_weights() -> None:
    assert (
        practice_weights(observed(school(1.5, learners=4, attempts=50)), average_items())
        == LiveFit()
    )


def test_the_engine_folds_as_the_reference_does() -> None:
    weights = Weights(seen=0.6, item_last=0.2, topic_right=0.1, form=0.3, item_age=-0.05)
    store = ParamsStore()
    for number, item in enumerate(ITEMS):
        record = ItemParamsRecord(item, 1.0 + number / 50, number / 20 - 0.7, 0.0, 0.1, "v1")
        record.recall = number / 30 - 0.4
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
            item.recall,
            one["completed_at"] / 1000 - 5.0,
            one["completed_at"] / 1000,
        )
        state.fold([FakeRecord(one["user_id"].encode(), orjson.dumps(one), number)])
    learner = state.learner("u000")
    assert learner is not None
    assert learner.g == pytest.approx(reference.g, abs=1e-9)
    assert learner.form == pytest.approx(reference.form, abs=1e-9)
