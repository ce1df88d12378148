"""Reading record batches whole: the same records as the client's own reading gives."""

from __future__ import annotations

import asyncio
import inspect
import random
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from confluent_kafka import TopicPartition as Place
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.app import new_app
from stream.kafka import packed_reading, transport
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_consumer, new_producer
from stream.kafka.packed_reading import PackedConsumer, PackedTransport, read_packed, unpack_batch
from stream.kafka.packed_records import PackedRecords
from stream.settings import Settings
from topics.catalogue import attempts_topic

Plain = tuple[int, int, bytes | None, bytes | None]
TP0 = TopicPartition("attempts", 0)


def batch(first_offset: int, n: int, codec: int = 0, *, seed: int = 0, flags: int = 0) -> bytes:
    """Encode a record batch as a broker sends it, with keys, values and headers of all kinds."""
    rng = random.Random(seed)
    written = DefaultRecordBatchBuilder(2, codec, 0, 7, 0, 0, 10_000_000)
    for k in range(n):
        key = rng.choice([None, b"", b"k" * rng.choice([1, 63, 64, 200])])
        value = rng.choice([None, b"", b"v" * rng.choice([1, 8191, 8192, 70]), b"a%d" % k])
        headers = [("name", b"x"), ("empty", None)] if rng.random() < 0.2 else []
        # Times run backwards as well: differences of both signs.
        timestamp = 1_700_000_000_000 + rng.randrange(-100_000, 100_000)
        written.append(k, timestamp, key, value, headers)
    raw = written.build()
    raw[0:8] = first_offset.to_bytes(8)
    raw[22] |= flags
    raw[17:21] = packed_crc(raw).to_bytes(4)
    return bytes(raw)


def packed_crc(raw: bytes | bytearray) -> int:
    from aiokafka.record.util import calc_crc32c

    return calc_crc32c(bytes(raw[21:]))


def by_the_client(raw: bytes, **options: Any) -> list[Plain]:
    """Read a fetch as aiokafka does."""
    return [plain(one) for one in fetched(PartitionRecords, MemoryRecords(raw), **options)]


def fetched(
    kind: Any, records: Any, *, position: int = 0, aborted: tuple[tuple[int, int], ...] = ()
) -> Any:
    return kind(TP0, records, list(aborted), position, None, None, True, 1)


def plain(record: Any) -> Plain:
    return record.offset, record.timestamp, record.key, record.value


def in_one_piece(raw: bytes, **options: Any) -> list[Plain]:
    pieces = fetched(
        packed_reading._PackedPartitionRecords, packed_reading._Fetched(raw), **options
    )
    return [plain(one) for piece in pieces for one in piece]


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 300])
def test_a_batch_is_read_as_the_client_reads_it(codec: int, n: int) -> None:
    raw = batch(1_000, n, codec, seed=n)
    assert [plain(one) for one in unpack_batch(raw)] == by_the_client(raw)


def test_a_timestamp_set_by_the_broker_holds_for_all_records() -> None:
    raw = batch(5, 4, flags=0x08)
    times = {one.timestamp for one in unpack_batch(raw)}
    assert times == {DefaultRecordBatch(raw).max_timestamp}
    assert [plain(one) for one in unpack_batch(raw)] == by_the_client(raw)


def test_a_fetch_of_many_batches_that_is_cut_off_and_begins_early() -> None:
    whole = b"".join(batch(10 * k, 10, k % 5, seed=k) for k in range(12))
    for raw in (whole, whole[:-1], whole + b"\0" * 5):
        for position in (0, 3, 9, 10, 57, 119, 120):
            assert in_one_piece(raw, position=position) == by_the_client(raw, position=position)
    assert len(in_one_piece(whole[:-1], position=3)) == 107
    assert packed_reading._Fetched(whole).size_in_bytes() == len(whole)
    assert not packed_reading._Fetched(b"").has_next()
    for read in (in_one_piece, by_the_client):
        with pytest.raises(CorruptRecordException):
            read(whole + b"\0" * 20)


def test_what_was_aborted_and_control_batches_are_left_out() -> None:
    abort = DefaultRecordBatchBuilder(2, 0, 1, 7, 0, 0, 1000)
    abort.append(0, 1, b"\0\0\0\0", b"\0\0\0\0\0\0", [])
    marker = abort.build()
    marker[22] |= 0x20
    marker[0:8] = (20).to_bytes(8)
    marker[17:21] = packed_crc(marker).to_bytes(4)
    raw = batch(0, 10, flags=0x10) + batch(10, 10, flags=0x10) + bytes(marker) + batch(21, 5)
    options: dict[str, Any] = {"aborted": ((7, 10),)}
    assert in_one_piece(raw, **options) == by_the_client(raw, **options)
    assert [one[0] for one in in_one_piece(raw, **options)] == [*range(10), *range(21, 26)]


def test_a_batch_from_before_kafka_0_11_is_read_by_the_client() -> None:
    old = LegacyRecordBatchBuilder(1, 0, 10_000)
    for k in range(3):
        old.append(k, 1_000 + k, b"k", b"v%d" % k)
    raw = bytes(old.build())
    assert len(by_the_client(raw)) == 3
    assert in_one_piece(raw + batch(3, 3)) == by_the_client(raw) + by_the_client(batch(3, 3))


def test_a_batch_emptied_by_compaction_moves_the_position_on() -> None:
    raw = bytearray(batch(0, 5)[:61])
    raw[8:12] = (61 - 12).to_bytes(4)
    raw[57:61] = bytes(4)
    raw[17:21] = packed_crc(raw).to_bytes(4)
    pieces = fetched(packed_reading._PackedPartitionRecords, packed_reading._Fetched(bytes(raw)))
    assert list(pieces) == []
    assert pieces.next_fetch_offset == 5


