"""What a partition writes when it is let go at an awkward moment."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from stream.app import _ENDING_S
from stream.engine.engine import _RELEASE_TIMEOUT_S, Engine
from stream.engine.flush import Indicators
from stream.engine.params import ParamsStore
from stream.engine.partition import Partition
from stream.errors import PublishError
from stream.kafka.transaction import Outgoing
from stream.lookup.announcements import Announcements
from stream.settings import Settings
from tests.engine.events import event, new_state, records, unpacked


class Publisher:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.published: list[list[Outgoing]] = []

    async def publish(self, messages: list[Outgoing]) -> None:
        self.published.append(messages)

    async def close(self) -> None:
        pass


def engine_with(partition: Partition) -> Engine:
    """An engine without Kafka, holding one partition."""
    engine = Engine.__new__(Engine)
    engine.holdings = Announcements()
    engine.settings = Settings(flush_interval_secs=0.01)
    engine.indicators = Indicators()
    engine.partitions = {0: partition}
    engine._stream_week = 0
    engine._turn = asyncio.Lock()
    engine.params = ParamsStore()
    engine.app = SimpleNamespace(crashed=False, failure=None)  # type: ignore[assignment]
    return engine


def filled(learners: int) -> tuple[Engine, Partition, Publisher]:
    state = new_state()
    state.fold(records([event(f"a{n}", f"u{n}") for n in range(learners)]))
    publisher = Publisher()
    partition = Partition(state, publisher)  # type: ignore[arg-type]
    return engine_with(partition), partition, publisher


def day_rows(publisher: Publisher) -> int:
    return sum(
        m.topic == "engine-state" and (m.key or b"")[:1] == b"D"
        for messages in publisher.published
        for m in unpacked(messages)
    )


async def test_a_partition_let_go_while_a_flush_is_encoded_writes_every_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, partition, publisher = filled(30)
    # A call of the compiled code writes one learner.
    monkeypatch.setattr("stream.engine.flush._SLICE_MESSAGES", 9)

    partition.task = asyncio.create_task(engine._flush_regularly(partition))
    partition.wake.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert partition.torn
    await engine._release(0)
    assert day_rows(publisher) == 30
    assert partition.task.done()


async def test_a_state_torn_by_an_error_is_not_written() -> None:
    engine, partition, publisher = filled(3)
    partition.torn = True
    await engine._release(0)
    assert publisher.published == []


async def test_after_a_crash_nothing_more_is_written() -> None:
    engine, _, publisher = filled(3)
    engine.app.crashed = True
    engine._reader = SimpleNamespace(stop=lambda: asyncio.sleep(0))  # type: ignore[assignment]
    await engine.on_stop()
    assert publisher.published == []
    assert engine.partitions == {}


async def test_folding_that_breaks_off_leaves_the_state_torn() -> None:
    engine, partition, publisher = filled(3)

    def broken(_record: Any) -> None:
        raise RuntimeError("half-way")

    partition.state.fold = broken  # type: ignore[method-assign]
    batch = SimpleNamespace(value=[object()], message=SimpleNamespace(offset=9))
    with pytest.raises(RuntimeError, match="half-way"):
        await engine._fold_batch(partition, batch, "attempts")  # type: ignore[arg-type]
    await engine._flush(partition)
    assert publisher.published == []


async def test_batches_delivered_again_are_acknowledged_without_a_flush() -> None:
    engine, partition, publisher = filled(3)
    await engine._flush(partition)
    acknowledged: list[int] = []
    for offset in (1, 2, 5):
        batch = SimpleNamespace(
            value=[],
            message=SimpleNamespace(offset=offset),
            ack=lambda offset=offset: acknowledged.append(offset),
        )
        partition.unacknowledged["attempts"].append(batch)  # type: ignore[arg-type]
    await engine._flush(partition)
    assert acknowledged == [1, 2]
    assert len(publisher.published) == 1


class SilentPublisher(Publisher):
    """As where the broker does not answer: a publication hangs until this is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()

    async def publish(self, messages: list[Outgoing]) -> None:
        await self.closed.wait()
        raise PublishError("closed while it published")

    async def close(self) -> None:
        self.closed.set()


async def test_a_last_flush_that_hangs_is_given_up_in_time_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The process itself waits no longer than that for all of its parts to stop.
    assert _RELEASE_TIMEOUT_S < _ENDING_S
    monkeypatch.setattr("stream.engine.engine._RELEASE_TIMEOUT_S", 0.05)
    engine, partition, _ = filled(3)
    partition.publisher = publisher = SilentPublisher()  # type: ignore[assignment]
    async with asyncio.timeout(5):
        await engine._release(0)
    assert publisher.closed.is_set()
    assert engine.partitions == {}
    assert "partition 0 is given up with unflushed changes" in caplog.text
