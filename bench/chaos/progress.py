"""How far the roles are, by their groups' committed offsets; the replay that keeps them busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bench.chaos.workload import Sent
from schemas.codec import decode
from stream.engine.rows import POSITION_KEY
from stream.engine.state import Position
from stream.errors import BrokerUnavailableError
from stream.kafka.clients import new_consumer, new_producer
from stream.kafka.progress import unseen_partitions
from stream.kafka.reader import read_whole
from stream.settings import Settings
from topics.catalogue import (
    TopicSpec,
    attempts_topic,
    batch_abilities_topic,
    engine_state_topic,
    feature_updates_topic,
    item_params_topic,
    item_partials_topic,
    kpi_updates_topic,
    theta_updates_topic,
    topic_partials_topic,
)

__all__ = ["Replay", "RoleProgress", "positions", "unfinished"]

_TIMEOUT_S = 5.0

_INPUTS: dict[str, tuple[TopicSpec, ...]] = {
    "engine": (attempts_topic, batch_abilities_topic),
    "sink": (
        theta_updates_topic,
        feature_updates_topic,
        kpi_updates_topic,
        topic_partials_topic,
        item_partials_topic,
        item_params_topic,
        batch_abilities_topic,
    ),
}


class RoleProgress:
    """What a role still has to do of what was there at one moment.

    Parameters
    ----------
    settings
        Where the broker is.
    role
        engine or sink.
    """

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings = settings
        self._group = settings.topic(f"thetastream-{role}")
        self._specs = _INPUTS[role]
        self._open: list[TopicPartition] | None = None

    def mark(self) -> None:
        """Take the moment: what is in the role's topics now."""
        consumer = self._consumer()
        try:
            self._open = [
                TopicPartition(name, number, high)
                for spec in self._specs
                for name in (self._settings.topic(spec.name),)
                for number in consumer.list_topics(name, timeout=_TIMEOUT_S).topics[name].partitions
                for high in (self._high(consumer, name, number),)
            ]
        finally:
            consumer.close()

    def is_past_mark(self) -> bool:
        """Whether all of it is done and committed. A broker that is away says no."""
        try:
            if self._open is None:
                self.mark()
            assert self._open is not None
            if not self._open:
                return True
            consumer = self._consumer()
            try:
                ends = {(tp.topic, tp.partition): tp.offset for tp in self._open}
                asked = [TopicPartition(*key) for key in ends]
                self._open = [
                    TopicPartition(tp.topic, tp.partition, ends[tp.topic, tp.partition])
                    for tp in consumer.committed(asked, timeout=_TIMEOUT_S)
                    if _has_record(consumer, tp, ends[tp.topic, tp.partition])
                ]
            finally:
                consumer.close()
        except KafkaException:
            return False
        return not self._open

    def left(self) -> str:
        """Say which partitions are not done: (topic, partition, offset to reach)."""
        return f"not done: {[(tp.topic, tp.partition, tp.offset) for tp in self._open or []]}"

    def _high(self, consumer: Consumer, name: str, number: int) -> int:
        tp = TopicPartition(name, number)
        high: int = consumer.get_watermark_offsets(tp, timeout=_TIMEOUT_S)[1]
        return high

    def _consumer(self) -> Consumer:
        return new_consumer(self._settings, **{"group.id": self._group})


def _has_record(consumer: Consumer, committed: TopicPartition, end: int) -> bool:
    """Return whether a committed record lies between a group's offset and an end.

    What lies there may be markers of transactions alone, which no group ever gets to see.
    """
    start = max(committed.offset, 0)
    if start >= end:
        return False
    consumer.assign([TopicPartition(committed.topic, committed.partition, start)])
    gives_up_at = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < gives_up_at:
        message = consumer.poll(0.2)
        if message is None:
            continue
        error = message.error()
        if error is None:
            offset = message.offset()
            return offset is not None and offset < end
        if error.code() == KafkaError._PARTITION_EOF:
            return False
    return True


def positions(settings: Settings) -> dict[int, Position]:
    """Return each partition's committed offset row."""
    newest: dict[int, Position] = {}

    def take(records: Sequence[object]) -> None:
        for record in records:
            if record.key() == POSITION_KEY:  # type: ignore[attr-defined]
                newest[record.partition()] = decode(record.value(), Position)  # type: ignore[attr-defined]

    read_whole(settings, {engine_state_topic.name: take})
    return newest


def unfinished(settings: Settings) -> str:
    """Return what is still to be done of everything sent, in words; empty when all is done."""
    try:
        if behind := unseen_partitions(settings, "engine", _INPUTS["engine"]):
            return f"the engine has not committed {behind}"
        # The weeks of idle learners follow a little later, when a partition hears of a new week.
        rows = positions(settings)
        newest = max((p.stream_week for p in rows.values()), default=0)
        behind_weeks = sorted(n for n, p in rows.items() if p.weeks_published < newest)
        if behind_weeks:
            return f"partitions {behind_weeks} have not published week {newest}"
        if behind := unseen_partitions(settings, "sink", _INPUTS["sink"]):
            return f"the sink has not committed {behind}"
    except BrokerUnavailableError as error:
        return str(error)
    return ""


class Replay:
    """Sends records at a bounded rate, in a thread.

    Parameters
    ----------
    settings
        Where the broker is.
    rate
        Records a second.
    """

    def __init__(self, settings: Settings, rate: float) -> None:
        self._topic = settings.topic(attempts_topic.name)
        self._rate = rate
        # Whatever the broker goes through, every record is to arrive once and in order.
        self._producer = new_producer(
            settings,
            **{
                "message.timeout.ms": 600_000,
                "delivery.report.only.error": True,
                "on_delivery": self._on_delivery,
            },
        )
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.sent = 0

    def start(self, records: Sequence[Sent]) -> None:
        """Begin to send some more records; the ones before must have been sent."""
        self.join()
        self._thread = threading.Thread(target=self._send, args=(records,), name="chaos-replay")
        self._thread.start()

    def join(self) -> None:
        """Wait until all has been handed to the broker."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def finish(self, timeout_s: float) -> int:
        """Wait until the broker has all; return how many it has not."""
        self.join()
        left: int = self._producer.flush(timeout_s)
        return left

    def stop(self) -> None:
        """Give up what has not been sent."""
        self._stop.set()
        self.join()

    def _send(self, records: Sequence[Sent]) -> None:
        began = time.monotonic()
        for number, record in enumerate(records):
            while True:
                try:
                    self._producer.produce(
                        self._topic,
                        record.value,
                        record.key,
                        -1 if record.partition is None else record.partition,
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self.sent += 1
            if not number % 20:
                self._producer.poll(0)
                ahead_s = number / self._rate - (time.monotonic() - began)
                if self._stop.wait(ahead_s) if ahead_s > 0 else self._stop.is_set():
                    return

    def _on_delivery(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self.failures.append(str(error))
