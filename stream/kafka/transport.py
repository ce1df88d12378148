"""A Faust transport that delivers the records of one poll as one message.

Faust's cost is per message (conductor, event, queue, acknowledgement), the Kafka client's is
not. :class:`BatchTransport` hands the records that one poll brought for a partition to the
conductor as a single message: its value is the list of records, its offset that of the last one.
Assignment, rebalancing, flow control, agents and offset commits stay Faust's; their overhead is
paid once a batch.

Seven things differ from stock Faust, each pinned by a test in ``tests/kafka/test_transport.py``:

- Offsets inside a batch are never acknowledged one by one, so the consumer keeps no gaps for
  batched partitions and commits the largest acknowledged offset. Streams therefore must
  acknowledge **in order**.
- The consumer reads committed records only: topics written in transactions show no aborted rows.
- After a rebalance a partition without a committed offset is read from its beginning.
- A batch is not decoded by Faust; its records carry raw bytes.
- A poll that brought few records is followed by another only after a pause of 20 ms.
- A connection that the broker has closed is not written to (`shun_closed_connections`).
- An agent that raises ends the app. Faust would start it again behind the batch it failed in, and
  the next acknowledgement would cover that batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any, ClassVar, cast

import aiokafka
import faust
from aiokafka import TopicPartition
from aiokafka.conn import CloseReason
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, Message

from stream.records import KafkaRecord

__all__ = [
    "POLL_PAUSE_S",
    "BatchConsumer",
    "BatchSchema",
    "BatchTransport",
    "ReadCommittedThread",
    "RecordBatch",
    "shun_closed_connections",
]

POLL_PAUSE_S = 0.02
_FEW_RECORDS = 1000
"""A poll that brought fewer records is followed by another only after a pause, the longest that a
record waits for it: what a poll costs, here and at the broker, hardly depends on what it brings."""


class RecordBatch:
    """Consecutive records of one partition, in the shape of one Kafka record.

    Parameters
    ----------
    tp
        The partition.
    records
        At least one record, in offset order.
    """

    __slots__ = ("offset", "partition", "timestamp", "topic", "value")

    timestamp_type: ClassVar[int] = 0
    headers: ClassVar[tuple[()]] = ()
    key: ClassVar[bytes | None] = None
    checksum: ClassVar[int | None] = None
    serialized_key_size: ClassVar[int] = 0
    serialized_value_size: ClassVar[int] = 0

    def __init__(self, tp: TP, records: Sequence[KafkaRecord]) -> None:
        last = records[-1]
        self.topic: str = tp.topic
        self.partition: int = tp.partition
        self.offset: int = last.offset
        self.timestamp: int = last.timestamp
        self.value = records


class BatchSchema(faust.Schema[Any, Any]):
    """Faust schema of a topic read in batches: keys and values stay the raw records."""

    def loads_key(
        self,
        app: AppT,
        message: Message,
        **_: Any,
    ) -> bytes | None:
        """Return the key of a batch: always None."""
        return None

    def loads_value(
        self,
        app: AppT,
        message: Message,
        **_: Any,
    ) -> Sequence[Any]:
        """Return the records of a batch."""
        return cast("Sequence[Any]", message.value)


def shun_closed_connections(client: Any) -> None:
    """Let an ``AIOKafkaClient`` take a connection whose transport is closed for what it is.

    Between the end of a transport in the middle of an answer and the moment the client's reader
    sees it, the client would write to it. With asyncio's own loop such a write does nothing; uvloop
    raises a RuntimeError, which the client does not expect: its metadata task ends by it, for good
    and without a word, and the member is lost to its group.
    """
    find = client._get_conn

    async def find_open(node_id: Any, **options: Any) -> Any:
        connection = await find(node_id, **options)
        writer = connection and connection._writer
        if writer is not None and writer.transport.is_closing():
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            return None
        return connection

    client._get_conn = find_open


class ReadCommittedThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with a client that sees committed records only.

    It also notes when the group's coordinator last answered a heartbeat: a member that it does
    not hear of may have lost its partitions to another without knowing.
    """

    last_contact: float | None = None
    has_joined = False

    async def on_start(self) -> None:
        """Start the client and listen to its heartbeats."""
        # Until the group is first heard of, its silence counts from here.
        self.last_contact = monotonic()
        await super().on_start()
        consumer = self._ensure_consumer()
        shun_closed_connections(consumer._client)
        coordinator: Any = consumer._coordinator
        # A client without a group has a coordinator that sends none.
        heartbeat = getattr(coordinator, "_do_heartbeat", None)
        if heartbeat is None:
            return

        async def noted() -> bool:
            answered: bool = await heartbeat()
            if answered:
                self.last_contact = monotonic()
            return answered

        coordinator._do_heartbeat = noted

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Note that the group has taken this member in, then go on as Faust does."""
        self.last_contact = monotonic()
        self.has_joined = True
        await super().on_partitions_assigned(assigned, generation_id)

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust sets read_committed only together with its own exactly_once, which we do not use.
        # The client reads this attribute when it starts, after this method.
        consumer._isolation_level = "read_committed"
        # Ask the broker again soon when idle, so that a first record does not wait.
        consumer._fetch_max_wait_ms = 500
        return consumer


class BatchConsumer(driver.Consumer):
    """Faust's Kafka consumer, delivering one message a partition and poll."""

    _agent_failed = False
    _next_poll = 0.0

    async def on_task_error(self, exc: BaseException) -> None:
        """End the app, and commit nothing any more: an agent has failed in a batch."""
        self._agent_failed = True
        await self.app.crash(exc)

    @property
    def has_joined(self) -> bool:
        """Whether the group has taken this process in."""
        return cast("ReadCommittedThread", self._thread).has_joined

    def silence_s(self) -> float:
        """Return for how many seconds the group's coordinator has not answered."""
        last = cast("ReadCommittedThread", self._thread).last_contact
        return 0.0 if last is None else monotonic() - last

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(
        self, active_partitions: set[TP] | None, timeout: float
    ) -> dict[TP, list[RecordBatch]]:
        await asyncio.sleep(self._next_poll - monotonic())
        records = await super()._getmany(active_partitions, timeout)
        if sum(map(len, (records or {}).values())) < _FEW_RECORDS:
            self._next_poll = monotonic() + POLL_PAUSE_S
        return {tp: [RecordBatch(tp, batch)] for tp, batch in (records or {}).items() if batch}

    async def perform_seek(self) -> None:
        """Go back to where the group has committed, or to the beginning where it has not yet.

        Faust seeks only what has a committed offset. What was fetched of another partition and
        then dropped, because a rebalance had begun, would never be delivered again.
        """
        await super().perform_seek()
        started = [tp for tp in self.assignment() if not self._committed_offset[tp]]
        if started:
            await self._thread.seek_to_beginning(*(TopicPartition(*tp) for tp in started))
            for tp in started:
                self._read_offset[tp] = None

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Keep no gaps: between two batches every offset is a gap by Faust's reckoning."""

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset to commit: one past the largest acknowledged."""
        acked = self._acked[tp]
        if not acked or self._agent_failed:
            return None
        offset: int = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return offset + 1


class BatchTransport(driver.Transport):
    """Faust's Kafka transport with :class:`BatchConsumer`.

    Examples
    --------
    >>> import faust
    >>> app = faust.App("id", broker="kafka://127.0.0.1:9092")
    >>> app.transport = BatchTransport(app.conf.broker_consumer, app)
    >>> app.topic("attempts", schema=BatchSchema()).topics
    ('attempts',)
    """

    Consumer: ClassVar[type[BatchConsumer]] = BatchConsumer
