"""The engine's rows equal an independent recomputation, however records are batched.

The events are drawn so that rare things meet: several learners, days weeks apart, late and too
late attempts, duplicates, voids and regrades of each other.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import decode
from schemas.outputs import FeatureUpdate, ItemPartial, KpiUpdate, TopicPartial
from stream.domain.window import DAY_MS
from stream.engine.params import ParamsStore
from stream.engine.rows import StateLoader
from stream.engine.state import PartitionState
from stream.verify import expected_rows
from tests.engine.events import INGEST_MS, MONDAY, FakeRecord, flushed, packed_rows, unpacked

EPOCH = dt.date(1970, 1, 1)


class Pipeline:
    """Partitions in memory: folds records, flushes when told, and keeps what was published.

    With ``reload`` every flush is followed by a restart: the state is read back from its rows.
    """

    def __init__(self, partitions: int, *, reload: bool = False) -> None:
        self.states = [PartitionState(n, 7, ParamsStore()) for n in range(partitions)]
        self.offsets = [0] * partitions
        self.rows: list[dict[bytes, bytes]] = [{} for _ in range(partitions)]
        self.reload = reload
        self.features: dict[tuple[str, str, int], Any] = {}
        self.weekly: dict[tuple[str, int], Any] = {}
        self.topics: dict[tuple[int, str], TopicPartial] = {}
        self.items: dict[tuple[int, str], ItemPartial] = {}
        self.outcomes: Counter[str] = Counter()
        self.week = 0

    def send(self, event: dict[str, Any]) -> None:
        number = sum(event["user_id"].encode()) % len(self.states)
        key = event["user_id"].encode()
        record = FakeRecord(key, orjson.dumps(event), self.offsets[number], INGEST_MS)
        self.offsets[number] += 1
        self.states[number].fold([record])

    def flush(self, number: int) -> None:
        state = self.states[number]
        self.outcomes.update(state.counts)
        self.week = max(self.week, state.position.stream_week)
        for message in unpacked(flushed(state, self.week, use_theta=False).messages):
            self._take(number, message.topic, message.key, message.value)
        if self.reload:
            self.states[number] = PartitionState(number, 7, ParamsStore())
            loader = StateLoader(self.states[number])
            loader.add(packed_rows(self.rows[number].items()))
            loader.finish()

    def finish(self) -> None:
        for _ in range(2):  # the second time every partition knows the stream's latest week
            for number in range(len(self.states)):
                self.flush(number)

    def _take(self, number: int, topic: str, key: bytes | None, value: bytes | None) -> None:
        if topic == "engine-state":
            assert key is not None
            if value is None:
                self.rows[number].pop(key, None)
            else:
                self.rows[number][key] = value
            return
        assert value is not None
        if topic == "feature-updates":
            update = decode(value, FeatureUpdate)
            for row in update.rows:
                self.features[update.user_id, row.topic_id, row.date] = row
        elif topic == "kpi-updates":
            kpis = decode(value, KpiUpdate)
            for week in kpis.rows:
                self.weekly[kpis.user_id, week.week_start] = week.kpis
        elif topic == "topic-partials":
            topic_row = decode(value, TopicPartial)
            self.topics[number, topic_row.topic_id] = topic_row
        elif topic == "item-partials":
            item_row = decode(value, ItemPartial)
            self.items[number, item_row.item_id] = item_row


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw a log in arrival order."""
    events: list[dict[str, Any]] = []
    clock: dict[str, int] = {}
    sent: dict[str, list[dict[str, Any]]] = {}
    for number in range(draw(st.integers(1, 60))):
        user = draw(st.sampled_from(["u1", "u2", "u3"]))
        kind = draw(
            st.sampled_from(["attempt"] * 12 + ["late", "late", "duplicate", "void", "regrade"])
        )
        mine = sent.setdefault(user, [])
        now = clock.get(user, MONDAY * DAY_MS + draw(st.integers(0, 20 * DAY_MS)))
        if kind == "duplicate" and mine:
            events.append(draw(st.sampled_from(mine)))
            continue
        if kind == "late":
            at = max(0, now - draw(st.integers(0, 9 * DAY_MS)))
        else:
            at = now + draw(
                st.one_of(
                    st.integers(0, 3_600_000),
                    st.integers(0, 3 * DAY_MS),
                    st.integers(0, 60 * DAY_MS),
                )
            )
        event = {
            "attempt_id": f"{user}-{number}",
            "user_id": user,
            "item_id": draw(st.sampled_from(["i1", "i2", "i3"])),
            "topic_id": draw(st.sampled_from(["t1", "t2", None])),
            "correct": draw(st.booleans()),
            "response_time_ms": draw(st.one_of(st.none(), st.integers(0, 30_000))),
            "hint_used": draw(st.booleans()),
            "completed_at": at,
        }
        if kind in ("void", "regrade") and mine:
            original = draw(st.sampled_from(mine))
            event |= {
                "op": kind,
                "supersedes": original["attempt_id"],
                "item_id": original["item_id"],
                "topic_id": original["topic_id"],
                "completed_at": now,
            }
        else:
            clock[user] = max(now, at)
        mine.append(event)
        events.append(event)
    return events


