"""What the batch transport assumes of Faust and aiokafka; each test fails when that changes."""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import aiokafka
import faust
import pytest
import uvloop
from aiokafka.client import AIOKafkaClient
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.app import new_app
from stream.kafka import transport
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.kafka.transaction import Outgoing, TransactionalPublisher
from stream.kafka.transport import (
    BatchConsumer,
    BatchSchema,
    BatchTransport,
    RecordBatch,
    shun_closed_connections,
)
from stream.settings import Settings
from topics.catalogue import attempts_topic

TP0 = TP("attempts", 0)


def record(offset: int) -> Any:
    return SimpleNamespace(
        topic="attempts", partition=0, offset=offset, timestamp=5, timestamp_type=0
    )


def bare_consumer() -> BatchConsumer:
    """A consumer with the bookkeeping alone, as Faust's own __init__ lays it out."""
    consumer = BatchConsumer.__new__(BatchConsumer)
    consumer._acked = defaultdict(list)
    consumer._acked_index = defaultdict(set)
    consumer._gap = {}
    consumer._committed_offset = defaultdict(lambda: None)
    return consumer


def test_the_app_uses_the_batch_transport() -> None:
    app = new_app("engine", Settings())
    assert isinstance(app.transport, BatchTransport)
    assert app.transport.Consumer is BatchConsumer


def test_a_batch_stands_at_its_last_record() -> None:
    batch = RecordBatch(TP0, [record(3), record(4), record(9)])
    assert (batch.topic, batch.partition, batch.offset, len(batch.value)) == ("attempts", 0, 9, 3)


def test_a_batch_has_every_attribute_that_faust_reads_of_a_record() -> None:
    source = inspect.getsource(driver.Consumer._to_message)
    names = {
        part.split(",")[0].split(")")[0].strip()
        for part in source.replace("\n", " ").split("record.")[1:]
    }
    assert {"offset", "value", "timestamp"} <= {name.split()[0] for name in names}
    batch = RecordBatch(TP0, [record(3)])
    for name in names:
        assert hasattr(batch, name.split()[0]), name


def test_polled_records_become_one_message_a_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    async def polled(_self: Any, _active: Any, _timeout: float) -> dict[TP, list[Any]]:
        return {TP0: [record(1), record(2)], TP("attempts", 1): []}

    monkeypatch.setattr(faust_consumer.ThreadDelegateConsumer, "_getmany", polled)
    result = asyncio.run(bare_consumer()._getmany(None, 1.0))
    assert list(result) == [TP0]
    assert [batch.offset for batch in result[TP0]] == [2]


@pytest.mark.parametrize(
    ("brought", "pauses"),
    [(0, True), (transport._FEW_RECORDS - 1, True), (transport._FEW_RECORDS, False)],
)
async def test_a_poll_that_brought_little_is_followed_by_a_pause(
    brought: int, pauses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def polled(*_: Any) -> Any:
        return {TP("t", 0): [record(offset) for offset in range(brought)]}

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(faust_consumer.ThreadDelegateConsumer, "_getmany", polled)
    monkeypatch.setattr(transport.asyncio, "sleep", sleep)
    monkeypatch.setattr(transport, "monotonic", lambda: 100.0)
    consumer = bare_consumer()
    await consumer._getmany(None, 1.0)
    await consumer._getmany(None, 1.0)
    assert slept[0] <= 0
    assert (slept[1] == pytest.approx(transport.POLL_PAUSE_S)) is pauses


def test_the_largest_acknowledged_offset_is_committed() -> None:
    consumer = bare_consumer()
    assert consumer._new_offset(TP0) is None
    consumer._acked[TP0] = [4, 19, 30]
    consumer._acked_index[TP0] = {4, 19, 30}
    assert consumer._new_offset(TP0) == 31
    assert consumer._new_offset(TP0) is None
    assert consumer._acked_index[TP0] == set()


async def test_an_agent_that_fails_ends_the_app_and_nothing_is_committed_any_more() -> None:
    crashed: list[BaseException] = []

    class App:
        async def crash(self, reason: BaseException) -> None:
            crashed.append(reason)

    consumer = bare_consumer()
    consumer.app = App()
    error = ZeroDivisionError()
    await consumer.on_task_error(error)
    # What the agent, started again by Faust, acknowledges of the next batch.
    consumer._acked[TP0] = [30]
    assert consumer._new_offset(TP0) is None
    assert crashed == [error]


def test_faust_tells_its_consumer_of_an_agent_that_failed() -> None:
    assert "self._consumer.on_task_error(" in inspect.getsource(faust.App._on_agent_error)
    assert "self._on_error(self, exc)" in inspect.getsource(faust.Agent._execute_actor)


def test_offsets_between_batches_are_no_gaps() -> None:
    consumer = bare_consumer()
    asyncio.run(consumer._add_gap(TP0, 5, 900))
    assert not consumer._gap


def test_a_partition_without_a_committed_offset_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh, known = TP("attempts", 1), TP("attempts", 2)
    went_back: list[TP] = []

    class Thread:
        async def seek_to_beginning(self, *partitions: aiokafka.TopicPartition) -> None:
            # The client takes no other type.
            assert all(isinstance(one, aiokafka.TopicPartition) for one in partitions)
            went_back.extend(TP(*one) for one in partitions)

        async def seek_to_committed(self) -> dict[TP, int | None]:
            return {TP0: 0, fresh: None, known: 40}

        def assignment(self) -> set[TP]:
            return {TP0, fresh, known}

    consumer = bare_consumer()
    consumer._read_offset = defaultdict(lambda: None)
    consumer._thread = Thread()  # type: ignore[assignment]
    consumer._read_offset[fresh] = 17  # fetched, then dropped by a rebalance
    asyncio.run(consumer.perform_seek())
    assert sorted(went_back) == [TP0, fresh]
    assert consumer._read_offset == {TP0: None, fresh: None, known: 40}


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (faust_consumer.Consumer, "perform_seek"),
        (faust_consumer.Consumer, "on_task_error"),
        (faust_consumer.Consumer, "_new_offset"),
        (faust_consumer.Consumer, "_add_gap"),
        (faust_consumer.ThreadDelegateConsumer, "_getmany"),
        (driver.Consumer, "_new_consumer_thread"),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer"),
        (faust_consumer.ConsumerThread, "on_partitions_assigned"),
    ],
)
def test_what_is_overridden_exists_in_faust(owner: type, name: str) -> None:
    assert name in vars(owner)


