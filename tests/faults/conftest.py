"""A stack that may be broken, and the roles as processes on it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.kafka.admin import create_topics
from stream.local.stack import Stack, running_stack
from stream.migrate import migrate
from stream.settings import Settings
from tests.faults.roles import Roles

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests: they stop servers and wait for time-outs, which takes minutes."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="package")
def breakable() -> Iterator[Stack]:
    """Kafka and PostgreSQL for these tests alone: the other tests' servers must live on."""
    with running_stack(parts=("kafka", "postgres")) as stack:
        yield stack


@pytest.fixture
def fault_settings(breakable: Stack, tmp_path: Path) -> Settings:
    """Settings with topics and tables of the test's own, made."""
    # A test that failed may have left a server down.
    breakable.up()
    number = next(_numbers)
    settings = Settings(
        kafka_broker=breakable.addresses.kafka_broker,
        database_url=breakable.addresses.database_url,
        db_schema=f"faults_{os.getpid()}_{number}",
        topic_prefix=f"f{os.getpid()}-{number}.",
        partitions=2,
        flush_interval_secs=0.2,
        session_timeout_secs=6.0,
        web_port=0,
        state_dir=str(tmp_path),
    )
    asyncio.run(migrate(settings.database_url, settings.db_schema))
    create_topics(settings)
    return settings


@pytest.fixture
def roles(fault_settings: Settings, tmp_path: Path) -> Iterator[Roles]:
    """Starts roles; what still runs at the end is killed."""
    with Roles(fault_settings, tmp_path) as started:
        yield started
