"""The whole path: trigger, request, client, result and rows, on a real broker and database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from schemas.codec import decode_any, encode
from schemas.outputs import ItemPartial, Watermark
from stream.app import new_app
from stream.calibration.agents import register
from stream.calibration.ask import ask
from stream.calibration.calibrator import Calibrator
from stream.errors import CalibrationError
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.models.registry import KINDS
from stream.settings import Settings
from stream.sinks.consume import read_records
from stream.sinks.models import model_result_reader
from stream.sinks.pool import SinkDatabase
from stream.testing.fake_models import FakeModels, html, killed, slow, status
from tests.calibration.log import DEADLINE_S, results, wait_for, whole
from tests.models.school import AS_OF, FIRST, LEARNERS, WEEKS
from tests.sinks.conftest import make_record

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
async def service() -> AsyncIterator[FakeModels]:
    async with FakeModels().running() as fake:
        yield fake


@pytest.fixture
def settings(settings: Settings, school: Settings, service: FakeModels, tmp_path: Path) -> Settings:
    """A broker where the school's attempts were folded, its tables, and all services."""
    create_topics(settings)
    producer = new_producer(settings)
    week = (FIRST - date(1970, 1, 1)).days + 7 * (WEEKS - 1)
    for topic, record in (
        ("watermarks", Watermark(0, week)),
        ("item-partials", ItemPartial("i", 0, 9, 5, 0.0, 0.0, 8)),
    ):
        producer.produce(settings.topic(topic), encode(record), b"0", 0)
    producer.flush(DEADLINE_S)
    return replace(
        settings,
        **dict.fromkeys([kind.url for kind in KINDS.values()], service.url),
        database_url=school.database_url,
        glmm_schedule="",
        model_schedule="",
        mirt_retry_delay_secs=0.05,
        model_timeout_secs=0.5,
        trigger_cooldown_secs=0.0,
        glmm_update_kpi=True,
        survival_update_kpi=True,
        state_dir=str(tmp_path),
    )


@asynccontextmanager
async def calibrator(settings: Settings) -> AsyncIterator[Calibrator]:
    """Run the role as its process would; nobody asks for calibrations of items."""
    app = new_app("calibrator", settings)
    found = register(app)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await app.start()
        yield found
    finally:
        await app.stop()


async def sink(settings: Settings) -> None:
    """Write what is on calibration-results, from its beginning, as the sink does."""
    records = [
        make_record(r.value(), r.offset(), topic="calibration-results")
        for r in await asyncio.to_thread(whole, settings, "calibration-results")
    ]
    database = SinkDatabase(settings)
    await database.write(read_records(records, model_result_reader(settings)))
    await database.on_stop()


