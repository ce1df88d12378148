"""Reading topics whole, without a consumer group: once, or once and then following.

Only committed records are seen. A partition is read to the end it had when reading began: the
offset before its end may be a transaction's marker, which is never delivered, so the client's
end-of-partition event counts as well as the last offset.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from itertools import groupby
from typing import Protocol, TypeAlias, TypeVar, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from stream.errors import BrokerUnavailableError, TopicMismatchError
from stream.kafka.clients import new_consumer
from stream.settings import Settings

__all__ = ["Handler", "Record", "TailReader", "patiently", "read_whole"]

logger = logging.getLogger(__name__)


class Record(Protocol):
    """A record as the Kafka client hands it over (``confluent_kafka.Message``)."""

    def topic(self) -> str:
        """Return the topic's full name."""

    def partition(self) -> int:
        """Return the partition's number."""

    def offset(self) -> int:
        """Return the offset."""

    def key(self) -> bytes | None:
        """Return the key."""

    def value(self) -> bytes | None:
        """Return the value; None is a tombstone."""

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of timestamp and the timestamp, epoch ms."""

    def headers(self) -> list[tuple[str, bytes]] | None:
        """Return the headers."""


Handler: TypeAlias = Callable[[list[Record]], object]
"""Takes consecutive records of one topic; those of a partition are in offset order."""

Ends: TypeAlias = dict[tuple[str, int], int]
"""(topic's full name, partition) -> offset one past the last committed record."""

T = TypeVar("T")

_REQUEST_TIMEOUT_S = 10.0
_POLL_S = 0.2
_BATCH = 500
"""Records handed over at once: about a millisecond of a handler's work, so that lookups and
heartbeats on the same loop stay alive."""
_AHEAD = 4
"""Batches read ahead of the handler."""


def read_whole(
    settings: Settings,
    handlers: Mapping[str, Handler],
    *,
    partitions: Collection[int] | None = None,
    since_ms: int | None = None,
    until: Mapping[int, int] | None = None,
    cancelled: threading.Event | None = None,
    idle_timeout_s: float = 60.0,
) -> Ends:
    """Read topics from the beginning to the end they have now; blocks, so call it in a thread.

    Parameters
    ----------
    settings
        Where the broker is.
    handlers
        Catalogue name of each topic -> what takes its records (called in this thread).
    partitions
        Read these alone; all by default.
    since_ms
        Begin with the first record whose timestamp is at least this (epoch ms).
    until
        Partition -> first offset not wanted. Partitions not named are left out.
    cancelled
        Set by another thread to end early.
    idle_timeout_s
        Seconds without any progress after which the broker counts as away.

    Returns
    -------
    Ends
        How far each partition was read.

    Raises
    ------
    BrokerUnavailableError
        The broker does not answer, or stopped answering; what was handed over stays so.
    TopicMismatchError
        A topic does not exist.
    """
    consumer = new_consumer(settings)
    names = {settings.topic(name): handler for name, handler in handlers.items()}
    try:
        wanted = [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for topic in names
            for partition in _partitions(consumer, topic)
            if (partitions is None or partition in partitions)
            and (until is None or partition in until)
        ]
        ends = patiently(lambda: _ends(consumer, wanted))
        if until is not None:
            ends = {key: min(end, until[key[1]]) for key, end in ends.items()}
        if since_ms is not None:
            wanted = patiently(lambda: _starts(consumer, wanted, since_ms))
        reached = {(w.topic, w.partition): max(w.offset, 0) for w in wanted}
        consumer.assign([w for w in wanted if w.offset < ends[w.topic, w.partition]])
        lag = {key for key, end in ends.items() if reached[key] < end}
        progress_at = time.monotonic()
        while lag and not (cancelled is not None and cancelled.is_set()):
            for topic, records in _next_batches(consumer, reached).items():
                progress_at = time.monotonic()
                if until is not None:
                    records = [r for r in records if r.offset() < until[r.partition()]]
                if records:
                    names[topic](records)
            lag = {key for key in lag if reached[key] < ends[key]}
            if time.monotonic() - progress_at > idle_timeout_s:
                raise BrokerUnavailableError(
                    f"Kafka at {settings.kafka_broker} stopped answering: {len(lag)} partitions of "
                    f"{', '.join(names)} were not read to their ends within {idle_timeout_s:.0f} s "
                    "of silence. Nothing was changed; it is read again from the beginning."
                )
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"Kafka at {settings.kafka_broker} does not answer: {error}. Check KAFKA_BROKER."
        ) from error
    else:
        return reached
    finally:
        consumer.close()


