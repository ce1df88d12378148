"""The R service of item calibration when a fit is slow, huge, killed, or one too many."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from stream.calibration.contract import CalibrateRequest
from tests.r.answers import as_json, by_item, calibrate, simulate

pytestmark = pytest.mark.r


@pytest.fixture(scope="module")
def one_worker(start_r):
    """The service with one worker."""
    return start_r("irt", R_SERVICE_WORKERS="1")


@cache
def slow_body():
    """A fit of well above five seconds."""
    columns, _, _ = simulate(8, 6000, 120, c=0.2)
    return gzip.compress(json.dumps(as_json(columns, model="3PL", run_id="slow")).encode(), 1)


def in_background(service, body):
    """Post the body from a thread; its answer is appended to the list."""
    answers = []

    def post():
        answers.append(service.post("/irt/calibrate", body, **{"Content-Encoding": "gzip"}))

    thread = threading.Thread(target=post)
    thread.start()
    return thread, answers


def busy_worker(service):
    """Wait until a fit is well under way; its process id: the one that has used most time."""
    until = time.monotonic() + 60
    while service.get("/healthz").json()["fitting"] == 0:
        assert time.monotonic() < until, "the fit did not start"
        time.sleep(0.05)
    time.sleep(2.0)

    def used(pid):
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(stat[11]) + int(stat[12])

    return max(service.workers(), key=used)


def test_health_answers_within_a_second_during_a_slow_fit(one_worker):
    service, body = one_worker, slow_body()
    started = time.monotonic()
    thread, answers = in_background(service, body)
    waits = []
    while thread.is_alive():
        asked = time.monotonic()
        fitting = service.get("/healthz").json()["fitting"]
        waits.append((time.monotonic() - asked, fitting))
        time.sleep(0.1)
    assert answers[0].status_code == 200, answers[0].text
    assert time.monotonic() - started > 5.0
    assert max(wait for wait, _ in waits) < 1.0
    assert sum(fitting == 1 for _, fitting in waits) >= 10
    logged = [line for line in service.log_lines() if line.get("run_id") == "slow"]
    assert [(line["path"], line["status"], line["rows"]) for line in logged] == [
        ("/irt/calibrate", 200, 720_000)
    ]
    assert logged[0]["ms"] > 5000


def test_a_worker_killed_in_mid_fit_costs_that_request_only(one_worker):
    service = one_worker
    thread, answers = in_background(service, slow_body())
    os.kill(busy_worker(service), signal.SIGKILL)
    thread.join(60)
    assert answers[0].status_code == 500
    assert "died" in answers[0].json()["error"]
    columns, _, _ = simulate(1, 60, 5)
    assert service.post("/irt/calibrate", as_json(columns)).status_code == 200


def test_too_many_requests_are_told_to_come_back(start_r):
    service = start_r("irt", R_SERVICE_WORKERS="1")
    body = slow_body()
    fits = [in_background_quietly(service, body) for _ in range(2)]
    until = time.monotonic() + 60
    while service.get("/healthz").json()["fitting"] < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    answer = service.post("/irt/calibrate", b"{}")
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "10"
    service.end(signal.SIGKILL)
    for thread, _ in fits:
        thread.join(60)


def test_a_body_above_the_limit_is_answered_413_also_when_it_was_small_on_the_wire(start_r):
    service = start_r("irt", R_SERVICE_MAX_BODY_MIB="1", R_SERVICE_WORKERS="1")
    big = b" " * 2**21
    for body, headers in ((big, {}), (gzip.compress(big), {"Content-Encoding": "gzip"})):
        answer = service.post("/irt/calibrate", body, **headers)
        assert answer.status_code == 413
        assert "too large" in answer.json()["error"]


def test_a_refusal_is_read_by_a_client_that_is_still_sending(start_r):
    """Closing on unread bytes resets the connection: one answer in three was lost."""
    service = start_r("irt", R_SERVICE_MAX_BODY_MIB="4", R_SERVICE_WORKERS="1")
    for _ in range(10):
        assert service.post("/irt/calibrate", b" " * 7_000_000).status_code == 413
        answer = service.post("/irt/calibrate", b" " * 900_000, Authorization="Bearer wrong")
        assert answer.status_code == 401


def test_a_fit_that_takes_too_long_is_ended(start_r):
    service = start_r("irt", R_SERVICE_FIT_TIMEOUT_SECS="2", R_SERVICE_WORKERS="1")
    answer = service.post("/irt/calibrate", slow_body(), **{"Content-Encoding": "gzip"})
    assert answer.status_code == 500
    assert "R_SERVICE_FIT_TIMEOUT_SECS" in answer.json()["error"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_however_the_service_ends(start_r, how):
    service = start_r("irt")
    thread, _ = in_background_quietly(service, slow_body())
    busy_worker(service)
    children = service.workers()
    assert children
    service.end(how)
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in children):
        assert time.monotonic() < until, "workers outlive their service"
        time.sleep(0.1)
    thread.join(60)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def in_background_quietly(service, body):
    """As `in_background`, where the service may be gone before it answers."""
    errors = []

    def post():
        try:
            service.post("/irt/calibrate", body, **{"Content-Encoding": "gzip"})
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    return thread, errors


@pytest.mark.slow
async def test_a_million_observations_stay_below_4_gib_on_either_side(one_worker):
    service = one_worker
    columns, _, b = simulate(20, 20_000, 500, 50)
    most = [0]
    done = threading.Event()

    def watch():
        while not done.wait(0.2):
            most[0] = max([most[0], *(resident_kib(pid) for pid in service.workers())])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        response = await calibrate(service, CalibrateRequest(columns))
    finally:
        done.set()
        watcher.join()
    assert response.fit_meta.metrics["converged"] is True
    assert response.fit_meta.metrics["n_responses"] == 1_000_000
    estimates = by_item(response)
    assert np.mean([abs(estimates[f"q{j}"].params.b - b[j]) for j in range(500)]) < 0.1
    assert 100_000 < most[0] < 4 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20


def resident_kib(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