async def fetch(settings: Settings, sql: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(settings.database_url)
    try:
        return list(await connection.fetch(sql, *values))
    finally:
        await connection.close()


async def test_the_schedule_leads_to_rows_in_every_table_once(
    settings: Settings, service: FakeModels
) -> None:
    settings = replace(settings, glmm_schedule="Mon 00:00", model_schedule="Mon 00:00")
    async with calibrator(settings):
        await wait_for(lambda: sum(r["type"] == "model_result" for r in results(settings)) == 5)
        await asyncio.sleep(2.5)
    assert sorted(route for route, _ in service.bodies) == sorted(
        kind.route for kind in KINDS.values()
    )
    for name in ("growth_glmm_meta", "growth_brms_meta", "survival_fit_meta", "segment_meta"):
        assert await fetch(settings, f"select 1 from {name}") == []
    await sink(settings)
    for name in (
        *("growth_glmm_meta", "growth_brms_meta", "prophet_fit_meta", "survival_fit_meta"),
        *("segment_meta", "prophet_anomalies"),
    ):
        (row,) = await fetch(settings, f"select * from {name}")
        assert row["as_of"] == AS_OF
    segments = await fetch(settings, "select * from user_segment order by user_id")
    assert [(s["user_id"], s["segment"]) for s in segments[:2]] == [("u00", "A"), ("u01", "B")]
    assert len(segments) == LEARNERS
    (kpis,) = await fetch(
        settings,
        "select kpis from weekly_kpi where user_id = 'u03' and week_start = $1",
        AS_OF - timedelta(weeks=1),
    )
    found = json.loads(kpis["kpis"])
    assert (found["G_t"], found["S"], found["theirs"], found["A_t"]) == (0.03, 0.25, 7, 0.5)


async def test_a_repeat_of_a_request_fits_nothing_anew(
    settings: Settings, service: FakeModels
) -> None:
    async with calibrator(settings) as found:
        first = await ask(settings, "segments", wait_s=DEADLINE_S)
        again = await ask(settings, "segments", wait_s=DEADLINE_S)
        producer = new_producer(settings)
        for _ in range(3):
            producer.produce(
                settings.topic("calibration-requests"), encode(first.request), b"segments", 0
            )
        producer.flush(DEADLINE_S)
        await wait_for(lambda: found.known.runs.of_kind("segments")[0].offset >= 4)
        await asyncio.sleep(0.5)
    assert again.result is not None
    assert again.request.request_id == first.request.request_id
    assert len(service.bodies) == 1
    assert [r["type"] for r in results(settings)] == ["model_learners", "model_result"]


async def test_faults_leave_one_failed_result_and_the_next_run_succeeds(
    settings: Settings, service: FakeModels
) -> None:
    dates = [AS_OF - timedelta(weeks=n) for n in range(5, -1, -1)]
    async with calibrator(settings):
        first = await ask(settings, "segments", as_of=dates[0], wait_s=DEADLINE_S)
        assert not first.failed
        await sink(settings)
        before = await fetch(settings, "select * from user_segment order by user_id")
        for step, day in zip((killed, slow(3.0), status(500), html), dates[1:], strict=False):
            service.then([step] * 3)
            run = await ask(settings, "segments", as_of=day, wait_s=DEADLINE_S)
            assert run.failed
            service.script.clear()
        await sink(settings)
        assert await fetch(settings, "select * from user_segment order by user_id") == before
        states = await fetch(
            settings, "select metrics ->> 'status' from segment_meta order by as_of"
        )
        assert [row[0] for row in states] == ["succeeded", *["failed"] * 4]
        assert [r["status"] for r in results(settings) if r["type"] == "model_result"] == [
            *("succeeded", "failed", "failed", "failed", "failed")
        ]
        # The same request again, now that the service is well.
        again = await ask(settings, "segments", as_of=dates[4], wait_s=DEADLINE_S)
        assert not again.failed
    await sink(settings)
    after = await fetch(settings, "select distinct run_id, as_of from user_segment")
    assert [(row["run_id"], row["as_of"]) for row in after] == [(again.result.run_id, dates[4])]


async def test_a_slow_model_holds_nothing_else_up(settings: Settings, service: FakeModels) -> None:
    settings = replace(settings, model_timeout_secs=30.0)
    service.then([slow(8.0)])
    async with calibrator(settings) as found:
        slow_one = asyncio.create_task(ask(settings, "growth", wait_s=DEADLINE_S))
        await wait_for(lambda: len(service.bodies) == 1)
        quick = await ask(settings, "forecast", wait_s=DEADLINE_S)
        assert not quick.failed
        assert "growth" in found._running
        assert not (await slow_one).failed


async def test_a_calibrator_that_ends_within_a_fit_is_followed_by_one_that_finishes_it(
    settings: Settings, service: FakeModels
) -> None:
    settings = replace(settings, model_timeout_secs=30.0)
    service.then([slow(30.0)])
    async with calibrator(settings):
        with pytest.raises(CalibrationError, match="not decided within"):
            await ask(settings, "glmm", wait_s=1.0)
        await wait_for(lambda: len(service.bodies) == 1)
    assert results(settings) == []
    async with calibrator(settings):
        await wait_for(lambda: len(results(settings)) == 2)
    assert [r["type"] for r in results(settings)] == ["model_learners", "model_result"]
    assert len(whole(settings, "calibration-requests")) == 1


async def test_two_dates_of_a_kind_are_fitted_one_after_the_other(
    settings: Settings, service: FakeModels
) -> None:
    days = [AS_OF - timedelta(weeks=1), AS_OF]
    for day in days:
        await ask(settings, "survival", as_of=day)
    async with calibrator(settings):
        await wait_for(lambda: sum(r["type"] == "model_result" for r in results(settings)) == 2)
    told = [r for r in results(settings) if r["type"] == "model_result"]
    assert [(r["as_of"], r["status"]) for r in told] == [
        (day.isoformat(), "succeeded") for day in days
    ]


async def test_a_request_nobody_knows_is_passed_over(settings: Settings) -> None:
    producer = new_producer(settings)
    for value in (b'{"kind": "weather"}', b'{"kind": "glmm"}', b'{"kind": "irt", "as_of": "x"}'):
        producer.produce(settings.topic("calibration-requests"), value, b"x", 0)
    producer.flush(DEADLINE_S)
    async with calibrator(settings):
        run = await ask(settings, "glmm", wait_s=DEADLINE_S)
    assert not run.failed
    assert decode_any(encode(run.request))["kind"] == "glmm"
