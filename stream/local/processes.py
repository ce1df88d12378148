"""Processes that outlive the command that started them, found again and ended exactly.

A process is known by its pid together with its start time, both kept in a record file, so that
a pid that the operating system has given to somebody else is never signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from stream.errors import LocalStackError

PORT_RANGE = range(20_000, 30_000)
"""Ports to choose from. Below the ephemeral ranges of Linux (32768-60999) and macOS
(49152-65535): a port from inside those may serve somebody's outgoing connection just when a
stopped server wants it back."""

START_TIME_TOLERANCE_S = 2.0
"""psutil derives start times from the boot time, which moves a little when the clock is set."""

LOG_TAIL_LINES = 25
"""How much of a server's log an error message carries."""


@dataclass(frozen=True)
class ProcessRecord:
    """Which process was started.

    Attributes
    ----------
    pid, started
        Process id and start time in Unix seconds; together they name one process.
    home
        The directory it serves: a record in a copied directory speaks of the original's process.
    """

    pid: int
    started: float
    home: str

    def process(self) -> psutil.Process | None:
        """Return the living process of this record, or None (ended, zombie, or pid reused)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) <= START_TIME_TOLERANCE_S
            alive = same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None

    def save(self, path: Path) -> None:
        """Write the record so that a reader never sees half of it."""
        write_atomically(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> ProcessRecord | None:
        """Read a record; None when there is none or a crash left it unreadable."""
        try:
            raw = json.loads(path.read_text())
            return cls(int(raw["pid"]), float(raw["started"]), str(raw["home"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @classmethod
    def of(cls, pid: int, home: Path) -> ProcessRecord:
        """Describe a running process.

        Raises
        ------
        LocalStackError
            It has already ended.
        """
        try:
            return cls(pid, psutil.Process(pid).create_time(), str(home))
        except psutil.NoSuchProcess as err:
            raise LocalStackError(f"process {pid} for {home} ended at once") from err


def spawn_detached(
    command: Sequence[str],
    *,
    log: Path,
    record: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
) -> None:
    """Start a process in a session of its own, so that neither Ctrl-C nor our end reaches it.

    The log of the run before is kept beside the new one with the suffix `.1`.

    Parameters
    ----------
    command
        Absolute path of the program and its arguments.
    log
        Receives standard output and standard error.
    record
        Where the `ProcessRecord` goes.
    cwd
        The directory it serves, and its working directory.
    env
        Its whole environment; None inherits ours.
    """
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_name(log.name + ".1"))
    with log.open("wb") as out:
        try:
            child = subprocess.Popen(  # noqa: S603 - the command is ours
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=cwd,
                env=None if env is None else dict(env),
            )
        except OSError as err:
            raise LocalStackError(f"{command[0]} could not be started: {err}") from err
    ProcessRecord.of(child.pid, cwd).save(record)
    # It is not ours to wait for any more: without this, Popen warns of a child left running.
    child.returncode = 0


def find_by_command(program: str, argument: str) -> psutil.Process | None:
    """Find a process by its program and one exact argument, such as its own state directory.

    The way back to a server whose record was lost: one path belongs to one stack only.
    """
    for process in psutil.process_iter(["cmdline"]):
        cmdline = process.info["cmdline"] or []
        if cmdline and cmdline[0] == program and argument in cmdline:
            return process
    return None


def end_process(process: psutil.Process, *, grace_s: float, signal_number: int) -> bool:
    """Ask a process to end, kill it when the grace period is over.

    Returns
    -------
    bool
        True when it ended by itself.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal_number)
    if _wait_gone(process, grace_s):
        return True
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
    if not _wait_gone(process, 10.0):
        raise LocalStackError(
            f"process {process.pid} did not end even when killed; it may hang in the kernel (disk?)"
        )
    return False


def _wait_gone(process: psutil.Process, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            # Reaps our own child; for somebody else's it polls.
            process.wait(timeout=0.05)
        except psutil.TimeoutExpired:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() == psutil.STATUS_ZOMBIE:
                    return True
            continue
        return True
    return False


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on 127.0.0.1 at this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose old connections linger (TIME_WAIT) is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(*, taken: frozenset[int] = frozenset()) -> int:
    """Choose a port of 127.0.0.1 that nothing listens on.

    Raises
    ------
    LocalStackError
        None found in 200 tries.
    """
    for port in random.sample(PORT_RANGE, 200):
        if port not in taken and port_is_free(port):
            return port
    raise LocalStackError(
        f"no free port found between {PORT_RANGE.start} and {PORT_RANGE.stop - 1} on 127.0.0.1"
    )


def log_tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a log for an error message; a stand-in when there is none."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return f"(no log at {path})"
    return "\n".join(text.splitlines()[-lines:]) or f"({path} is empty)"


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file in one step; a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
    temporary.replace(path)
