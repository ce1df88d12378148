"""Rows of ``engine-state`` put in place: unreadable ones, and what has replaced them."""

from __future__ import annotations

import pytest

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
