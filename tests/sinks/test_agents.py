"""The sink as a process, between a real broker and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.calibration import (
    MANIFEST_KEY,
    BatchAbility,
    CalibrationResult,
    ItemParamsRecord,
    ParamsManifest,
)
from schemas.codec import encode
from schemas.outputs import ItemPartial, TopicPartial
from stream.app import new_app
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.settings import Settings
from stream.sinks import register

from .conftest import feature_row, features, kpis, theta

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SINK = """
import logging, faust
from stream.app import new_app
from stream.settings import Settings
from stream.sinks import register
logging.basicConfig(level="INFO")
app = new_app("sink", Settings.from_env())
register(app)
faust.Worker(app, loglevel="info", override_logging=False, quiet=True).execute_from_commandline()
"""


@contextmanager
def running_sink(settings: Settings, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the sink role in a process of its own; at the end it must stop when told to."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "KAFKA_BROKER": settings.kafka_broker,
        "DATABASE_URL": settings.database_url,
        "THETASTREAM_TOPIC_PREFIX": settings.topic_prefix,
        "THETASTREAM_SESSION_TIMEOUT_SECS": str(settings.session_timeout_secs),
        "THETASTREAM_STATE_DIR": str(tmp_path),
    }
    with (tmp_path / "sink.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-c", SINK], env=environment, stderr=log)
    try:
        yield process
        process.terminate()
        assert process.wait(20) == 0 or process.returncode == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


def produce(settings: Settings, records: list[tuple[str, str | bytes, Any]]) -> None:
    producer = new_producer(settings)
    for topic, key, value in records:
        producer.produce(settings.topic(topic), key=key, value=encode(value))
    assert producer.flush(20) == 0


async def eventually(
    check: Callable[[], Awaitable[Any]], wanted: Any, timeout_s: float = 40
) -> None:
    """Wait until a check gives what is wanted; then (and at the time-out) compare."""
    end = time.monotonic() + timeout_s
    while (found := await check()) != wanted and time.monotonic() < end:  # noqa: ASYNC110 - a database tells nobody
        await asyncio.sleep(0.2)
    assert found == wanted


@pytest.fixture
def sink_settings(settings: Settings, database_url: str) -> Settings:
    """Settings with the topics made and the database's address in them."""
    ours = replace(settings, database_url=database_url)
    create_topics(ours)
    return ours


def updates(learners: range, version: int) -> list[tuple[str, str, Any]]:
    """Return the updates of some learners after their version-th attempt."""
    records: list[tuple[str, str, Any]] = []
    for i in learners:
        user = f"u{i:05d}"
        made = {"offset": 100 * version + i, "at": 1000 * version}
        records += [
            ("theta-updates", user, theta(user, version / 8, **made)),
            ("feature-updates", user, features([feature_row(attempts=version)], user, **made)),
            ("kpi-updates", user, kpis({"I_t": version / 8}, user, **made)),
        ]
    return records


def test_the_agents_are_the_ones_named(settings):
    app = new_app("sink", settings)
    register(app)
    assert sorted(app.agents) == [
        "sink-batch-abilities",
        "sink-calibration-results",
        "sink-feature-updates",
        "sink-item-params",
        "sink-item-partials",
        "sink-kpi-updates",
        "sink-theta-updates",
        "sink-topic-partials",
    ]


def test_a_sink_may_wait_for_weeks_without_leaving_its_group(settings):
    # Faust never polls again after its client left the group for want of polls: with the default
    # of 1000 s an outage of 17 minutes would end the sink's work for good.
    app = new_app("sink", settings)
    register(app)
    assert app.conf.broker_max_poll_interval == 30 * 86_400
    assert app.conf.broker_max_poll_records == 2000


