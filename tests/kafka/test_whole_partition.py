"""A partition read whole in record batches: what every reader of committed records sees."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from stream.errors import BrokerUnavailableError
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.kafka.packed_records import PackedRecords
from stream.kafka.reader import Record, read_whole
from stream.kafka.transaction import Outgoing, TransactionalPublisher
from stream.kafka.whole_partition import read_partition
from stream.local.stack import Stack
from stream.settings import Settings
from tests.faults.servers import silent

pytestmark = pytest.mark.integration

TOPIC = "engine-state"


def whole(settings: Settings, partition: int) -> list[tuple[int, bytes | None, bytes | None]]:
    found: list[tuple[int, bytes | None, bytes | None]] = []

    def take(records: PackedRecords) -> None:
        found.extend((one.offset, one.key, one.value) for one in records)

    read_partition(settings, TOPIC, partition, take)
    return found


async def test_what_is_committed_is_read_and_nothing_else(settings: Settings) -> None:
    create_topics(settings)
    publisher = TransactionalPublisher(settings, "writer")
    await publisher.init()
    for start in (0, 3_000):
        values = [b"v" * (n % 300) if n % 5 else None for n in range(start, start + 3_000)]
        await publisher.publish(
            [Outgoing(TOPIC, b"%d" % (n % 100), value, 0) for n, value in enumerate(values)]
        )
    await publisher.close()
    aborted = new_producer(settings, **{"transactional.id": settings.topic("aborter")})
    aborted.init_transactions(10)
    aborted.begin_transaction()
    for n in range(50):
        aborted.produce(settings.topic(TOPIC), b"aborted", b"%d" % n, 0)
    aborted.flush(10)
    aborted.abort_transaction(10)
    expected: list[Record] = []
    await asyncio.to_thread(read_whole, settings, {TOPIC: expected.extend}, partitions=[0])
    found = await asyncio.to_thread(whole, settings, 0)
    assert found == [(one.offset(), one.key(), one.value()) for one in expected]
    assert len(found) == 6_000
    # Nothing there, not even the beginning of a log.
    assert await asyncio.to_thread(whole, settings, 1) == []


async def test_without_a_broker_it_says_so(settings: Settings, unused_tcp_port: int) -> None:
    away = dataclasses.replace(settings, kafka_broker=f"127.0.0.1:{unused_tcp_port}")
    with pytest.raises(BrokerUnavailableError, match="Nothing was changed"):
        await asyncio.to_thread(
            read_partition, away, TOPIC, 0, lambda _records: None, idle_timeout_s=2.0
        )


async def test_a_broker_that_falls_silent_is_given_up(
    settings: Settings, kafka_stack: Stack
) -> None:
    create_topics(settings)
    with silent(kafka_stack.kafka), pytest.raises(BrokerUnavailableError, match="silence"):
        await asyncio.to_thread(
            read_partition, settings, TOPIC, 0, lambda _records: None, idle_timeout_s=3.0
        )
    assert await asyncio.to_thread(whole, settings, 0) == []