def test_the_client_reads_its_isolation_level_when_it_starts() -> None:
    assert "self._isolation_level" in inspect.getsource(aiokafka.AIOKafkaConsumer.start)


def test_the_schema_hands_records_through_untouched() -> None:
    app = faust.App("pinned", broker="kafka://127.0.0.1:1")
    topic = app.topic("attempts", schema=BatchSchema())
    records = [record(1), record(2)]
    message = SimpleNamespace(key=None, value=records, headers=(), topic="attempts")
    event = asyncio.run(topic.decode(message, propagate=True))
    assert event.value is records


@pytest.mark.integration
async def test_an_app_sees_whole_polls_and_no_aborted_record(settings: Settings) -> None:
    create_topics(settings)
    publisher = TransactionalPublisher(settings, "writer")
    await publisher.init()
    await publisher.publish([Outgoing("attempts", b"k", b"%d" % n, 0) for n in range(300)])
    await publisher.close()
    aborted = new_producer(settings, **{"transactional.id": settings.topic("aborter")})
    aborted.init_transactions(10)
    aborted.begin_transaction()
    aborted.produce(settings.topic("attempts"), b"aborted", b"k", 0)
    aborted.flush(10)
    aborted.abort_transaction(10)
    last = TransactionalPublisher(settings, "writer2")
    await last.init()
    await last.publish([Outgoing("attempts", b"k", b"last", 0)])
    await last.close()

    app = new_app("sink", settings)
    batches: list[list[bytes]] = []
    finished = asyncio.Event()

    @app.agent(app.batches(attempts_topic))
    async def collect(stream: Any) -> None:
        async for event in stream.noack().events():
            batches.append([one.value for one in event.value])
            event.ack()
            if batches[-1][-1] == b"last":
                finished.set()

    async with app:
        await asyncio.wait_for(finished.wait(), 40)
        await app.consumer.commit()
        committed = await app.consumer.seek_to_committed()
    values = [value for batch in batches for value in batch]
    assert values == [*(b"%d" % n for n in range(300)), b"last"]
    assert len(batches) < 20
    # 300 records, a commit marker, the aborted one, its marker, the last one.
    assert committed[TP(settings.topic("attempts"), 0)] == 304


def after_its_transport_was_closed(settings: Settings, *, mended: bool) -> bool:
    """Ask for metadata at once after the transport was closed, then again; return the answer."""

    async def ask() -> bool:
        client = AIOKafkaClient(bootstrap_servers=settings.kafka_broker)
        await client.bootstrap()
        try:
            if mended:
                shun_closed_connections(client)
            node = client.get_random_node()
            assert await client.ready(node)
            for connection in client._conns.values():
                # The broker ends within an answer, and somebody asks before the reader has seen it.
                connection._reader.feed_data(b"\0")
                connection._writer.transport.abort()
            await asyncio.sleep(0)
            assert not await client._metadata_update(client.cluster, None)
            return await client._metadata_update(client.cluster, None)
        finally:
            await client.close()

    return uvloop.run(ask())


def test_a_connection_that_was_just_closed_is_not_written_to(settings: Settings) -> None:
    assert after_its_transport_was_closed(settings, mended=True)


def test_the_client_by_itself_would_write_to_it_and_lose_its_metadata_task(
    settings: Settings,
) -> None:
    # Should this fail, the client or the loop has learned it, and the mend can go.
    with pytest.raises(RuntimeError, match="the handler is closed"):
        after_its_transport_was_closed(settings, mended=False)
