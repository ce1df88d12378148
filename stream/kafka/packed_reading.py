"""Reading a topic without a Python object a record.

A Kafka record batch says in its header how many records follow and between which offsets; the
client (aiokafka) makes three objects of each record, which costs more than folding the attempt in
it. :class:`PackedTransport` leaves all that concerns a batch to the client (fetching, checksums,
aborted transactions, positions) and reads the records of a batch with one call of compiled code,
into :class:`~stream.kafka.packed_records.PackedRecords`.

What is assumed of aiokafka, each pinned by a test in ``tests/kafka/test_packed_reading.py``: its
fetcher's ``_proc_fetch_request`` looks up ``MemoryRecords`` and ``PartitionRecords`` by name, the
first gives batches, and the second hands on what iterating over a batch gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any, ClassVar, cast

import aiokafka
import numpy as np
from aiokafka import codec
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.compiling import compiled
from stream.kafka.packed_records import (
    KEY,
    KEY_SIZE,
    N_COLUMNS,
    OFFSET,
    TIMESTAMP,
    VALUE,
    VALUE_SIZE,
    PackedRecords,
    Places,
)
from stream.kafka.transport import (
    POLL_PAUSE_S,
    BatchConsumer,
    BatchTransport,
    ReadCommittedThread,
    RecordBatch,
)

__all__ = ["PackedTransport", "read_packed", "unpack_batch"]

_U1 = np.ndarray[tuple[int], np.dtype[np.uint8]]

_BEGIN = 12
"""Bytes ahead of what a batch's size counts; the last four of them are that size."""
_MAGIC = 16
_COUNT = slice(57, 61)
_HEADER = 61
"""Bytes of a batch's header; the records, possibly compressed, follow."""

_DECODERS = {
    DefaultRecordBatch.CODEC_GZIP: codec.gzip_decode,
    DefaultRecordBatch.CODEC_SNAPPY: codec.snappy_decode,
    DefaultRecordBatch.CODEC_LZ4: codec.lz4_decode,
    DefaultRecordBatch.CODEC_ZSTD: codec.zstd_decode,
}
_LOG_APPEND_TIME = 1


