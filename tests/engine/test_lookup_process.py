"""The process that answers an engine's lookups, as it lives and dies with the engine."""

from __future__ import annotations

import os
import signal
import socket

import httpx
import psutil
import pytest

from tests.engine.conftest import Cluster, EngineProcess, wait_for
from tests.engine.test_engine import recent

pytestmark = pytest.mark.integration


def lookup_process(engine: EngineProcess) -> psutil.Process:
    (child,) = psutil.Process(engine.process.pid).children()
    assert "stream.lookup" in child.cmdline()
    return child


def test_an_engine_whose_lookups_are_gone_ends_with_a_message(cluster: Cluster) -> None:
    engine = cluster.start().wait_ready()
    os.kill(lookup_process(engine).pid, signal.SIGKILL)
    assert engine.process.wait(30) == 1
    assert "The process that answers lookups ended with -9" in engine.text()


def test_lookups_end_with_an_engine_that_is_killed_and_leave_its_port(cluster: Cluster) -> None:
    engine = cluster.start().wait_ready()
    child, port = lookup_process(engine), httpx.URL(engine.url).port
    os.kill(engine.process.pid, signal.SIGKILL)
    engine.process.wait(10)
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert port is not None
    socket.create_server(("127.0.0.1", port)).close()


def test_an_engine_that_ends_in_order_leaves_no_process(cluster: Cluster) -> None:
    engine = cluster.start().wait_ready()
    child = lookup_process(engine)
    assert engine.end() == 0
    assert not child.is_running()


def test_a_paused_engine_is_looked_up_until_its_session_is_over(cluster: Cluster) -> None:
    engine = cluster.start().wait_ready()
    cluster.send([recent("a"), recent("b", user_id="u2")])
    url = engine.url
    for user in ("u1", "u2"):
        wait_for(lambda user=user: httpx.get(f"{url}/theta/{user}").status_code == 200)
    engine.send_signal(signal.SIGSTOP)
    try:
        assert httpx.get(f"{url}/theta/u1").json()["source"] == "live"
        # There is no PostgreSQL here, which would be asked instead.
        wait_for(lambda: httpx.get(f"{url}/theta/u1").status_code == 503)
        health = httpx.get(f"{url}/readyz", timeout=30)
        assert health.status_code == 503
        assert health.json()["reason"] == "the engine does not answer"
    finally:
        engine.send_signal(signal.SIGCONT)
    wait_for(
        lambda: (
            engine.process.poll() is not None
            or httpx.get(f"{url}/theta/u1", timeout=30).status_code == 200
        ),
        ignore=httpx.HTTPError,
    )
    assert engine.process.poll() in (None, 1)
