"""Reading one partition whole, in record batches: a state of millions of rows in seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

import aiokafka
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaConnectionError, KafkaError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from stream.errors import BrokerUnavailableError
from stream.kafka.clients import faust_credentials
from stream.kafka.packed_reading import read_packed
from stream.kafka.packed_records import PackedRecords
from stream.settings import Settings

__all__ = ["read_partition"]

logger = logging.getLogger(__name__)

_FETCH_BYTES = 4 * 1024 * 1024
_POLL_MS = 200
_RETRY_S = 0.5


def read_partition(
    settings: Settings,
    topic: str,
    partition: int,
    take: Callable[[PackedRecords], object],
    *,
    idle_timeout_s: float = 60.0,
) -> None:
    """Read a partition from its beginning to the end it has now; blocks, so call it in a thread.

    Only committed records are seen.

    Parameters
    ----------
    settings
        Where the broker is.
    topic
        Catalogue name; the topic exists.
    partition
        Its number.
    take
        Called in this thread with consecutive records, in offset order.
    idle_timeout_s
        Seconds without any progress after which the broker counts as away.

    Raises
    ------
    BrokerUnavailableError
        The broker does not answer, or stopped answering.
    """
    place = TopicPartition(settings.topic(topic), partition)
    try:
        asyncio.run(_read(settings, place, take, idle_timeout_s))
    except (KafkaError, TimeoutError) as error:
        raise BrokerUnavailableError(
            f"Kafka at {settings.kafka_broker} does not answer, or not any more: partition "
            f"{partition} of {place.topic} was not read to its end ({str(error) or 'silence'}). "
            "Nothing was changed; it is read again from the beginning. Check KAFKA_BROKER."
        ) from error


async def _read(
    settings: Settings,
    place: TopicPartition,
    take: Callable[[PackedRecords], object],
    idle_timeout_s: float,
) -> None:
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(idle_timeout_s) as patience:
        consumer = await _started(settings)
        try:
            read_packed(cast("Fetcher", consumer._fetcher))
            consumer.assign([place])
            # The last stable offset: what an unfinished transaction holds is not waited for.
            end = (await consumer.end_offsets([place]))[place]
            reached = await consumer.position(place)
            while reached < end:
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
                for records in fetched.get(place, ()):
                    take(cast("PackedRecords", records))
                # Behind aborted records and markers as well, which nobody is handed.
                now = await consumer.position(place)
                if now > reached:
                    reached = now
                    patience.reschedule(clock() + idle_timeout_s)
        finally:
            await consumer.stop()


async def _started(settings: Settings) -> aiokafka.AIOKafkaConsumer:
    """Return a client that has reached the broker; tries until it has."""
    while True:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_broker.split(","),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_partition_fetch_bytes=_FETCH_BYTES,
            **credentials_to_aiokafka_auth(faust_credentials(settings)),
        )
        try:
            await consumer.start()
        except KafkaConnectionError as error:
            logger.warning("waiting to read from Kafka: %s", error)
            await consumer.stop()
            await asyncio.sleep(_RETRY_S)
        except BaseException:
            await consumer.stop()
            raise
        else:
            return consumer
