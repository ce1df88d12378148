"""A migrated database, the sink's way into it, and records as the Kafka client makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from aiokafka.structs import ConsumerRecord

from schemas.codec import encode
from schemas.outputs import FeatureRow, FeatureUpdate, KpiRow, KpiUpdate, ThetaUpdate, TopicTheta
from stream.migrate import migrate
from stream.settings import Settings
from stream.sinks.consume import Reader, read_records
from stream.sinks.pool import SinkDatabase

MakeRecord = Callable[..., Any]


def make_record(
    value: Any,
    offset: int = 0,
    *,
    topic: str = "updates",
    partition: int = 0,
    key: bytes | None = None,
    timestamp: int = 1_700_000_000_123,
) -> Any:
    """Return a record; a value that is no bytes is encoded."""
    raw = value if value is None or isinstance(value, bytes) else encode(value)
    return ConsumerRecord(topic, partition, offset, timestamp, 0, key, raw, None, 0, 0, ())


def theta(user: str = "u1", value: float = 0.5, *, offset: int = 10, at: int = 1000) -> ThetaUpdate:
    """Return a learner's abilities: the global one and one in topic t1."""
    return ThetaUpdate(
        *(user, value, 0.4, 3, 2, 900, "v1"),
        [TopicTheta("t1", value + 1, 0.6, 3, 800)],
        source_partition=2,
        source_offset=offset,
        computed_at=at,
    )


def feature_row(day: int = 19_800, attempts: int = 4, topic: str = "t1") -> FeatureRow:
    """Return one day's row."""
    return FeatureRow(
        *(topic, day, attempts, 3, 1),
        avg_time_ms=1234.5,
        rt_median=1000.0,
        theta_estimate=0.12345,
        theta_sd=0.25,
        improvement=None,
        improvement_accuracy=-0.125,
        last_seen_at=day * 86_400_000 + 61_001,
    )


def features(rows: list[FeatureRow], user: str = "u1", *, offset: int = 10, at: int = 1000) -> Any:
    """Return an update of daily rows."""
    return FeatureUpdate(user, rows, "v1", 2, offset, at)


def kpis(
    values: dict[str, float | None], user: str = "u1", *, offset: int = 10, at: int = 1000
) -> Any:
    """Return an update of the week of 2024-03-18."""
    return KpiUpdate(user, [KpiRow(19_800, values)], "v1", 2, offset, at)


@pytest.fixture
async def tables(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a migrated database."""
    await migrate(database_url)
    connection = await asyncpg.connect(database_url, server_settings={"timezone": "UTC"})
    yield connection
    await connection.close()


@pytest.fixture
async def database(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SinkDatabase]:
    """The sink's database, quick to try again."""
    monkeypatch.setattr("stream.sinks.pool.FIRST_WAIT_S", 0.05)
    monkeypatch.setattr("stream.sinks.pool.LONGEST_WAIT_S", 0.2)
    database = SinkDatabase(Settings(database_url=database_url))
    yield database
    await database.on_stop()


async def write(database: SinkDatabase, read: Reader, *values: Any) -> None:
    """Write some values as one batch of records with offsets from 0."""
    records = [make_record(value, i) for i, value in enumerate(values)]
    await database.write(read_records(records, read))
