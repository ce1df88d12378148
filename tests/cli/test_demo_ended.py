"""``thetastream demo`` broken off in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest


def of_demo(state_dir: Path) -> list[psutil.Process]:
    """Return the processes that work in a state directory."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(str(state_dir) in word for word in words) and process.pid != os.getpid():
            found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_broken_off_leaves_nothing_running(
    tmp_path: Path, how: signal.Signals
) -> None:
    state_dir = tmp_path / "state"
    tmp_path.chmod(0o711)
    demo = subprocess.Popen(
        [sys.executable, "-m", "stream", "demo", "--learners", "60", "--attempts", "3000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "THETASTREAM_STATE_DIR": str(state_dir), "PYTHONUNBUFFERED": "1"},
        # A shell that runs the tests in the background leaves SIGINT ignored, also in children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("sink: started"):
            break
    else:
        pytest.fail("the roles never started")
    assert len(of_demo(state_dir)) >= 6
    demo.send_signal(how)
    demo.communicate(timeout=90)
    assert demo.returncode != 0
    assert [one for one in of_demo(state_dir) if one.status() != psutil.STATUS_ZOMBIE] == []