def test_a_damaged_batch_is_refused_by_its_checksum() -> None:
    raw = bytearray(batch(0, 5))
    raw[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        in_one_piece(bytes(raw))


def test_records_are_never_looked_for_outside_of_a_batch() -> None:
    """Whatever the bytes say, with a checksum that holds: refused, or inside of what is there."""
    rng = random.Random(11)
    whole = next(raw for seed in range(99) if len(raw := batch(0, 20, seed=seed)) < 1_500)
    refused = 0
    for _ in range(3_000):
        raw = bytearray(whole)
        for _ in range(rng.choice([1, 2, 5])):
            raw[rng.randrange(57, len(raw))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0xFE])
        try:
            records = unpack_batch(bytes(raw))
        except CorruptRecordException:
            refused += 1
            continue
        places = records.places
        for start, size in ((2, 3), (4, 5)):
            assert (places[:, size] >= -1).all()
            assert (places[:, start] >= 61).all()
            assert (places[:, start] + places[:, size].clip(0) <= len(raw)).all()
    assert 500 < refused < 2_990


def test_what_is_assumed_of_the_client() -> None:
    names = Fetcher._proc_fetch_request.__code__.co_names
    assert {"MemoryRecords", "PartitionRecords"} <= set(names)
    # Looked up in its module: as a free variable or default it would not be ours.
    assert Fetcher._proc_fetch_request.__code__.co_freevars == ()
    assert "_consumer_record" in vars(PartitionRecords)
    assert "for msg in self._partition_records" in inspect.getsource(FetchResult.getall)
    assert "self._proc_fetch_request(" in inspect.getsource(Fetcher)
    assert "_fetch_records" in vars(driver.AIOKafkaConsumerThread)


def test_other_fetchers_stay_as_they_are() -> None:
    fetcher, other = Fetcher.__new__(Fetcher), Fetcher.__new__(Fetcher)
    read_packed(fetcher)
    ours = fetcher._proc_fetch_request.__func__  # type: ignore[attr-defined]
    assert ours.__globals__["MemoryRecords"] is packed_reading._Fetched
    assert other._proc_fetch_request.__func__ is Fetcher._proc_fetch_request  # type: ignore[attr-defined]
    assert Fetcher._proc_fetch_request.__globals__["MemoryRecords"] is MemoryRecords


async def test_while_a_stream_is_full_polls_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust asks for a partition that its stream has room for again with its next poll only."""
    given: list[float] = []

    async def polled(_self: Any, _active: Any, timeout: float) -> Any:
        given.append(timeout)
        return {}

    monkeypatch.setattr(faust_consumer.ThreadDelegateConsumer, "_getmany", polled)
    consumer = PackedConsumer.__new__(PackedConsumer)
    consumer._buffered_partitions = set()
    consumer._next_poll = 0.0
    await consumer._getmany(None, 1.0)
    consumer.app = SimpleNamespace(in_recovery=False)
    consumer._active_partitions = {TP(*TP0)}
    consumer.on_buffer_full(TP(*TP0))
    await consumer._getmany(None, 1.0)
    consumer.on_buffer_drop(TP(*TP0))
    await consumer._getmany(None, 1.0)
    assert given == [1.0, transport.POLL_PAUSE_S, 1.0]


@pytest.mark.integration
async def test_an_app_reads_whole_batches_of_the_broker_and_no_aborted_record(
    settings: Settings,
) -> None:
    create_topics(settings)
    topic = settings.topic("attempts")
    sent: list[tuple[bytes | None, bytes | None]] = []
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        producer = new_producer(settings, **{"compression.type": codec, "linger.ms": 50})
        for n in range(200):
            key, value = b"%d" % n, None if n % 50 == 7 else b"%s %d" % (codec.encode(), n)
            sent.append((key, value))
            producer.produce(topic, value, key, 0, headers={"h": "x"} if n % 3 else None)
        producer.flush(10)
        aborted = new_producer(settings, **{"transactional.id": settings.topic("aborter")})
        aborted.init_transactions(10)
        aborted.begin_transaction()
        aborted.produce(topic, b"aborted", b"k", 0)
        aborted.flush(10)
        aborted.abort_transaction(10)
    # The group begins in the middle of a batch.
    consumer = new_consumer(settings, **{"group.id": settings.topic("thetastream-sink")})
    consumer.commit(offsets=[Place(topic, 0, 150)], asynchronous=False)
    consumer.close()

    app = new_app("sink", settings)
    app.transport = PackedTransport(app.conf.broker_consumer, app)
    got: list[tuple[bytes | None, bytes | None]] = []
    kinds: set[type] = set()
    finished = asyncio.Event()

    @app.agent(app.batches(attempts_topic))
    async def collect(stream: Any) -> None:
        async for event in stream.noack().events():
            kinds.add(type(event.value))
            got.extend((one.key, one.value) for one in event.value)
            event.ack()
            if len(got) >= len(sent) - 150:
                finished.set()

    async with app:
        await asyncio.wait_for(finished.wait(), 40)
        await app.consumer.commit()
    assert got == sent[150:]
    assert kinds == {PackedRecords}


def test_a_piece_stands_at_its_last_offset() -> None:
    record = SimpleNamespace(offset=4, timestamp=1, key=None, value=b"x")
    assert packed_reading._Piece(PackedRecords.of([record])).offset == 4
