"""Reading whole topics: committed records only, to the end, and on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from stream.errors import TopicMismatchError
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.kafka.reader import Record, TailReader, read_whole
from stream.settings import Settings

pytestmark = pytest.mark.integration

TOPIC = "item-partials"
DEADLINE_S = 30.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings whose topics are there."""
    create_topics(settings)
    return settings


def _put(settings: Settings, values: list[str], *, end: str, topic: str = TOPIC) -> None:
    """Write one transaction and commit or abort it."""
    producer = new_producer(settings, **{"transactional.id": settings.topic(f"test-{end}")})
    producer.init_transactions(DEADLINE_S)
    producer.begin_transaction()
    for value in values:
        producer.produce(settings.topic(topic), value.encode(), value.encode())
    producer.flush(DEADLINE_S)
    if end == "commit":
        producer.commit_transaction(DEADLINE_S)
    else:
        producer.abort_transaction(DEADLINE_S)


def _whole(settings: Settings, topic: str = TOPIC, **options: object) -> list[Record]:
    found: list[Record] = []
    read_whole(settings, {topic: found.extend}, **options)  # type: ignore[arg-type]
    return found


def _values(records: list[Record]) -> list[str]:
    return sorted((r.value() or b"").decode() for r in records)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - filled by a handler, which sets no event
            await asyncio.sleep(0.02)


def test_an_empty_topic_is_read_at_once(settings: Settings) -> None:
    assert _whole(settings) == []


def test_committed_records_are_seen_and_aborted_ones_are_not(settings: Settings) -> None:
    _put(settings, [f"a{n}" for n in range(40)], end="abort")
    _put(settings, [f"b{n}" for n in range(40)], end="commit")
    _put(settings, [f"c{n}" for n in range(40)], end="abort")
    assert _values(_whole(settings)) == sorted(f"b{n}" for n in range(40))


def test_an_unfinished_transaction_is_not_waited_for(settings: Settings) -> None:
    _put(settings, ["before"], end="commit")
    producer = new_producer(settings, **{"transactional.id": settings.topic("open")})
    producer.init_transactions(DEADLINE_S)
    producer.begin_transaction()
    for n in range(40):
        producer.produce(settings.topic(TOPIC), b"open", str(n).encode())
    producer.flush(DEADLINE_S)
    assert _values(_whole(settings)) == ["before"]
    producer.commit_transaction(DEADLINE_S)
    assert len(_whole(settings)) == 41


def test_a_part_of_a_topic_is_read_by_partition_time_and_offset(settings: Settings) -> None:
    producer = new_producer(settings)
    for n in range(10):
        producer.produce(
            settings.topic("attempts"), str(n).encode(), b"k", 1, timestamp=1000 * n + 1
        )
    producer.produce(settings.topic("attempts"), b"elsewhere", b"k", 0, timestamp=9000)
    producer.flush(DEADLINE_S)

    def read(**options: object) -> list[str]:
        return _values(_whole(settings, "attempts", **options))

    assert read(partitions=[0]) == ["elsewhere"]
    assert read(since_ms=6500) == ["7", "8", "9", "elsewhere"]
    assert read(since_ms=99_000) == []
    assert read(until={1: 3}) == ["0", "1", "2"]
    assert read(since_ms=1500, until={1: 4, 0: 0}) == ["2", "3"]


def test_a_topic_that_does_not_exist_is_named(settings: Settings) -> None:
    with pytest.raises(TopicMismatchError, match="no-such is missing"):
        _whole(settings, "no-such")


async def test_the_tail_reader_catches_up_and_follows(settings: Settings) -> None:
    _put(settings, [f"a{n}" for n in range(1200)], end="commit")
    seen: list[Record] = []
    reader = TailReader(settings, {TOPIC: seen.extend})
    reader.start()
    async with asyncio.timeout(DEADLINE_S):
        await reader.caught_up()
    assert len(seen) == 1200
    await asyncio.to_thread(_put, settings, ["rolled back"], end="abort")
    await asyncio.to_thread(_put, settings, ["later"], end="commit")
    async with asyncio.timeout(DEADLINE_S):
        await reader.caught_up()
    assert _values(seen[1200:]) == ["later"]
    await asyncio.to_thread(_put, settings, ["without asking"], end="commit")
    await _until(lambda: len(seen) == 1202)
    await reader.stop()


async def test_a_failing_handler_ends_the_reader_and_tells(settings: Settings) -> None:
    def fail(_records: list[Record]) -> None:
        raise ZeroDivisionError

    told: list[BaseException] = []
    await asyncio.to_thread(_put, settings, ["x"], end="commit")
    reader = TailReader(settings, {TOPIC: fail}, on_failure=told.append)
    reader.start()
    with pytest.raises(ZeroDivisionError):
        await reader.caught_up()
    with pytest.raises(ZeroDivisionError):
        await reader.caught_up()
    assert [type(error) for error in told] == [ZeroDivisionError]
    await reader.stop()
