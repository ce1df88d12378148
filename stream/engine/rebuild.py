"""Making the engines' state anew: what was folded is forgotten, so that the log is folded again.

The order makes a rebuild harmless wherever it is broken off, and whatever starts meanwhile:

1. Every partition's transactional id is taken. An engine that still held one is fenced, and an
   engine that takes one from now on fences this rebuild.
2. The group's offsets of ``attempts`` are set back, which the broker refuses while the group has
   members. Reading from the beginning does a state no harm: it skips what it has folded.
3. Each partition is forgotten in one transaction: a tombstone a row, and a position before the
   first attempt. A partition is as it was, or empty with its offset set back; never between.
4. Its dead letters from before that transaction are deleted: the log leads to them again.

Batch abilities are not folded again. They carried learners over from the parameters of their time
to newer ones; a rebuild folds every attempt with the newest, and in no order with them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import islice

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.codec import encode
from stream.engine.rows import POSITION_KEY
from stream.engine.state import Position
from stream.engine.survey import bounds, live_rows, refuse_members, unavailable
from stream.errors import FencedError, StreamError
from stream.kafka.clients import client_config, new_consumer
from stream.kafka.packed import PackedMessages, pack
from stream.kafka.transaction import Outgoing, TransactionalPublisher
from stream.settings import Settings
from topics.catalogue import (
    attempts_topic,
    batch_abilities_topic,
    dead_letters_topic,
    engine_state_topic,
)

__all__ = ["forget"]

_TIMEOUT_S = 15.0

_TRANSACTION_S = 600.0
"""Seconds that forgetting a partition may take: 1,500,000 rows take 20. Brokers allow 900 unless
told otherwise. A rebuild that was killed holds nobody up, since the next owner ends its
transaction."""

_AT_ONCE = 50_000
"""Tombstones packed together."""


async def forget(
    settings: Settings,
    *,
    before_first: Callable[[], Awaitable[object]] | None = None,
    after_each: Callable[[int], object] = lambda _number: None,
) -> None:
    """Forget the state of every partition; engines that start then fold the log again.

    Harmless to repeat, and to break off: a partition keeps its state or has lost all of it, and
    another run forgets the rest.

    Parameters
    ----------
    settings
        Where the broker is.
    before_first
        Awaited when no engine can write any more and nothing is forgotten yet.
    after_each
        Called with the number of each partition that was forgotten.

    Raises
    ------
    StreamError
        An engine is running, so that nothing was changed; or one has taken a partition over
        meanwhile, which keeps its state, as do those after it.
    """
    patient = dataclasses.replace(
        settings,
        transaction_timeout_secs=max(_TRANSACTION_S, settings.transaction_timeout_secs),
    )
    async with AsyncExitStack() as stack:
        publishers = []
        for number in range(settings.partitions):
            publisher = TransactionalPublisher(patient, f"engine-{number}")
            stack.push_async_callback(publisher.close)
            publishers.append(publisher)
        await asyncio.gather(*(publisher.init() for publisher in publishers))
        await asyncio.to_thread(_set_back, settings)
        if before_first is not None:
            await before_first()
        for number, publisher in enumerate(publishers):
            letters_end, messages = await asyncio.to_thread(_tombstones, settings, number)
            try:
                await publisher.publish(messages)
            except FencedError as error:
                raise StreamError(
                    f"An engine has started and taken partition {number} over, or the broker gave "
                    f"the transaction up: its state and that of the partitions after it are as "
                    f"they were; {number} of {settings.partitions} are forgotten and are being "
                    "folded again. Stop the engines and run it again."
                ) from error
            await asyncio.to_thread(_delete_letters, settings, number, letters_end)
            after_each(number)


def _set_back(settings: Settings) -> None:
    """Set the engines' offsets of attempts to the beginning.

    The broker refuses that to a group with members.
    """
    group = settings.topic("thetastream-engine")
    topic = settings.topic(attempts_topic.name)
    beginning = [TopicPartition(topic, n, 0) for n in range(settings.partitions)]
    admin = AdminClient(client_config(settings))
    try:
        done = admin.alter_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group, beginning)], request_timeout=_TIMEOUT_S
        )
        refused = [tp for tp in done[group].result().topic_partitions if tp.error is not None]
    except KafkaException as error:
        refuse_members(settings)
        raise unavailable(settings, error) from error
    if refused:
        refuse_members(settings)
        raise StreamError(
            f"The offsets of {group} cannot be set back: {refused[0].error}. Nothing was "
            "forgotten. Stop the engines and run it again."
        )


def _tombstones(settings: Settings, number: int) -> tuple[int, list[Outgoing | PackedMessages]]:
    """Return the end of a partition's dead letters, and what makes its state empty."""
    consumer = new_consumer(settings)
    try:
        letters_end = bounds(settings, consumer, dead_letters_topic, number)[1]
        abilities_end = bounds(settings, consumer, batch_abilities_topic, number)[1]
    except KafkaException as error:
        raise unavailable(settings, error) from error
    finally:
        consumer.close()
    _, keys = live_rows(settings, number)
    keys.discard(POSITION_KEY)
    empty = Position(abilities=abilities_end - 1)
    left = ((key, None) for key in keys)
    parts = iter(lambda: list(islice(left, _AT_ONCE)), [])
    return letters_end, [
        *(pack(engine_state_topic.name, number, part) for part in parts),
        Outgoing(engine_state_topic.name, POSITION_KEY, encode(empty), number),
    ]


def _delete_letters(settings: Settings, number: int, end: int) -> None:
    if end == 0:
        return
    admin = AdminClient(client_config(settings))
    place = TopicPartition(settings.topic(dead_letters_topic.name), number, end)
    try:
        for done in admin.delete_records([place], request_timeout=_TIMEOUT_S).values():
            done.result()
    except KafkaException as error:
        raise StreamError(
            f"The state of partition {number} is forgotten, but its dead letters cannot be "
            f"deleted: {error}. They would be there twice. Mend it and run it again before an "
            "engine is started."
        ) from error