class TailReader:
    """Reads topics whole and then follows them, in a thread; handlers run on the event loop.

    A broker that goes away is waited for; topics that do not exist yet, too. If records vanish
    under the reader (retention), it goes on with the earliest there are: handlers must not mind
    seeing a record twice.

    Parameters
    ----------
    settings
        Where the broker is.
    handlers
        Catalogue name of each topic -> what takes its records, on the loop. Different topics are
        not ordered between each other.
    on_failure
        Called on the loop when reading has ended because a handler raised or the broker refused
        it (rights). By default that is logged alone.

    Examples
    --------
    ::

        reader = TailReader(settings, {"item-params": table.take, "watermarks": clock.take})
        reader.start()
        await reader.caught_up()
        ...
        await reader.stop()
    """

    def __init__(
        self,
        settings: Settings,
        handlers: Mapping[str, Handler],
        on_failure: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._settings = settings
        self._handlers = {settings.topic(name): handler for name, handler in handlers.items()}
        self._on_failure = on_failure
        self._reached: Ends = {}
        self._requests: queue.SimpleQueue[asyncio.Future[None]] = queue.SimpleQueue()
        self._ahead = threading.Semaphore(_AHEAD)
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def start(self) -> None:
        """Begin reading; call it on the event loop that is to run the handlers."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="tail-reader", daemon=True)
        self._thread.start()

    async def caught_up(self) -> None:
        """Wait until everything committed before this call has been handled.

        Raises
        ------
        Exception
            What ended the reading: a handler's error, or the broker's refusal.
        """
        if self._failure is not None:
            raise self._failure
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        self._requests.put(future)
        await future

    async def stop(self) -> None:
        """End reading; waits for the thread. Those who wait for ``caught_up`` are cancelled."""
        self._ending.set()
        if self._thread is not None:
            # The thread may be waiting for room that only this loop makes: do not block it.
            await asyncio.to_thread(self._thread.join)
        for future in list(self._waiting):
            future.cancel()

    def _run(self) -> None:
        consumer = new_consumer(self._settings)
        try:
            self._assign(consumer)
            asked: list[tuple[asyncio.Future[None], Ends]] = []
            while not self._ending.is_set():
                asked.extend(self._new_requests(consumer))
                for topic, records in _next_batches(consumer, self._reached).items():
                    self._hand_over(topic, records)
                waiting = []
                for future, ends in asked:
                    if all(self._reached[key] >= end for key, end in ends.items()):
                        # Queued behind the batches, so it is done after them.
                        self._call(_settle, future)
                    else:
                        waiting.append((future, ends))
                asked = waiting
        except RuntimeError:
            # The loop was closed without stop(): the process is ending.
            logger.debug("the loop of a topic reader is closed", exc_info=True)
        except KafkaException as error:
            self._call(self._fail, error)
        finally:
            consumer.close()

    def _assign(self, consumer: Consumer) -> None:
        """Take all partitions from the beginning; wait for a broker or topics not there yet."""
        while not self._ending.is_set():
            try:
                found = [
                    TopicPartition(topic, partition, OFFSET_BEGINNING)
                    for topic in self._handlers
                    for partition in _partitions(consumer, topic)
                ]
            except (KafkaException, TopicMismatchError) as error:
                logger.warning("waiting to read %s: %s", ", ".join(self._handlers), error)
                self._ending.wait(1.0)
            else:
                self._reached = {(tp.topic, tp.partition): 0 for tp in found}
                consumer.assign(found)
                return

    def _new_requests(self, consumer: Consumer) -> list[tuple[asyncio.Future[None], Ends]]:
        """Fix the ends that those who ask now wait for."""
        futures: list[asyncio.Future[None]] = []
        while not self._requests.empty():
            futures.append(self._requests.get())
        if not futures:
            return []
        try:
            ends = _ends(consumer, [TopicPartition(*key) for key in self._reached])
        except KafkaException as error:
            logger.warning("the ends of %s are not known yet: %s", ", ".join(self._handlers), error)
            for future in futures:
                self._requests.put(future)
            self._ending.wait(0.5)
            return []
        return [(future, dict(ends)) for future in futures]

    def _hand_over(self, topic: str, records: list[Record]) -> None:
        while not self._ahead.acquire(timeout=_POLL_S):
            if self._ending.is_set():
                return
        self._call(self._handle, topic, records)

    def _handle(self, topic: str, records: list[Record]) -> None:
        self._ahead.release()
        if self._failure is not None or self._ending.is_set():
            return
        try:
            self._handlers[topic](records)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        logger.error("reading %s ended", ", ".join(self._handlers), exc_info=error)
        self._failure = error
        self._ending.set()
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(error)
        if self._on_failure is not None:
            self._on_failure(error)

    def _call(self, function: Callable[..., object], *args: object) -> None:
        self._loop.call_soon_threadsafe(function, *args)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _next_batches(consumer: Consumer, reached: Ends) -> dict[str, list[Record]]:
    """Take what is there, up to a batch, and note how far each partition is read."""
    batches: dict[str, list[Record]] = {}
    # poll returns with the first record; consume alone would wait until the batch is full.
    first = consumer.poll(_POLL_S)
    if first is None:
        return batches
    # A start reads millions: as few calls for each record as can be.
    messages = [first, *consumer.consume(_BATCH - 1, 0)]
    good = [message for message in messages if message.error() is None]
    for topic, run in groupby(cast("list[Record]", good), _topic_of):
        records = list(run)
        batches.setdefault(topic, []).extend(records)
        for partition, last in {record.partition(): record for record in records}.items():
            reached[topic, partition] = last.offset() + 1
    if len(good) < len(messages):
        for message in messages:
            _note(message, reached)
    return batches


_topic_of = cast("Callable[[Record], str]", Message.topic)


def _note(message: Message, reached: Ends) -> None:
    """Take note of an event that is no record: a partition's end, or an error."""
    error = message.error()
    if error is None:
        return
    if error.code() == KafkaError._PARTITION_EOF:
        event = cast("Record", message)
        reached[event.topic(), event.partition()] = event.offset()
    elif error.fatal() or error.code() in _PERMANENT:
        raise KafkaException(error)
    else:
        # The client reconnects by itself; this tells that it has to.
        logger.warning("reading goes on after: %s", error)


_PERMANENT = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError._UNKNOWN_PARTITION,
}


