"""Publisher and reader over a broker that dies and comes back."""

from __future__ import annotations

import asyncio

import pytest

from stream.kafka.admin import create_topics
from stream.kafka.packed import pack
from stream.kafka.reader import Record, TailReader
from stream.kafka.transaction import Outgoing, TransactionalPublisher
from stream.local.stack import Stack, running_stack
from stream.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TOPIC = "item-partials"


async def test_every_publication_arrives_once_and_whole_over_a_killed_broker() -> None:
    with running_stack(parts=("kafka",)) as stack:
        settings = Settings(kafka_broker=stack.addresses.kafka_broker, partitions=2)
        await asyncio.to_thread(create_topics, settings)
        seen: list[Record] = []
        reader = TailReader(settings, {TOPIC: seen.extend})
        reader.start()
        publisher = TransactionalPublisher(settings, "p")
        await publisher.init()
        killing = asyncio.create_task(_kill_and_start(stack))
        sent: list[list[bytes]] = []
        while not killing.done() or len(sent) < 50:
            keys = [f"{len(sent)}-{n}".encode() for n in range(100)]
            single = [Outgoing(TOPIC, key, b"v") for key in keys[:50]]
            await publisher.publish([*single, pack(TOPIC, 1, [(key, b"v") for key in keys[50:]])])
            sent.append(keys)
            await asyncio.sleep(0.05)
        await killing
        async with asyncio.timeout(60):
            await reader.caught_up()
        await publisher.close()
        await reader.stop()
    assert sorted(r.key() or b"" for r in seen) == sorted(key for keys in sent for key in keys)


async def _kill_and_start(stack: Stack) -> None:
    await asyncio.sleep(1.0)
    await asyncio.to_thread(stack.kafka.kill)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(stack.kafka.start)
