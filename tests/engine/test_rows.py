"""Rows of ``engine-state`` put in place: unreadable ones, and what has replaced them."""

from __future__ import annotations

import pytest

from stream.engine.day import NO_TOPIC
from stream.engine.kernel.layout import ROW_HALVES
from stream.engine.state import PartitionState
from stream.errors import StateVersionError
from tests.engine.events import Rows, event, flushed, loaded, new_state, records, unpacked


def written() -> Rows:
    """The rows of a learner with two days and two topics."""
    state = new_state()
    state.fold(
        records([event("a"), event("b", day=1, topic_id="t2"), event("c", day=1, item_id="i2")])
    )
    messages = unpacked(flushed(state, 0).messages)
    return [(m.key or b"", m.value) for m in messages if m.topic == "engine-state"]


def broken(rows: Rows, kind: bytes) -> Rows:
    """Every way in which a row of a kind can be cut short, and one of another version."""
    key, value = next(row for row in rows if row[0][:1] == kind)
    assert value is not None
    cut = [value[:size] for size in range(1, len(value))]
    return [(key, one) for one in (*cut, value + b"x", *([b"\xff" + value[1:]] * (kind == b"L")))]


@pytest.mark.parametrize("kind", [b"L", b"D"])
def test_an_unreadable_row_is_refused_and_says_what_to_do(kind: bytes) -> None:
    rows = written()
    for row in broken(rows, kind):
        with pytest.raises(StateVersionError, match=r"1 rows of partition 0.*thetastream rebuild"):
            loaded([*rows, row])


@pytest.mark.parametrize("kind", [b"L", b"D"])
def test_an_unreadable_row_that_was_replaced_later_does_not_matter(kind: bytes) -> None:
    rows = written()
    state = loaded([*broken(rows, kind), *rows])
    learner = state.learner("u1")
    assert learner is not None
    whole = loaded(rows).learner("u1")
    assert whole is not None
    assert learner.rows() == whole.rows()


@pytest.mark.parametrize("kind", [b"L", b"D"])
def test_an_unreadable_row_that_was_taken_back_does_not_matter(kind: bytes) -> None:
    rows = written()
    gone: Rows = [(key, None) for key, _ in rows]
    state = loaded([*broken(rows, kind), *gone])
    assert (len(state), state.position.attempts) == (0, -1)


def _topics(n: int) -> list[dict[str, object]]:
    """One attempt in each of so many topics, and one without a topic."""
    return [
        event("none", topic_id=None),
        *(event(f"a{k}", day=k % 3, topic_id=f"topic-{k:02}") for k in range(n)),
    ]


def _halves(state: PartitionState) -> int:
    s = state.store.arrays
    return int(s.i4[2 * int(s.at[state.store.find_user("u1")]) + ROW_HALVES])


@pytest.mark.parametrize("n_topics", [30, 31, 32, 40])
@pytest.mark.parametrize("days_first", [True, False], ids=["days first", "head first"])
def test_rows_tell_their_topics_however_many_there_are(n_topics: int, days_first: bool) -> None:
    state = new_state()
    state.fold(records(_topics(n_topics)))
    rows = [
        (m.key or b"", m.value)
        for m in unpacked(flushed(state, 0).messages)
        if m.topic == "engine-state"
    ]
    rows.sort(key=lambda row: row[0], reverse=not days_first)
    again = loaded(rows)
    assert _halves(again) == (3 if n_topics <= 31 else 4)
    learner, other = state.learner("u1"), again.learner("u1")
    assert learner is not None
    assert other is not None
    assert other.rows() == learner.rows()
    told = {
        row[3]: learner.topics[row[3]].topic_id
        for day in other.days.values()
        for row in day.rows()
        if row[3] != NO_TOPIC
    }
    assert told == {k: f"topic-{k:02}" for k in range(n_topics)}
    # One topic more, on top of what was loaded.
    more = records([*_topics(n_topics), event("one more", day=3, topic_id="another")])[-1:]
    for one in (again, state):
        one.fold(more)
    learner, other = state.learner("u1"), again.learner("u1")
    assert learner is not None
    assert other is not None
    assert len(other.topics) == n_topics + 1
    assert other.rows() == learner.rows()
    assert _halves(again) == _halves(state) == (3 if n_topics < 31 else 4)
