"""Whether consumer groups have seen everything: by records, not by lag.

On a topic written in transactions the end offset counts commit markers, so lag never reads 0.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stream.errors import BrokerUnavailableError
from stream.kafka.clients import new_consumer
from stream.settings import Settings
from topics.catalogue import TopicSpec

__all__ = ["unseen_partitions"]

_TIMEOUT_S = 15.0


def unseen_partitions(
    settings: Settings, role: str, specs: Sequence[TopicSpec]
) -> list[tuple[str, int]]:
    """Return the partitions with committed records that a role has not committed as done.

    Parameters
    ----------
    settings
        Where the broker is.
    role
        engine, calibrator or sink.
    specs
        Topics the role consumes.

    Raises
    ------
    BrokerUnavailableError
        The broker does not answer.
    """
    group = settings.topic(f"thetastream-{role}")
    consumer = new_consumer(settings, **{"group.id": group})
    try:
        partitions = [
            TopicPartition(settings.topic(spec.name), number)
            for spec in specs
            for number in consumer.list_topics(settings.topic(spec.name), timeout=_TIMEOUT_S)
            .topics[settings.topic(spec.name)]
            .partitions
        ]
        behind = []
        for committed in consumer.committed(partitions, timeout=_TIMEOUT_S):
            low, high = consumer.get_watermark_offsets(committed, timeout=_TIMEOUT_S)
            start = max(low, committed.offset)
            # Between a group's offset and the end lies at least the last commit marker.
            if high > start and _has_record(consumer, committed.topic, committed.partition, start):
                behind.append((committed.topic, committed.partition))
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"Kafka at {settings.kafka_broker} does not answer: {error}"
        ) from error
    finally:
        consumer.close()
    return behind


def _has_record(consumer: Consumer, topic: str, partition: int, offset: int) -> bool:
    """Return whether a committed record lies at or after an offset."""
    consumer.assign([TopicPartition(topic, partition, offset)])
    try:
        ends_at = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < ends_at:
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                return True
            if error.code() == KafkaError._PARTITION_EOF:
                return False
            if not error.retriable():
                raise KafkaException(error)
    finally:
        consumer.unassign()
    return True