def patiently(ask: Callable[[], T]) -> T:
    """Ask a consumer again for a while: after a start or a topic's making, leaders are not known.

    Raises
    ------
    KafkaException
        The broker does not answer, or not with what was asked for.
    """
    gives_up_at = time.monotonic() + _REQUEST_TIMEOUT_S
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > gives_up_at:
                raise
            time.sleep(0.1)


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    metadata = consumer.list_topics(topic, timeout=_REQUEST_TIMEOUT_S).topics[topic]
    if metadata.error is not None or not metadata.partitions:
        raise TopicMismatchError(f"Topic {topic} is missing: run `thetastream topics create`.")
    return sorted(metadata.partitions)


def _ends(consumer: Consumer, wanted: list[TopicPartition]) -> Ends:
    """Return the last stable offsets: what an unfinished transaction holds is not waited for."""
    return {
        (tp.topic, tp.partition): consumer.get_watermark_offsets(tp, timeout=_REQUEST_TIMEOUT_S)[1]
        for tp in wanted
    }


def _starts(
    consumer: Consumer, wanted: list[TopicPartition], since_ms: int
) -> list[TopicPartition]:
    """Return the same partitions with their first offset of a time, or their ends."""
    found = consumer.offsets_for_times(
        [TopicPartition(tp.topic, tp.partition, since_ms) for tp in wanted],
        timeout=_REQUEST_TIMEOUT_S,
    )
    for tp in found:
        if tp.error is not None:
            raise KafkaException(tp.error)
        if tp.offset < 0:
            tp.offset = consumer.get_watermark_offsets(tp, timeout=_REQUEST_TIMEOUT_S)[1]
    return list(found)
