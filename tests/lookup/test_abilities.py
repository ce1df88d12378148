"""Reading learners from an engine's memory, also while it folds."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt

import pytest

from schemas.calibration import BatchAbility
from schemas.codec import encode
from stream.domain import ability
from stream.engine.kernel.changing import begin_change, end_change
from stream.engine.kernel.layout import EVERYBODY
from stream.engine.learner import Learner
from stream.engine.params import ItemInForce
from stream.engine.state import PartitionState
from stream.kafka.packed_records import PackedRecord
from stream.lookup.abilities import Abilities, AbilityReader, BeingChangedError, hash_of
from tests.engine.events import MONDAY, event, folded, new_state, records


def reader_of(state: PartitionState) -> AbilityReader:
    return AbilityReader(os.dup(state.store.segment.fd))


def read(reader: AbilityReader, user_id: str) -> Abilities | None:
    key = user_id.encode("utf-8", "surrogatepass")
    return reader.read(key, hash_of(key))


def told_of(learner: Learner) -> tuple[object, ...]:
    topics = []
    for topic in learner.topics:
        theta, variance = ability.topic_ability(learner.g, learner.vg, topic.d0, topic.s, topic.r)
        topics.append((topic.topic_id, theta, sqrt(variance), topic.attempts, topic.latest_ms))
    return (
        *(learner.g, sqrt(learner.vg), learner.attempts, learner.correct, learner.latest_ms),
        topics,
    )


def assert_the_same(reader: AbilityReader, state: PartitionState, user_ids: list[str]) -> None:
    for user_id in user_ids:
        learner = state.learner(user_id)
        found = read(reader, user_id)
        assert learner is not None
        assert found is not None
        topics = [(t.topic_id, t.theta, t.se, t.n, t.last_attempt_at) for t in found.topics]
        told = found.theta, found.se, found.n, found.correct, found.latest_ms, topics
        assert told == told_of(learner)


def some_events(count: int, learners: int, seed: int = 1) -> list[dict[str, object]]:
    draw = random.Random(seed)
    return [
        event(
            f"a{seed}-{n}",
            f"lerner-ä{draw.randrange(learners)}",
            item_id=f"i{draw.randrange(50)}",
            topic_id=draw.choice([None, *(f"t{k}" for k in range(40))]),
            correct=draw.random() < 0.6,
            day=n * 20 // count,
        )
        for n in range(count)
    ]


def test_every_learner_is_read_as_the_engine_knows_it_through_growth_and_compaction() -> None:
    state = new_state()
    reader = reader_of(state)
    assert read(reader, "lerner-ä1") is None
    events = some_events(30_000, 3_000)
    batch = records(events)
    known: dict[str, None] = {}
    for start in range(0, len(batch), 5_000):
        state.fold(batch[start : start + 5_000])
        known.update(dict.fromkeys(str(e["user_id"]) for e in events[start : start + 5_000]))
        assert_the_same(reader, state, list(known))
    for _ in range(3):
        state.store.compact_heap()
        assert_the_same(reader, state, list(known))
    assert max(len(read(reader, u).topics) for u in known) > 5  # type: ignore[union-attr]
    assert read(reader, "nobody") is None


def test_a_learner_with_many_topics_is_read_whole() -> None:
    state = folded(event(f"a{n}", topic_id=f"a topic with a long name {n}") for n in range(100))
    assert_the_same(reader_of(state), state, ["u1"])


def test_voids_calibrations_and_parameters_are_seen() -> None:
    state = folded([event("a"), event("b", correct=False), event("c", topic_id="t2")])
    reader = reader_of(state)
    (void,) = records([event("v", op="void", supersedes="b")])
    void.offset = 3
    state.fold([void])
    found = read(reader, "u1")
    assert found is not None
    assert (found.n, found.correct) == (2, 2)
    assert_the_same(reader, state, ["u1"])
    batch = encode(BatchAbility("u1", 2.5, 0.3, "run", "v9", (MONDAY + 1) * 86_400_000))
    state.fold_abilities([PackedRecord(0, 0, b"u1", batch)])
    assert_the_same(reader, state, ["u1"])
    state.store.set_params("irt-9-größer", {}, ItemInForce(1.0, 0.0, 0.0, 1.0))
    assert read(reader, "u1").params_version == "irt-9-größer"  # type: ignore[union-attr]


@contextmanager
def being_changed(state: PartitionState, who: int) -> Iterator[None]:
    begin_change(state.store.segment.control, who)
    yield
    end_change(state.store.segment.control)


def test_only_the_learner_that_is_being_changed_cannot_be_read() -> None:
    state = folded([event("a", "u1"), event("b", "u2")])
    reader = reader_of(state)
    with being_changed(state, state.store.find_user("u1")):
        with pytest.raises(BeingChangedError):
            read(reader, "u1")
        assert_the_same(reader, state, ["u2"])
    assert_the_same(reader, state, ["u1", "u2"])
    with being_changed(state, EVERYBODY):
        for user_id in ("u1", "u2", "nobody"):
            with pytest.raises(BeingChangedError):
                read(reader, user_id)
    assert_the_same(reader, state, ["u1"])


def test_a_correction_keeps_its_learner_from_readers_though_the_heap_grows_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = folded([event("a", "u1"), event("b", "u1")])
    reader = reader_of(state)
    seen: list[bool] = []
    put_rows = state.store.put_rows

    def grows_and_puts(rows: object) -> object:
        state.store.grow_heap()
        with pytest.raises(BeingChangedError):
            read(reader, "u1")
        seen.append(True)
        return put_rows(rows)  # type: ignore[arg-type]

    monkeypatch.setattr(state.store, "put_rows", grows_and_puts)
    (void,) = records([event("v", op="void", supersedes="b")])
    void.offset = 2
    state.fold([void])
    assert seen == [True]
    assert_the_same(reader, state, ["u1"])


def test_what_is_read_while_another_thread_folds_is_always_whole() -> None:
    # All learners are told the same story, so that n tells what everything else has to be.
    story = [
        {"item_id": f"i{n % 7}", "topic_id": f"t{n % 3}", "correct": n % 5 < 3, "day": n // 4}
        for n in range(60)
    ]
    told = new_state()
    reader = reader_of(told)
    expected = {}
    for n, chapter in enumerate(story):
        (record,) = records([event(f"x{n}", "u0", **chapter)])
        record.offset = n
        told.fold([record])
        found = read(reader, "u0")
        assert found is not None
        expected[found.n] = found
    state = new_state()
    reader = reader_of(state)
    learners = 400
    batch = records(
        event(f"{n}-{who}", f"u{who}", **chapter)
        for n, chapter in enumerate(story)
        for who in range(learners)
    )
    done = threading.Event()

    def fold() -> None:
        # Compiled code folds without the interpreter's lock: the reader really runs beside it.
        for start in range(0, len(batch), 2_000):
            state.fold(batch[start : start + 2_000])
            if start % 6_000 == 0:
                state.store.compact_heap()
        done.set()

    thread = threading.Thread(target=fold)
    thread.start()
    draw = random.Random(3)
    reads, refused, seen = 0, 0, set()
    while not done.is_set():
        try:
            found = read(reader, f"u{draw.randrange(learners)}")
        except BeingChangedError:
            refused += 1
            continue
        if found is not None:
            reads += 1
            seen.add(found.n)
            assert found == expected[found.n]
    thread.join()
    assert reads > 1_000
    assert len(seen) > 20
    assert read(reader, "u0") == expected[len(story)]
