"""Other engines: their environments, and a run of one of them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.meter import Figure, Measured, Meter
from bench.meter import Job as JobName
from bench.peers.shared.small_job import Job

__all__ = ["HOME", "PEERS", "Peer", "PeerMissingError", "python_command", "run_peer"]

PEERS = Path(__file__).parent / "peers"
HOME = Path(__file__).parents[1] / ".local" / "bench"
"""Environments and downloads of the peers; ``make clean`` removes it."""

_INSTALL_S = 600.0


class PeerMissingError(Exception):
    """A peer could not be set up here, or failed; its line stays empty."""


@dataclass(frozen=True)
class Peer:
    """An engine to compare with.

    Attributes
    ----------
    engine
        Its name in the results.
    version
        Which release.
    job
        ``small``, or ``read`` for the limit of reading.
    prepare
        Sets it up and returns the command that the job's JSON is appended to.
    most_events
        It folds at most this many, or None; a slow one would take all the time.
    """

    engine: str
    version: str
    job: JobName
    prepare: Callable[[], list[str]]
    most_events: int | None = None

    @property
    def slug(self) -> str:
        """The name in the form that topics and files may have."""
        return re.sub(r"[^a-z0-9]+", "-", self.engine.lower()).strip("-")


def python_command(name: str, program: str = "peer.py") -> list[str]:
    """Set up the environment of a Python peer and return the command of one of its programs.

    One with a ``requirements.txt`` gets an environment of its own, made once: the versions that
    peers want exclude ours. One without runs in ours.

    Raises
    ------
    PeerMissingError
        The environment cannot be made.
    """
    script = str(PEERS / name / program)
    requirements = PEERS / name / "requirements.txt"
    if not requirements.exists():
        return [sys.executable, script]
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    venv = HOME / "venvs" / f"{name}-py{python}-{digest}"
    interpreter = venv / "bin" / "python"
    if not (venv / "complete").exists():
        shutil.rmtree(venv, ignore_errors=True)
        print(f"  setting up {name} in {os.path.relpath(venv)}", flush=True)
        if shutil.which("uv"):
            _install("uv", "venv", "--quiet", "--python", sys.executable, str(venv))
            _install(
                *("uv", "pip", "install", "--quiet", "--python", str(interpreter)),
                *("-r", str(requirements)),
            )
        else:
            _install(sys.executable, "-m", "venv", str(venv))
            _install(str(interpreter), "-m", "pip", "install", "--quiet", "-r", str(requirements))
        (venv / "complete").touch()
    return [str(interpreter), script]


def _install(*command: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissingError(f"`{' '.join(command)}` failed: {error}") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise PeerMissingError(f"`{' '.join(command[:4])} ...` failed: {' '.join(last)}")


def run_peer(
    peer: Peer,
    *,
    broker: str,
    topic: str,
    partitions: int,
    events: int,
    learners: int,
    theta_sum: float,
    timeout_s: float = 900.0,
) -> Figure:
    """Let a peer fold a topic once.

    Parameters
    ----------
    events
        Attempts in the topic.
    theta_sum
        What the sum of theta has to be after all of them.

    Raises
    ------
    PeerMissingError
        It could not be set up, ended early, took too long, or its state is wrong.
    """
    command = peer.prepare()
    count = min(events, peer.most_events or events)
    with tempfile.TemporaryDirectory(prefix=f"bench-{peer.slug}-") as directory:
        state = Path(directory) / "state"
        state.mkdir()
        name = f"{peer.slug}-{os.getpid()}-{learners}"
        job = Job(broker, topic, name, count, partitions, str(state))
        with (Path(directory) / "log").open("w+") as log:
            measured, found = _follow([*command, json.dumps(asdict(job))], log.fileno(), timeout_s)
            if measured is None:
                log.seek(0)
                lines = log.read().strip().splitlines()[-1:]
                raise PeerMissingError(f"it ended before its work did: {' '.join(lines)}")
    whole = found is not None and count == events
    if whole and not math.isclose(found or 0.0, theta_sum, rel_tol=1e-6, abs_tol=1e-6):
        raise PeerMissingError(
            f"its thetas have the sum {found}, expected {theta_sum}: its state is wrong, so its "
            "speed does not count"
        )
    return Figure.of(
        measured,
        count,
        engine=peer.engine,
        job=peer.job,
        learners=learners,
        version=peer.version,
    )


def _follow(command: list[str], log: int, timeout_s: float) -> tuple[Measured | None, float | None]:
    """Run a peer and measure from its ``begin`` to its ``end``."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PEERS / "shared")},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    watchdog = threading.Timer(timeout_s, process.kill)
    watchdog.start()
    meter = Meter(process.pid)
    measured: Measured | None = None
    theta_sum: float | None = None
    try:
        for line in process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "begin":
                meter.begin()
            elif word == "end" and meter.running:
                measured = meter.end()
                theta_sum = json.loads(rest)["theta_sum"]
                break
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    return measured, theta_sum
