"""/healthz and /readyz tell the truth, whatever is the matter; nothing hangs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream.local.stack import Stack
from tests.engine.conftest import environment, wait_for
from tests.faults.roles import RoleProcess, Roles
from tests.faults.servers import silent, stopped

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ALL = ("engine", "calibrator", "sink")


def expect_503(one: RoleProcess, path: str) -> str:
    """A path answers 503, says when to come again, and why; return the answer."""
    response = one.get(path)
    assert response is not None
    assert response.status_code == 503, f"{one.role} {path}: {response.status_code}"
    assert int(response.headers["Retry-After"]) >= 1
    return response.text


def start_all(roles: Roles) -> list[RoleProcess]:
    return [one.wait_ready() for one in [roles.start(role) for role in ALL]]


def test_while_the_broker_is_silent_all_are_alive_and_not_ready_and_lookups_go_on(
    breakable: Stack, roles: Roles
) -> None:
    processes = start_all(roles)
    roles.send(500)
    roles.wait_counted(500)
    with silent(breakable.kafka):
        for one in processes:
            one.wait_status("/readyz", 503)
            assert "consumer group was not heard of" in expect_503(one, "/readyz")
        for one in processes:
            assert one.status("/healthz") == 200
        looked_up = processes[0].get("/theta/u1")
        assert looked_up is not None
        assert looked_up.json()["source"] == "live"
    for one in processes:
        one.wait_ready()
    roles.send(500)
    roles.wait_counted(1000)
    assert all(one.process.poll() is None for one in processes)


def test_while_postgresql_is_away_only_the_sink_is_not_ready(
    breakable: Stack, roles: Roles
) -> None:
    engine, calibrator, sink = start_all(roles)
    with stopped(breakable.postgres):
        roles.send(500)
        roles.wait_counted(500)
        sink.wait_status("/readyz", 503)
        assert "PostgreSQL" in expect_503(sink, "/readyz")
        assert sink.status("/healthz") == 200
        for other in (engine, calibrator):
            assert (other.status("/healthz"), other.status("/readyz")) == (200, 200)
        found = engine.get("/theta/u1")
        assert found is not None
        assert found.json()["n"] == 10
        # A learner of whom only PostgreSQL could know.
        assert "PostgreSQL does not answer" in expect_503(engine, "/theta/nobody")
    sink.wait_ready()
    wait_for(lambda: engine.status("/theta/nobody") == 404)


def test_an_engine_that_recovers_answers_503_until_it_has_all_learners(roles: Roles) -> None:
    first = roles.start("engine").wait_ready()
    roles.send(500)
    roles.wait_counted(500)
    first.kill()
    # Until the group has given the first up for dead, the second waits for its partitions.
    second = roles.start("engine")
    second.wait_status("/healthz", 200)
    expect_503(second, "/readyz")
    expect_503(second, "/theta/u1")
    second.wait_ready()
    answers = [second.get(f"/theta/u{n}") for n in range(50)]
    assert [answer.json()["n"] for answer in answers if answer is not None] == [10] * 50


def test_an_engine_that_wakes_after_others_took_over_is_not_ready_before_it_has_rejoined(
    roles: Roles,
) -> None:
    # It holds changes that it has not flushed when it is stopped.
    sleeper = roles.start("engine", flush_interval_secs=60.0).wait_ready()
    roles.send(500)
    wait_for(lambda: _n(sleeper, "u1") == 10)
    sleeper.process.send_signal(signal.SIGSTOP)
    other = roles.start("engine")
    assert sleeper.status("/healthz") != 200
    other.wait_ready()
    roles.wait_counted(500)
    sleeper.process.send_signal(signal.SIGCONT)
    # It has not heard of its group for longer than the session lasts.
    assert sleeper.status("/readyz") != 200
    wait_for(lambda: sleeper.process.poll() is not None or sleeper.status("/readyz") == 200)
    assert sleeper.process.poll() in (None, 1)
    roles.send(500)
    roles.wait_counted(1000)
    learners = [f"u{n}" for n in range(50)]
    wait_for(lambda: all(_n(other, u) == 20 or _n(sleeper, u) == 20 for u in learners))
    if sleeper.process.poll() is None:
        assert all((_n(other, u) is None) != (_n(sleeper, u) is None) for u in learners)


@pytest.mark.parametrize("role", ["engine", "sink"])
def test_a_role_whose_agent_raises_ends_with_an_error_and_the_next_one_misses_nothing(
    roles: Roles, role: str, tmp_path: Path
) -> None:
    good = {one.role: one for one in start_all(roles)}
    roles.send(500)
    roles.wait_counted(500)
    good[role].process.terminate()
    assert good[role].wait_end(10.0) == 0
    script = Path(__file__).parent / "poisoned.py"
    with (tmp_path / "poisoned.log").open("wb") as out:
        poisoned = subprocess.Popen(
            [sys.executable, str(script), role],
            env={**environment(roles.settings), "PYTHONPATH": str(script.parents[2])},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        time.sleep(2.0)
        roles.send(500)
        assert poisoned.wait(60) == 1
    finally:
        poisoned.kill()
    assert "a poisoned record" in (tmp_path / "poisoned.log").read_text()
    roles.start(role).wait_ready()
    roles.wait_counted(1000)
    roles.wait_in_tables(1000)


def _n(one: RoleProcess, user_id: str) -> int | None:
    """Return a learner's attempts if this engine holds it."""
    response = one.get(f"/theta/{user_id}")
    if response is None or not response.is_success or response.json()["source"] != "live":
        return None
    n: int = response.json()["n"]
    return n
