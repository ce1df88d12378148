"""What the process that answers lookups knows of its engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stream.lookup.abilities import hash_of
from stream.lookup.announcements import Announced, Announcements
from tests.engine.events import event, folded


class Pair:
    """Both ends."""

    def __init__(self, session_s: float = 60.0) -> None:
        self.engine = Announcements()
        self.ended = 0
        self.known = Announced(self.engine.connect(), session_s, self._end)

    def _end(self) -> None:
        self.ended += 1


@pytest.fixture
def pair() -> Iterator[Pair]:
    one = Pair()
    yield one
    one.engine.close()
    one.known.close()


def test_a_partition_is_read_from_when_it_is_held_until_it_is_let_go(pair: Pair) -> None:
    state = folded([event("a", "u1")])
    pair.engine.hold(3, state.store.segment.fd)
    pair.known.take()
    found = pair.known.partitions[3].read(b"u1", hash_of(b"u1"))
    assert found is not None
    assert found.n == 1
    pair.engine.let_go(3)
    pair.known.take()
    assert not pair.known.partitions


def test_memory_outlives_the_engines_own_hold_on_it(pair: Pair) -> None:
    state = folded([event("a", "u1")])
    pair.engine.hold(0, state.store.segment.fd)
    pair.known.take()
    del state
    assert pair.known.partitions[0].read(b"u1", hash_of(b"u1")) is not None


def test_an_engine_is_ready_when_it_says_so_and_not_once_it_is_silent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not pair.known.ready
    pair.engine.ready(True)
    pair.known.take()
    assert pair.known.ready
    monkeypatch.setattr(pair.known, "_session_s", 0.0)
    assert pair.known.silent
    assert not pair.known.ready


def test_the_end_of_the_engine_is_the_end_of_what_is_known(pair: Pair) -> None:
    state = folded([event("a")])
    pair.engine.hold(0, state.store.segment.fd)
    pair.engine.close()
    pair.known.take()
    assert not pair.known.partitions
    assert pair.ended == 1


def test_beats_that_nobody_reads_are_left_out_but_where_a_partition_would_be_all_ends(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    state = folded([event("a")])
    for _ in range(100_000):
        pair.engine.ready(True)
    pair.engine.ready(True)
    pair.engine.hold(0, state.store.segment.fd)
    assert "takes no messages" in caplog.text
    pair.known.take()
    assert pair.ended == 1
    assert not pair.known.ready


def test_a_partition_whose_file_does_not_arrive_ends_all(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.engine._send_now({"hold": 4})
    pair.known.take()
    pair.known.take()
    assert pair.ended == 1
    assert "partition 4 cannot be read" in caplog.text


def test_an_engine_that_is_looked_up_by_nobody_tells_nobody() -> None:
    engine = Announcements()
    engine.hold(0, 0)
    engine.let_go(0)
    engine.ready(True)