def recomputed(events: list[dict[str, Any]]) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log.jsonl"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return expected_rows(path, ingest_time_ms=INGEST_MS)


def assert_same(pipeline: Pipeline, expected: Any) -> None:
    """Compare every row and column."""
    features = {
        (row["user_id"], row["topic_id"], (row["date"] - EPOCH).days): row
        for row in expected.features
    }
    assert pipeline.features.keys() == features.keys()
    for key, want in features.items():
        have = pipeline.features[key]
        for name in ("attempts", "correct", "hints", "last_seen_at"):
            assert getattr(have, name) == want[name], (key, name)
        for name in ("avg_time_ms", "rt_median", "improvement_accuracy"):
            assert getattr(have, name) == pytest.approx(want[name], abs=1e-9), (key, name)
    weekly = {(row["user_id"], (row["week_start"] - EPOCH).days): row for row in expected.weekly}
    assert pipeline.weekly.keys() == weekly.keys()
    for week_key, want in weekly.items():
        for name in ("I_t_accuracy", "E_t", "R_t", "A_t", "S"):
            have = pipeline.weekly[week_key][name]
            assert have == pytest.approx(want[name], abs=1e-9), (week_key, name)
    assert totals(pipeline.topics.values(), "topic_id", "learners") == {
        row["topic_id"]: (row["attempts"], row["correct"], row["learners"])
        for row in expected.topics
    }
    assert totals(pipeline.items.values(), "item_id") == {
        row["item_id"]: (row["attempts"], row["correct"]) for row in expected.items
    }
    learners = {
        user: learner
        for state in pipeline.states
        for user in state.store.user_ids
        if (learner := state.learner(user)) is not None
    }
    assert {u: (v.attempts, v.correct, v.latest_ms) for u, v in learners.items()} == {
        row["user_id"]: (row["attempts"], row["correct"], row["latest_ms"])
        for row in expected.learners
    }
    outcomes = Counter(pipeline.outcomes)
    outcomes["accepted"] += outcomes.pop("void", 0) + outcomes.pop("regrade", 0)
    assert +outcomes == +Counter(expected.outcomes)


def totals(partials: Any, name: str, *more: str) -> dict[str, tuple[int, ...]]:
    sums: dict[str, list[int]] = {}
    for partial in partials:
        row = sums.setdefault(getattr(partial, name), [0] * (2 + len(more)))
        for position, column in enumerate(("attempts", "correct", *more)):
            row[position] += getattr(partial, column)
    return {key: tuple(row) for key, row in sums.items()}


relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(events=logs(), partitions=st.integers(1, 3), cuts=st.sets(st.integers(0, 60), max_size=6))
def test_rows_equal_the_recomputation_however_flushes_fall(
    events: list[dict[str, Any]], partitions: int, cuts: set[int]
) -> None:
    pipeline = Pipeline(partitions)
    for number, event in enumerate(events):
        if number in cuts:
            for partition in range(partitions):
                pipeline.flush(partition)
        pipeline.send(event)
    pipeline.finish()
    assert_same(pipeline, recomputed(events))


@relaxed
@given(events=logs(), cuts=st.sets(st.integers(0, 60), max_size=6))
def test_a_restart_after_any_flush_changes_nothing(
    events: list[dict[str, Any]], cuts: set[int]
) -> None:
    straight, restarted = Pipeline(1), Pipeline(1, reload=True)
    for pipeline in (straight, restarted):
        for number, event in enumerate(events):
            if number in cuts:
                pipeline.flush(0)
            pipeline.send(event)
        pipeline.finish()
    # Thetas included, to the last bit.
    assert straight.rows == restarted.rows
    assert straight.weekly == restarted.weekly


@relaxed
@given(events=logs(), repeats=st.lists(st.integers(0, 59), max_size=20))
def test_a_record_repeated_soon_changes_no_row(
    events: list[dict[str, Any]], repeats: list[int]
) -> None:
    once, twice = Pipeline(1), Pipeline(1)
    for number, event in enumerate(events):
        once.send(event)
        for _ in range(1 + repeats.count(number)):
            twice.send(event)
    once.finish()
    twice.finish()
    assert once.features == twice.features
    assert once.weekly == twice.weekly


@relaxed
@given(events=logs(), order=st.permutations(["u1", "u2", "u3"]))
def test_the_order_of_learners_changes_no_aggregate(
    events: list[dict[str, Any]], order: list[str]
) -> None:
    mixed, sorted_by_learner = Pipeline(1), Pipeline(1)
    for event in events:
        mixed.send(event)
    for user in order:
        for event in events:
            if event["user_id"] == user:
                sorted_by_learner.send(event)
    mixed.finish()
    sorted_by_learner.finish()
    assert mixed.features.keys() == sorted_by_learner.features.keys()
    for key, row in mixed.features.items():
        assert row.attempts == sorted_by_learner.features[key].attempts
    assert totals(mixed.items.values(), "item_id") == totals(
        sorted_by_learner.items.values(), "item_id"
    )
    assert totals(mixed.topics.values(), "topic_id", "learners") == totals(
        sorted_by_learner.topics.values(), "topic_id", "learners"
    )