@compiled
def _varint(data: _U1, at: int, end: int) -> tuple[int, int]:
    """Read a zigzag varint; return it and the place behind it, or a place behind ``end``."""
    value, shift = 0, 0
    while at < end and shift < 64:
        one = int(np.int64(data[np.uint64(at)]))
        at += 1
        value |= (one & 0x7F) << shift
        if one < 0x80:
            return ((value >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(value & 1), at
        shift += 7
    return 0, end + 1


@compiled
def _read_records(
    data: _U1, at: int, first_offset: int, first_ms: int, fixed_ms: int, places: Places
) -> bool:
    """Find the records of a batch; False if its bytes are not as many as they say.

    Parameters
    ----------
    data, at
        The bytes, and where the first record begins.
    first_offset, first_ms
        What the records' offsets and timestamps are counted from.
    fixed_ms
        The timestamp of all records where the broker sets it; else negative.
    places
        Out (n, 6): as of :class:`PackedRecords`.
    """
    size = data.shape[0]
    for k in range(places.shape[0]):
        length, at = _varint(data, at, size)
        if not 0 <= length <= size - at:
            return False
        end = at + length
        # Its attributes, one byte, are not in use.
        since, at = _varint(data, at + 1, end)
        offset, at = _varint(data, at, end)
        key_size, key = _varint(data, at, end)
        if not -1 <= key_size <= end - key:
            return False
        value_size, value = _varint(data, key + max(key_size, 0), end)
        if not -1 <= value_size <= end - value:
            return False
        places[k, OFFSET] = first_offset + offset
        places[k, TIMESTAMP] = first_ms + since if fixed_ms < 0 else fixed_ms
        places[k, KEY], places[k, KEY_SIZE] = key, key_size
        places[k, VALUE], places[k, VALUE_SIZE] = value, value_size
        # Headers follow.
        at = end
    return at == size


def unpack_batch(raw: bytes) -> PackedRecords:
    """Read the records of one record batch (magic 2, as brokers have sent since Kafka 0.11).

    Parameters
    ----------
    raw
        The batch with its header.

    Raises
    ------
    CorruptRecordException
        Its records are not as many or as long as they say.
    """
    return _unpack(raw, DefaultRecordBatch(raw))


def _unpack(raw: bytes, header: Any) -> PackedRecords:
    data, at = raw, _HEADER
    if header.compression_type:
        data, at = bytes(_DECODERS[header.compression_type](raw[_HEADER:])), 0
    count, first = int.from_bytes(raw[_COUNT]), header.base_offset
    fixed_ms = header.max_timestamp if header.timestamp_type == _LOG_APPEND_TIME else -1
    # A record takes some bytes at least: memory is not taken for more than there can be.
    places = np.empty((min(count, len(data)), N_COLUMNS), np.int64)
    records = PackedRecords(data, places)
    whole = _read_records(records.data, at, first, header.first_timestamp, fixed_ms, places)
    if not whole or count != len(places):
        raise CorruptRecordException(
            f"The record batch at offset {first} does not hold the {count} records that its "
            "header tells of"
        )
    return records


class _Batch:
    """One record batch for the client; to iterate over it gives its records in one piece."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._header = DefaultRecordBatch(raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._header, name)

    def __next__(self) -> Any:
        """Return the first record by itself: the client looks into control batches."""
        return next(self._header)

    def __iter__(self) -> Iterator[_Piece]:
        records = _unpack(self._raw, self._header)
        return iter([_Piece(records)] if len(records) else [])


class _Piece:
    """A batch's records in the place of a record: its offset is that of the last."""

    def __init__(self, records: PackedRecords) -> None:
        self.records = records
        self.offset = records[-1].offset


class _Fetched:
    """What a fetch brought of a partition, batch by batch; the last may be cut off."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0
        self._end = self._end_of_next()

    def _end_of_next(self) -> int:
        begin = self._at + _BEGIN
        end = begin + int.from_bytes(self._raw[begin - 4 : begin])
        return end if begin <= end <= len(self._raw) else -1

    def size_in_bytes(self) -> int:
        return len(self._raw)

    def has_next(self) -> bool:
        return self._end >= 0

    def next_batch(self) -> Any:
        raw = self._raw[self._at : self._end]
        self._at = self._end
        self._end = self._end_of_next()
        if len(raw) >= _HEADER and raw[_MAGIC] >= 2:
            return _Batch(raw)
        return MemoryRecords(raw).next_batch()


class _PackedPartitionRecords(PartitionRecords):
    """The client's own reading of a fetch, which hands on pieces in the place of records."""

    def _consumer_record(self, tp: Any, record: Any) -> PackedRecords:  # noqa: ARG002
        if not isinstance(record, _Piece):
            # Of a batch from before Kafka 0.11.
            return PackedRecords.of([record])
        # The broker sends whole batches: the first may begin before what was asked for.
        return record.records.after(self.next_fetch_offset - 1)


def read_packed(fetcher: Fetcher) -> None:
    """Let a consumer's fetcher hand out :class:`PackedRecords` in the place of records.

    Its method is kept, but finds our classes under two of the names it looks up. Call it before
    the first fetch.
    """
    own = Fetcher._proc_fetch_request
    names = {
        **own.__globals__,
        MemoryRecords.__name__: _Fetched,
        PartitionRecords.__name__: _PackedPartitionRecords,
    }
    ours = FunctionType(own.__code__, names, own.__name__, own.__defaults__, own.__closure__)
    fetcher._proc_fetch_request = MethodType(ours, fetcher)  # type: ignore[method-assign]


class _PackedThread(ReadCommittedThread):
    """The consumer thread; the records of a poll leave it in one piece a partition."""

    async def on_start(self) -> None:
        """Start the client, which has been assigned nothing yet."""
        await super().on_start()
        read_packed(cast("Fetcher", self._ensure_consumer()._fetcher))

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, Any]:
        fetched = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        return {tp: PackedRecords.joined(parts) for tp, parts in fetched.items()}


class PackedConsumer(BatchConsumer):
    """:class:`BatchConsumer` whose batches are :class:`PackedRecords`.

    While a stream is full, a poll waits for 20 ms at most. Faust asks for the partition that it
    holds back with the first poll after the stream has room again; a poll for other, silent
    partitions would delay that by a second.
    """

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _PackedThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(
        self, active_partitions: set[TP] | None, timeout: float
    ) -> dict[TP, list[RecordBatch]]:
        if self._buffered_partitions:
            timeout = min(timeout, POLL_PAUSE_S)
        return await super()._getmany(active_partitions, timeout)


class PackedTransport(BatchTransport):
    """:class:`BatchTransport` whose batches are :class:`PackedRecords`.

    Examples
    --------
    >>> import faust
    >>> app = faust.App("id", broker="kafka://127.0.0.1:9092")
    >>> app.transport = PackedTransport(app.conf.broker_consumer, app)
    >>> app.transport.Consumer.__name__
    'PackedConsumer'
    """

    Consumer: ClassVar[type[BatchConsumer]] = PackedConsumer
