"""A calibrator process killed within a fit: the next one finishes what it began."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests.calibration.log import DEADLINE_S, manifests, respond, result_types, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@asynccontextmanager
async def service(fit: Callable[[dict[str, list[str]]], object]) -> AsyncIterator[str]:
    """Serve the calibration contract; yields the base URL."""

    async def calibrate(request: web.Request) -> web.Response:
        body = await request.json()
        answer = fit(body["observations"])
        if answer is None:
            await asyncio.sleep(DEADLINE_S)
        return web.json_response(answer)

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "observations": ["rows", "columns"]})

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/irt/calibrate", calibrate)
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def answer(observations: dict[str, list[str]]) -> object:
    items, learners = sorted(set(observations["item_id"])), sorted(set(observations["user_id"]))
    return {
        "status": "ok",
        "item_params": [
            {"item_id": i, "params": {"a": 1.0, "b": 0.5, "c": 0.0}, "se": {"a": 0.1, "b": 0.1}}
            for i in items
        ],
        "abilities": [{"user_id": u, "theta": 0.0, "se": 0.5} for u in learners],
        "fit_meta": {"run_id": "r", "metrics": {"converged": True}},
    }


async def test_a_killed_calibrator_is_followed_by_one_that_finishes_its_run(
    settings: Settings, tmp_path: Path
) -> None:
    create_topics(settings)
    respond(settings)
    calls: list[int] = []

    def fit(observations: dict[str, list[str]]) -> object:
        calls.append(len(observations["item_id"]))
        return None if len(calls) == 1 else answer(observations)

    async with service(fit) as url:
        first = start(settings, url, tmp_path / "first.log")
        try:
            await wait_for(lambda: len(calls) == 1 or first.poll() is not None)
            assert first.poll() is None, (tmp_path / "first.log").read_text()
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        assert result_types(settings) == []
        second = start(settings, url, tmp_path / "second.log")
        try:
            await wait_for(lambda: "outcome" in result_types(settings))
            second.send_signal(signal.SIGTERM)
            status = await asyncio.to_thread(second.wait, DEADLINE_S)
        finally:
            second.kill()
    assert status == 0, (tmp_path / "second.log").read_text()
    assert calls == [600, 600]
    assert result_types(settings) == ["abilities", "result", "outcome"]
    assert [m.kind for m in manifests(settings) if m.kind == "calibrated"] == ["calibrated"]


def start(settings: Settings, url: str, log: Path) -> subprocess.Popen[bytes]:
    settings = replace(settings, r_irt_base_url=url)
    environment = {
        **os.environ,
        "KAFKA_BROKER": settings.kafka_broker,
        "THETASTREAM_TOPIC_PREFIX": settings.topic_prefix,
        "THETASTREAM_PARTITIONS": str(settings.partitions),
        "THETASTREAM_SESSION_TIMEOUT_SECS": str(settings.session_timeout_secs),
        "THETASTREAM_TRIGGER_RESPONSES": "500",
        "THETASTREAM_WEB_PORT": "0",
        "THETASTREAM_STATE_DIR": str(log.parent),
        "DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "R_IRT_BASE_URL": url,
    }
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "stream", "run", "--role", "calibrator"],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parent.parent.parent,
        )
