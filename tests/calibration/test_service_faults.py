"""A calibration service in trouble: one failed result each time, the old parameters, then a fit."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from stream.app import new_app
from stream.calibration.agents import register
from stream.calibration.ask import ask
from stream.calibration.fitting import service_fitter
from stream.kafka.admin import create_topics
from stream.settings import Settings
from stream.testing.fake_r_irt import FakeRIrt, good_calibration, html, json_text, status, timeout
from tests.calibration.log import DEADLINE_S, ITEMS, respond, results, wait_for, whole

pytestmark = pytest.mark.integration

TRIES = 3


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Topics are there; a calibration is due with 500 responses, and no other by itself."""
    create_topics(settings)
    return replace(
        settings,
        trigger_responses=500,
        trigger_cooldown_secs=3600.0,
        provisional_secs=60.0,
        mirt_max_retries=TRIES,
        mirt_retry_delay_secs=0.01,
        database_url="postgresql://127.0.0.1:1/none",
        state_dir=str(tmp_path),
    )


def killed(request: httpx.Request) -> httpx.Response:
    """End in mid-fit, as a process that is killed does."""
    raise httpx.RemoteProtocolError("server disconnected", request=request)


def spoilt(change: Callable[[dict[str, Any]], object]) -> Callable[[httpx.Request], httpx.Response]:
    """Answer with what ``change`` left of a good answer; json writes NaN as NaN."""
    items, users = [f"i{n}" for n in range(ITEMS)], ["u0-0"] * ITEMS
    answer = good_calibration({"observations": {"item_id": items, "user_id": users}})
    change(answer)
    return json_text(json.dumps(answer))


FAULTS = {
    # What happens: the fault, the tries it takes, what the result says of it.
    "killed in mid-fit": (killed, TRIES, "server disconnected (try 3 of 3, the last)"),
    "past the time-out": (timeout, TRIES, "did not answer within 300 s (try 3 of 3, the last)"),
    "500": (status(500, "out of memory"), TRIES, "answered 500: out of memory"),
    "429": (status(429, "come back", Retry_After="0.02"), TRIES, "answered 429: come back"),
    "truncated": (json_text('{"status": "succeeded", "item_par'), 1, "not the contract's"),
    "a web page": (html, 1, "not the contract's"),
    "NaN": (
        spoilt(lambda r: r["item_params"][0]["params"].update(a=float("nan"))),
        *(1, "not the contract's"),
    ),
    "an unknown item": (
        spoilt(lambda r: r["item_params"][0].update(item_id="i99")),
        *(1, "1 items that were not"),
    ),
}


async def test_every_fault_leaves_one_failed_result_and_the_old_parameters_until_the_next_fit(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stream.service_client")
    fake = FakeRIrt(accepts=("rows", "columns"))
    respond(settings)
    app = new_app("calibrator", settings)
    script: list[Callable[[httpx.Request], httpx.Response]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and script:
            fake.requests.append(request)
            return script.pop(0)(request)
        return fake.transport.handler(request)  # type: ignore[return-value]

    found = register(app, service_fitter(settings, httpx.MockTransport(answer)))
    try:
        async with asyncio.timeout(DEADLINE_S):
            await app.start()
        await wait_for(lambda: found.known.params.calibrated_version != "none")
        version, items = found.known.params.calibrated_version, dict(found.known.params.items)
        abilities = len(await asyncio.to_thread(whole, settings, "batch-abilities"))
        for name, (fault, tries, told) in FAULTS.items():
            script[:] = [fault] * 9
            before = await asyncio.to_thread(results, settings)
            sent = len(fake.requests)
            caplog.clear()
            run = await ask(settings, wait_s=DEADLINE_S)
            after = await asyncio.to_thread(results, settings)
            assert [(r["type"], r["status"]) for r in after[len(before) :]] == [
                ("result", "failed")
            ], name
            assert run.failed, name
            assert told in after[-1]["error"], name
            assert len(fake.requests) - sent == tries, name
            logged = [r.getMessage() for r in caplog.records if "POST /irt" in r.getMessage()]
            assert sum("trying again" in line for line in logged) == tries - 1, name
            assert found.known.params.calibrated_version == version, name
            assert found.known.params.items == items, name
        assert len(await asyncio.to_thread(whole, settings, "batch-abilities")) == abilities
        script.clear()
        run = await ask(settings, wait_s=DEADLINE_S)
        assert run.outcome is not None
        assert run.outcome.status == "applied"
        await wait_for(lambda: found.known.params.calibrated_version != version)
    finally:
        await app.stop()