async def test_every_topic_reaches_its_tables(sink_settings, tables, tmp_path):
    records: list[tuple[str, str | bytes, Any]] = [
        *updates(range(3), 1),
        ("topic-partials", "0|t1", TopicPartial("t1", 0, 5, 3, 2, 9)),
        ("item-partials", "0|i1", ItemPartial("i1", 0, 5, 3, 2.5, 1.0, 9)),
        ("item-params", "i1", ItemParamsRecord("i1", 1.0, 0.5, 0.0, 0.1, "c1")),
        (
            "item-params",
            MANIFEST_KEY,
            ParamsManifest("c1", 1, "calibrated", "run1", 1, 1.0, 0.0, "first", 7000),
        ),
        ("batch-abilities", "u00000", BatchAbility("u00000", 0.5, 0.3, "run1", "c1", 5000)),
        (
            "calibration-results",
            "req1",
            CalibrationResult("run1", "req1", "irt", "succeeded", "manual", 5000, {"0": 9}, 6000),
        ),
    ]
    await asyncio.to_thread(produce, sink_settings, records)

    async def counts() -> dict[str, int]:
        return {
            table: await tables.fetchval(f"select count(*) from {table}")
            for table in (
                *("student_topic_theta", "mirt_ability", "features_topic_daily", "weekly_kpi"),
                *("topic_totals", "item_totals", "mirt_item_params", "item_calibration"),
                *("mirt_fit_meta", "sink_rejects"),
            )
        }

    with running_sink(sink_settings, tmp_path):
        await eventually(
            counts,
            {
                "student_topic_theta": 3,
                "mirt_ability": 4,
                "features_topic_daily": 3,
                "weekly_kpi": 3,
                "topic_totals": 1,
                "item_totals": 1,
                "mirt_item_params": 1,
                "item_calibration": 1,
                "mirt_fit_meta": 1,
                "sink_rejects": 0,
            },
        )


async def test_killed_and_paused_sinks_leave_exactly_the_newest_rows(
    sink_settings, tables, tmp_path
):
    learners = range(2000)

    async def newest() -> list[tuple[Any, ...]]:
        return [
            tuple(row)
            for row in await tables.fetch(
                """select count(*), min(f.attempts), max(f.attempts), min(theta), max(theta),
                    min(kpis->>'I_t'), max(kpis->>'I_t')
                from features_topic_daily f
                join mirt_ability using (user_id) join weekly_kpi using (user_id)"""
            )
        ]

    def wanted(version: int) -> list[tuple[Any, ...]]:
        value = version / 8
        return [(2000, version, version, value, value, str(value), str(value))]

    def backlog(first: int, last: int) -> None:
        for version in range(first, last + 1):
            produce(sink_settings, updates(learners, version))

    await asyncio.to_thread(backlog, 1, 4)
    # Killed in the middle, twice.
    for _ in range(2):
        with running_sink(sink_settings, tmp_path) as sink:
            await eventually(lambda: tables.fetchval("select count(*) > 0 from weekly_kpi"), True)
            sink.kill()
            sink.wait()
            await asyncio.to_thread(backlog, 5, 6)
    with running_sink(sink_settings, tmp_path) as sleeper:
        await eventually(newest, wanted(6))
        # Stopped past its session time-out with a batch in hand; another takes over meanwhile.
        await asyncio.to_thread(backlog, 7, 7)
        sleeper.send_signal(signal.SIGSTOP)
        with running_sink(sink_settings, tmp_path):
            await asyncio.to_thread(backlog, 8, 8)
            await eventually(newest, wanted(8))
            sleeper.send_signal(signal.SIGCONT)
            await asyncio.sleep(5)
            assert await newest() == wanted(8)
    assert await tables.fetchval("select count(*) from sink_rejects") == 0


async def test_a_long_outage_of_postgresql_loses_nothing(
    sink_settings, postgres_stack, tables, database_url, tmp_path
):
    import asyncpg

    with running_sink(sink_settings, tmp_path):
        await asyncio.to_thread(produce, sink_settings, updates(range(100), 1))
        await eventually(lambda: tables.fetchval("select count(*) from weekly_kpi"), 100)
        await asyncio.to_thread(postgres_stack.postgres.kill)
        try:
            for version in (2, 3, 4):
                await asyncio.to_thread(produce, sink_settings, updates(range(500), version))
            # Longer than the session time-out: the group's heartbeats go on.
            await asyncio.sleep(sink_settings.session_timeout_secs + 2)
        finally:
            await asyncio.to_thread(postgres_stack.postgres.start)
        back = await asyncpg.connect(database_url)
        query = "select count(*) from weekly_kpi where kpis->>'I_t' = '0.5'"
        await eventually(lambda: back.fetchval(query), 500)
        await back.close()
    log = (tmp_path / "sink.log").read_text()
    assert "nothing is lost" in log
    assert "Heartbeat session expired" not in log
    assert "Traceback" not in log


async def test_a_sink_that_waits_for_postgresql_stops_when_told_to(
    sink_settings, tmp_path, unused_tcp_port
):
    away = replace(sink_settings, database_url=f"postgresql://x@127.0.0.1:{unused_tcp_port}/x")
    await asyncio.to_thread(produce, away, updates(range(10), 1))
    log = tmp_path / "sink.log"

    async def waits() -> bool:
        return "Writing to mirt_ability waits" in log.read_text()

    with running_sink(away, tmp_path):
        await eventually(waits, True)
    assert "Traceback" not in log.read_text()
