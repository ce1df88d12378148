"""The supervisor of the roles, with tiny children in their place."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from stream.errors import LocalStackError
from stream.local.supervise import RoleSupervisor

LIVES = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(60)"
)

CHILD = """
import signal, sys, time
def end(*_):
    print("flushed", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def supervise(tmp_path):
    def make(codes, **options):
        events = []
        supervisor = RoleSupervisor(
            list(codes),
            env=dict(os.environ),
            log_dir=tmp_path / "log",
            run_dir=tmp_path / "run",
            command=lambda role: [sys.executable, "-c", codes[role]],
            backoff_s=options.pop("backoff_s", (0.1, 0.3)),
            report=lambda role, what: events.append((role, what)),
            **options,
        )
        return supervisor, events

    return make


def wait_until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def test_a_failing_role_starts_again_with_growing_waits_while_the_others_go_on(supervise):
    supervisor, events = supervise(
        {"engine": LIVES, "sink": "print('no database'); raise SystemExit(7)"}
    )
    with supervisor.running():
        wait_until(lambda: supervisor.pid("engine"))
        engine = supervisor.pid("engine")
        wait_until(lambda: sum("failed" in what for role, what in events if role == "sink") >= 3)
        assert supervisor.pid("engine") == engine
    failures = [what for role, what in events if role == "sink" and "failed" in what]
    assert "exit 7" in failures[0]
    assert "no database" in failures[0]
    assert [what.split(" in ")[1].split(" s.")[0] for what in failures[:3]] == ["0.1", "0.3", "0.3"]
    assert not psutil.pid_exists(engine)


def test_a_killed_role_starts_again_under_another_pid(supervise):
    supervisor, events = supervise({"engine": LIVES})
    with supervisor.running():
        wait_until(lambda: supervisor.pid("engine"))
        first = supervisor.pid("engine")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: supervisor.pid("engine") not in (None, first))
    assert any("signal SIGKILL" in what for _, what in events)


def test_all_roles_ending_well_ends_the_supervisor(supervise):
    supervisor, events = supervise({"engine": "pass", "sink": "pass"})
    assert supervisor.run() == 0
    assert sorted(events)[0] == ("engine", "ended (exit 0)")
    assert not list(supervisor.run_dir.glob("*.pid"))


def test_a_role_that_does_not_end_is_killed_after_the_grace_period(supervise):
    supervisor, events = supervise({"engine": STUBBORN}, grace_s=0.3)
    with supervisor.running():
        wait_until(
            lambda: (
                (supervisor.log_dir / "engine.log").exists()
                and "deaf" in (supervisor.log_dir / "engine.log").read_text()
            )
        )
        pid = supervisor.pid("engine")
    assert ("engine", "had not ended in time and was killed") in events
    assert not psutil.pid_exists(pid)


def test_roles_left_by_a_killed_supervisor_are_ended_by_the_next(supervise):
    supervisor, events = supervise({"engine": LIVES})
    supervisor.run_dir.mkdir()
    orphan = subprocess.Popen([sys.executable, "-c", LIVES])
    from stream.local.processes import ProcessRecord

    ProcessRecord.of(orphan.pid, supervisor.run_dir).save(supervisor.run_dir / "engine.pid")
    with supervisor.running():
        orphan.wait(10)
        wait_until(lambda: supervisor.pid("engine") not in (None, orphan.pid))
    assert any("left by an earlier run" in what for _, what in events)


def test_a_second_supervisor_in_the_same_directory_is_refused(supervise):
    first, _ = supervise({"engine": LIVES})
    second, _ = supervise({"engine": LIVES})
    with first.running():
        wait_until(lambda: first.pid("engine"))
        with pytest.raises(LocalStackError, match="already run under another command"):
            second.run()
        assert first.pid("engine") is not None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_roles_as_one_orderly_end(tmp_path, how):
    # The foreground form is tried as it is used: in a process of its own, by a signal.
    runner = textwrap.dedent(
        f"""
        import os, sys
        from pathlib import Path
        from stream.local.supervise import run_roles
        sys.exit(run_roles(
            ["engine"], env=dict(os.environ),
            log_dir=Path({str(tmp_path / "log")!r}), run_dir=Path({str(tmp_path / "run")!r}),
            command=lambda role: [sys.executable, "-c", {CHILD!r}],
        ))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", runner], cwd=Path(__file__).parents[2])
    log = tmp_path / "log" / "engine.log"
    wait_until(lambda: log.exists() and "ready" in log.read_text())
    process.send_signal(how)
    assert process.wait(10) == 0
    assert log.read_text() == "ready\nflushed\n"
    assert not (tmp_path / "run" / "engine.pid").exists()
