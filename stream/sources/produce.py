"""Sending attempts to Kafka as a learning platform would."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import orjson

from schemas.attempt import to_epoch_ms

__all__ = ["KafkaProducer", "send_attempts"]

_PROGRESS_EVERY = 2000


class KafkaProducer(Protocol):
    """What is used of a confluent_kafka producer."""

    def produce(self, topic: str, value: bytes, key: str) -> None: ...  # noqa: D102
    def poll(self, timeout: float) -> int: ...  # noqa: D102
    def flush(self) -> int: ...  # noqa: D102


def send_attempts(
    producer: KafkaProducer,
    topic: str,
    attempts: Iterable[Mapping[str, Any]],
    *,
    speed: float | None = None,
    progress: Callable[[int], None] = lambda _n: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Send attempt events, keyed by learner, in the order given.

    Parameters
    ----------
    producer
        A confluent_kafka producer.
    topic
        Full name of the attempts topic.
    attempts
        Events as the sources give them.
    speed
        Event seconds a wall-clock second (60 plays an hour in a minute); None: as fast as can be.
    progress
        Called with the number sent since the last call.

    Returns
    -------
    int
        Events sent; all of them acknowledged by the broker.
    """
    sent = 0
    events = iter(attempts) if speed is None else _paced(attempts, speed, sleep, clock)
    while batch := list(itertools.islice(events, _PROGRESS_EVERY if speed is None else 1)):
        for event in batch:
            while True:
                try:
                    producer.produce(topic, orjson.dumps(event), event["user_id"])
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
        sent += len(batch)
        progress(len(batch))
    producer.flush()
    return sent


def _paced(
    attempts: Iterable[Mapping[str, Any]],
    speed: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Iterator[Mapping[str, Any]]:
    """Hold each event back until its time has come; an out-of-order one goes at once."""
    began = clock()
    first_ms: int | None = None
    for event in attempts:
        at_ms = to_epoch_ms(event["completed_at"])
        first_ms = at_ms if first_ms is None else first_ms
        wait_s = (at_ms - first_ms) / 1000 / speed - (clock() - began)
        if wait_s > 0:
            sleep(wait_s)
        yield event
