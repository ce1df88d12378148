"""Publications are whole, in order and fenced, whichever way their records are handed over."""

from __future__ import annotations

import asyncio
import ctypes
import os

import numpy as np
import pytest
from aiokafka.partitioner import murmur2
from confluent_kafka import KafkaError, Producer, cimpl

from stream.errors import FencedError, PublishError
from stream.kafka.admin import create_topics
from stream.kafka.packed import PackedMessages, client_of, pack, produce_packed
from stream.kafka.reader import Record, read_whole
from stream.kafka.transaction import Outgoing, TransactionalPublisher
from stream.settings import Settings

pytestmark = pytest.mark.integration

TOPIC = "item-partials"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings whose topics are there."""
    create_topics(settings)
    return settings


def single(topic: str, partition: int, records: list[tuple[bytes, bytes | None]]) -> list[Outgoing]:
    return [Outgoing(topic, key, value, partition) for key, value in records]


def in_one_piece(
    topic: str, partition: int, records: list[tuple[bytes, bytes | None]]
) -> list[PackedMessages]:
    return [pack(topic, partition, records)]


ways = pytest.mark.parametrize("handed_over", [single, in_one_piece])


def whole(settings: Settings, topic: str = TOPIC) -> list[Record]:
    found: list[Record] = []
    read_whole(settings, {topic: found.extend})
    return found


async def values(settings: Settings) -> list[bytes]:
    return sorted(r.value() or b"" for r in await asyncio.to_thread(whole, settings))


async def test_a_publication_is_whole_and_placed_by_key_as_by_every_client(
    settings: Settings,
) -> None:
    publisher = TransactionalPublisher(settings, "p")
    await publisher.init()
    await publisher.publish([])
    await publisher.publish(
        [
            Outgoing("theta-updates", b"anna", b"by key"),
            Outgoing("theta-updates", b"anna", None, 0, [("why", b"test")]),
        ]
    )
    await publisher.close()
    records = await asyncio.to_thread(whole, settings, "theta-updates")
    by_value = {r.value(): r for r in records}
    # murmur2("anna") as in Kafka's Java client, modulo the 4 partitions of the test.
    assert by_value[b"by key"].partition() == (murmur2(b"anna") & 0x7FFFFFFF) % settings.partitions
    assert by_value[None].headers() == [("why", b"test")]
    assert by_value[None].partition() == 0


async def test_packed_records_arrive_byte_by_byte_in_their_order(settings: Settings) -> None:
    rng = np.random.default_rng(3)
    records: list[tuple[bytes, bytes | None]] = [
        (rng.bytes(int(rng.integers(1, 40))), rng.bytes(int(rng.integers(0, 2000))))
        for _ in range(5000)
    ]
    records[17] = (b"erased", None)
    publisher = TransactionalPublisher(settings, "p")
    await publisher.init()
    await publisher.publish([pack(TOPIC, 2, records)])
    await publisher.close()
    found = await asyncio.to_thread(whole, settings)
    assert [(r.key(), r.value()) for r in found] == records
    assert {r.partition() for r in found} == {2}


async def test_a_full_queue_tells_which_records_were_not_taken(settings: Settings) -> None:
    producer = Producer(
        {"bootstrap.servers": settings.kafka_broker, "queue.buffering.max.messages": 1000}
    )
    records: list[tuple[bytes, bytes | None]] = [(b"%d" % n, b"v") for n in range(1500)]
    message = pack(TOPIC, 0, records)
    topic = settings.topic(TOPIC)
    errors = produce_packed(producer, topic, 0, message.data, message.places[:, 1:])
    assert set(errors.tolist()) == {0, KafkaError._QUEUE_FULL}
    assert await asyncio.to_thread(producer.flush, 30) == 0
    rest = message.places[errors != 0, 1:]
    assert not produce_packed(producer, topic, 0, message.data, rest).any()
    assert await asyncio.to_thread(producer.flush, 30) == 0
    found = await asyncio.to_thread(whole, settings)
    assert sorted(r.key() or b"" for r in found) == sorted(key for key, _ in records)


async def test_the_publisher_waits_while_the_clients_queue_is_full(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(configuration: dict[str, object]) -> Producer:
        return Producer({**configuration, "queue.buffering.max.messages": 1000})

    monkeypatch.setattr("stream.kafka.clients.Producer", small)
    publisher = TransactionalPublisher(settings, "p")
    await publisher.init()
    records: list[tuple[bytes, bytes | None]] = [(b"%d" % n, b"v") for n in range(3500)]
    await publisher.publish([pack(TOPIC, 1, records)])
    await publisher.close()
    assert [r.key() for r in await asyncio.to_thread(whole, settings)] == [k for k, _ in records]


@ways
async def test_the_owner_before_is_fenced_and_publishes_nothing(
    settings: Settings, handed_over
) -> None:
    old = TransactionalPublisher(settings, "p")
    await old.init()
    await old.publish(handed_over(TOPIC, 0, [(b"k", b"old")]))
    new = TransactionalPublisher(settings, "p")
    await new.init()
    with pytest.raises(FencedError):
        await old.publish(handed_over(TOPIC, 0, [(b"k", b"stale")]))
    with pytest.raises(FencedError):
        await old.publish(handed_over(TOPIC, 0, [(b"k", b"stale again")]))
    await new.publish(handed_over(TOPIC, 0, [(b"k", b"new")]))
    await old.close()
    await new.close()
    assert await values(settings) == [b"new", b"old"]


@ways
@pytest.mark.parametrize("size", [3 * 1024 * 1024, 20 * 1024 * 1024], ids=["broker", "client"])
async def test_a_record_too_large_is_refused_whole_and_the_next_publication_works(
    settings: Settings, handed_over, size: int
) -> None:
    publisher = TransactionalPublisher(settings, "p")
    await publisher.init()
    with pytest.raises(PublishError, match=r"(?i)too large[\s\S]*Nothing of the"):
        await publisher.publish(
            handed_over(TOPIC, 0, [(b"k", b"beside it"), (b"k", os.urandom(size))])
        )
    await publisher.publish(handed_over(TOPIC, 0, [(b"k", b"next")]))
    await publisher.close()
    assert await values(settings) == [b"next"]


def test_a_producers_client_lies_where_we_read_it() -> None:
    # confluent-kafka gives librdkafka its own object as the client's "opaque" pointer.
    library = ctypes.CDLL(cimpl.__file__)
    library.rd_kafka_opaque.restype = ctypes.c_void_p
    library.rd_kafka_opaque.argtypes = [ctypes.c_void_p]
    producer = Producer({"bootstrap.servers": "127.0.0.1:9"})
    assert library.rd_kafka_opaque(client_of(producer)) == id(producer)
