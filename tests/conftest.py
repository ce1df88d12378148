"""Fixtures: one real stack a session, fresh names for every test that uses it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator

import asyncpg
import pytest

from stream.local.stack import Stack, running_stack
from stream.settings import Settings

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def kafka_stack() -> Iterator[Stack]:
    """A real broker that lives as long as the test session."""
    with running_stack(parts=("kafka",)) as stack:
        yield stack


@pytest.fixture(scope="session")
def postgres_stack() -> Iterator[Stack]:
    """A real PostgreSQL server that lives as long as the test session."""
    with running_stack(parts=("postgres",)) as stack:
        yield stack


@pytest.fixture
def database_url(postgres_stack: Stack) -> Iterator[str]:
    """Address of an empty database of the test's own."""
    server = postgres_stack.addresses.database_url
    name = f"test_{os.getpid()}_{next(_numbers)}"

    async def run(sql: str) -> None:
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(run(f'create database "{name}"'))
    yield server.rsplit("/", 1)[0] + "/" + name
    asyncio.run(run(f'drop database "{name}" with (force)'))


@pytest.fixture
def settings(kafka_stack: Stack) -> Settings:
    """Settings with topics of the test's own (not made yet) on the real broker."""
    return Settings(
        kafka_broker=kafka_stack.addresses.kafka_broker,
        topic_prefix=f"t{os.getpid()}-{next(_numbers)}.",
        partitions=2,
        flush_interval_secs=0.1,
        session_timeout_secs=6.0,
        web_port=0,
    )
