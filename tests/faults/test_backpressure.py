"""PostgreSQL away under load: memory is bounded, lookups live, all is there afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from faust.types import TP

from schemas.codec import encode
from schemas.outputs import ThetaUpdate
from stream import sinks
from stream.app import new_app
from stream.kafka import transport
from stream.kafka.clients import new_producer
from stream.local.stack import Stack
from stream.settings import Settings
from tests.engine.conftest import wait_for
from tests.faults.roles import Roles
from tests.faults.servers import stopped

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SENT = 100_000


async def test_a_sink_without_postgresql_stops_taking_records_at_its_bound(
    fault_settings: Settings, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0

    class Counting(transport.RecordBatch):
        def __init__(self, tp: TP, records: Sequence[Any]) -> None:
            nonlocal taken
            taken += len(records)
            super().__init__(tp, records)

    monkeypatch.setattr(transport, "RecordBatch", Counting)
    away = f"postgresql://x@127.0.0.1:{unused_tcp_port}/x"
    settings = dataclasses.replace(fault_settings, database_url=away)
    await asyncio.to_thread(_send_thetas, settings)
    app = new_app("sink", settings)
    sinks.register(app)
    bound = (app.conf.stream_buffer_maxsize + 4) * app.conf.broker_max_poll_records
    assert bound < SENT / 2
    async with app:
        before = -1
        async with asyncio.timeout(120):
            # Until nothing more is taken for some seconds.
            while taken == 0 or taken != before:
                before = taken
                await asyncio.sleep(5.0)
    assert 0 < taken <= bound


def _send_thetas(settings: Settings) -> None:
    producer = new_producer(settings)
    topic = settings.topic("theta-updates")
    for n in range(SENT):
        update = ThetaUpdate(f"u{n}", 0.5, 0.4, 3, 2, 900, "v1", [], 0, n, 1000)
        producer.produce(topic, encode(update), update.user_id.encode(), 0)
        producer.poll(0)
    assert producer.flush(60) == 0


def test_while_postgresql_is_away_attempts_are_folded_and_their_rows_come_afterwards(
    breakable: Stack, roles: Roles
) -> None:
    engine = roles.start("engine").wait_ready()
    sink = roles.start("sink").wait_ready()
    roles.send(1000)
    roles.wait_in_tables(1000)
    with stopped(breakable.postgres):
        roles.send(20_000)
        roles.wait_counted(21_000)
        found = engine.get("/theta/u1")
        assert found is not None
        assert found.json()["n"] == 21_000 // 50
        assert engine.status("/readyz") == 200
        wait_for(lambda: sink.status("/readyz") == 503)
        assert sink.status("/healthz") == 200
    roles.wait_in_tables(21_000)
    sink.wait_ready()
