"""Runs the roles of one machine as child processes and starts a failed one again."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from stream.errors import LocalStackError
from stream.local.processes import ProcessRecord, end_process, log_tail

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Waits before the first, second, ... start after failures in a row; the last one repeats."""

STEADY_S = 60.0
"""A role that ran this long has recovered: its next failure waits the shortest time again."""

_POLL_S = 0.1

Report = Callable[[str, str], None]
"""Called with a role and what happens to it, for a person to read."""


def role_command(role: str) -> list[str]:
    """Return the command that runs one role."""
    return [sys.executable, "-m", "stream", "run", "--role", role]


@dataclass
class _Child:
    role: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    done: bool = False


class RoleSupervisor:
    """Keeps roles running until it is told to stop.

    Parameters
    ----------
    roles
        The roles to run, each once.
    env
        The children's whole environment.
    log_dir
        Gets `<role>.log` with a role's output, appended to over restarts.
    run_dir
        Gets `<role>.pid` while a role runs: pid, start time and directory as JSON.
    command
        How a role is run.
    grace_s
        How long a role may take to end before it is killed; enough for a last flush.
    backoff_s
        Waits before restarts.
    report
        Told of starts, failures and ends.
    """

    def __init__(
        self,
        roles: Sequence[str],
        *,
        env: Mapping[str, str],
        log_dir: Path,
        run_dir: Path,
        command: Callable[[str], Sequence[str]] = role_command,
        grace_s: float = 30.0,
        backoff_s: Sequence[float] = BACKOFF_S,
        report: Report = lambda _role, _what: None,
    ) -> None:
        self.log_dir = log_dir.resolve()
        self.run_dir = run_dir.resolve()
        self._env = dict(env)
        self._command = command
        self._grace_s = grace_s
        self._backoff_s = tuple(backoff_s)
        self._report = report
        self._children = [_Child(role) for role in dict.fromkeys(roles)]
        self._stop_requests = 0

    def request_stop(self) -> None:
        """Ask for an orderly end; asked twice, the roles are killed. Safe in a signal handler."""
        self._stop_requests += 1

    def pid(self, role: str) -> int | None:
        """Return the pid of a role that runs now."""
        record = ProcessRecord.load(self._pid_file(role))
        process = record.process() if record else None
        return process.pid if process else None

    def run(self) -> int:
        """Run the roles until a stop is asked for, or all have ended by themselves with 0.

        Returns
        -------
        int
            0 when every role ended well, 1 when one had to be killed.

        Raises
        ------
        LocalStackError
            Another supervisor runs in the same directory.
        """
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._end_leftovers()
            try:
                while not self._stop_requests and not all(one.done for one in self._children):
                    for child in self._children:
                        self._tend(child)
                    time.sleep(_POLL_S)
            finally:
                killed = self._stop_all()
        return 1 if killed else 0

    @contextmanager
    def running(self) -> Iterator[RoleSupervisor]:
        """Run the roles beside the block, in a thread, and end them after it."""
        failure: list[BaseException] = []

        def work() -> None:
            try:
                self.run()
            except BaseException as err:  # Raised again in the caller's thread
                failure.append(err)

        thread = threading.Thread(target=work, name="role-supervisor")
        thread.start()
        try:
            yield self
        finally:
            self.request_stop()
            thread.join()
        if failure:
            raise failure[0]

    def _tend(self, child: _Child) -> None:
        now = time.monotonic()
        if child.done:
            return
        if child.process is None:
            if now >= child.start_at:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        child.process = None
        self._pid_file(child.role).unlink(missing_ok=True)
        if code == 0:
            child.done = True
            self._report(child.role, "ended (exit 0)")
            return
        if now - child.started >= STEADY_S:
            child.failures = 0
        wait = self._backoff_s[min(child.failures, len(self._backoff_s) - 1)]
        child.failures += 1
        child.start_at = now + wait
        log = self._log(child.role)
        self._report(
            child.role,
            f"failed ({_describe_exit(code)}); starts again in {wait:g} s. "
            f"The end of {log}:\n{log_tail(log, 8)}",
        )

    def _start(self, child: _Child) -> None:
        argv = list(self._command(child.role))
        with self._log(child.role).open("ab") as log:
            try:
                child.process = subprocess.Popen(  # noqa: S603 - the command is ours
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    # A terminal's Ctrl-C reaches us alone, and we pass it on once.
                    start_new_session=True,
                )
            except OSError as err:
                raise LocalStackError(f"role {child.role} could not be started: {err}") from err
        child.started = time.monotonic()
        with suppress(LocalStackError):  # It ended at once; the next look at it says so.
            ProcessRecord.of(child.process.pid, self.run_dir).save(self._pid_file(child.role))
        self._report(child.role, f"started (pid {child.process.pid})")

    def _stop_all(self) -> list[str]:
        alive = [child for child in self._children if child.process is not None]
        for child in alive:
            assert child.process is not None
            child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace_s
        killed = []
        for child in alive:
            assert child.process is not None
            while child.process.poll() is None:
                if time.monotonic() > deadline or self._stop_requests > 1:
                    child.process.kill()
                    child.process.wait()
                    killed.append(child.role)
                    self._report(child.role, "had not ended in time and was killed")
                    break
                time.sleep(_POLL_S / 2)
            else:
                self._report(child.role, f"ended ({_describe_exit(child.process.returncode)})")
            child.process = None
            self._pid_file(child.role).unlink(missing_ok=True)
        return killed

    def _end_leftovers(self) -> None:
        for child in self._children:
            record = ProcessRecord.load(self._pid_file(child.role))
            process = record.process() if record and record.home == str(self.run_dir) else None
            if process is not None:
                self._report(child.role, f"ending pid {process.pid}, left by an earlier run")
                end_process(process, grace_s=self._grace_s, signal_number=signal.SIGTERM)
            self._pid_file(child.role).unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.run_dir / "supervisor.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise LocalStackError(
                    f"roles already run under another command in {self.run_dir}; "
                    "end that one first, or use another THETASTREAM_STATE_DIR"
                ) from err
            yield

    def _log(self, role: str) -> Path:
        return self.log_dir / f"{role}.log"

    def _pid_file(self, role: str) -> Path:
        return self.run_dir / f"{role}.pid"


def run_roles(
    roles: Sequence[str],
    *,
    env: Mapping[str, str],
    log_dir: Path,
    run_dir: Path,
    command: Callable[[str], Sequence[str]] = role_command,
    report: Report = lambda _role, _what: None,
) -> int:
    """Run roles in the foreground until Ctrl-C or SIGTERM; a second one kills them.

    Parameters
    ----------
    roles, env, log_dir, run_dir, command, report
        As for `RoleSupervisor`.

    Returns
    -------
    int
        Exit code: 0 when every role ended well, 1 when one had to be killed.
    """
    supervisor = RoleSupervisor(
        roles, env=env, log_dir=log_dir, run_dir=run_dir, command=command, report=report
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        supervisor.request_stop()

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        return supervisor.run()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
