"""The processes of a trial, supervised, and what they say of themselves."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx

from stream.local.processes import free_port, log_tail
from stream.local.supervise import RoleSupervisor, role_command

__all__ = ["Cluster", "HangError", "Member", "wait_for"]

_START_S = 30.0
"""Seconds a process may take from its start to its first answer; generous, since cores are few."""

_SILENT_S = 20.0
"""Seconds a process that runs may leave /healthz without an answer before it counts as hung."""

_END_S = 15.0
"""Seconds a process may take to end when asked to: the 10 that are promised, and some for the
machine."""

_POLL_S = 0.5

# No keep-alive: a process that was killed must not look alive by an old connection's error.
_client = httpx.Client(
    timeout=3.0, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
)


class HangError(Exception):
    """Something did not happen within its time; the message ends with the logs."""


@dataclass
class Member:
    """One process of a role, started again when it exits.

    Attributes
    ----------
    events
        (time, what happened), as the supervisor tells.
    paused
        Stopped by us with SIGSTOP.
    """

    name: str
    role: str
    port: int
    supervisor: RoleSupervisor
    log: Path
    events: list[tuple[float, str]] = field(default_factory=list)
    paused: bool = False
    ending: bool = False
    running: ExitStack = field(default_factory=ExitStack)

    @property
    def pid(self) -> int | None:
        """Process id, None between two starts."""
        return self.supervisor.pid(self.name)

    @property
    def url(self) -> str:
        """Base of its HTTP server."""
        return f"http://127.0.0.1:{self.port}"

    def exits_since(self, moment: float) -> list[str]:
        """Return how the process ended since a moment, ends asked for left out."""
        return [
            what.split(";")[0].splitlines()[0]
            for at, what in list(self.events)
            if at >= moment and not what.startswith("started")
        ]

    def get(self, path: str) -> httpx.Response | None:
        """Ask its HTTP server; None without an answer."""
        try:
            return _client.get(f"{self.url}{path}")
        except httpx.HTTPError:
            return None

    def status(self, path: str) -> int | None:
        """Return the status /healthz or /readyz answers with; None without an answer."""
        response = self.get(path)
        return None if response is None else response.status_code

    def held(self, user_id: str) -> tuple[int, int] | None:
        """Return (n, correct) of a learner that this engine has in memory, else None."""
        response = self.get(f"/theta/{user_id}")
        if response is None or not response.is_success:
            return None
        body = response.json()
        return (body["n"], body["correct"]) if body["source"] == "live" else None

    def is_ready(self) -> bool:
        """Whether it runs and says that it can do its work."""
        return self.pid is not None and not self.paused and self.status("/readyz") == 200

    def send_signal(self, number: signal.Signals) -> int:
        """Signal the process; return its pid."""
        pid = self.pid
        if pid is None:
            raise HangError(f"{self.name} does not run, so it cannot get {number.name}")
        os.kill(pid, number)
        return pid


class Cluster:
    """The processes of one trial; a context manager that ends them.

    Parameters
    ----------
    env
        Environment of every process.
    directory
        For logs and pid files.

    Attributes
    ----------
    violations
        What must not happen and did: a process that hung, told an untruth, or ended with 0
        unasked.
    """

    def __init__(self, env: Mapping[str, str], directory: Path) -> None:
        self._env = dict(env)
        self._directory = directory
        self._numbers: dict[str, int] = {}
        self._watching = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="chaos-watch")
        self.members: list[Member] = []
        self.violations: list[str] = []

    def __enter__(self) -> Cluster:
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watching.set()
        self._watcher.join()
        for member in self.members:
            member.ending = True
        # Side by side: each takes a last flush, and asking a supervisor twice would kill.
        endings = [threading.Thread(target=self._end, args=(one,)) for one in self.members]
        for ending in endings:
            ending.start()
        for ending in endings:
            ending.join()

    def role(self, role: str) -> list[Member]:
        """Return the members of a role."""
        return [member for member in self.members if member.role == role]

    def add(self, role: str) -> Member:
        """Start one more process of a role."""
        number = self._numbers[role] = self._numbers.get(role, 0) + 1
        name, port = f"{role}-{number}", free_port()
        member = Member(
            name,
            role,
            port,
            RoleSupervisor(
                [name],
                env=self._env,
                log_dir=self._directory / "log",
                run_dir=self._directory / "run" / name,
                grace_s=_END_S,
                command=lambda _name: [*role_command(role), "--web-port", str(port)],
                backoff_s=(1.0,),
                report=lambda _name, what: self._note(member, what),
            ),
            self._directory / "log" / f"{name}.log",
        )
        member.running.enter_context(member.supervisor.running())
        self.members.append(member)
        return member

    def holders(self, user_id: str) -> list[tuple[int, int]]:
        """Return (n, correct) of each engine that has a learner in memory."""
        found = [member.held(user_id) for member in self.role("engine")]
        return [counts for counts in found if counts is not None]

    def remove(self, member: Member) -> None:
        """End a process in good order; it must end by itself, with 0."""
        member.ending = True
        self.members.remove(member)
        self._end(member)

    def tails(self, lines: int = 12) -> str:
        """Return the ends of all logs."""
        return "\n".join(
            f"--- {member.name} (pid {member.pid})\n{log_tail(member.log, lines)}"
            for member in self.members
        )

    def _end(self, member: Member) -> None:
        if member.paused and member.pid is not None:
            member.send_signal(signal.SIGCONT)
        member.running.close()

    def _note(self, member: Member, what: str) -> None:
        member.events.append((time.monotonic(), what))
        if what.startswith("ended (exit 0)") and not member.ending:
            self.violations.append(f"{member.name} ended with exit status 0 though nobody asked")
        if what.startswith("had not ended") or (
            member.ending and what.startswith("ended") and "exit 0" not in what
        ):
            self.violations.append(
                f"{member.name}, asked to end: {what}\n{log_tail(member.log, 12)}"
            )

    def _watch(self) -> None:
        """Look at every process: one that runs must answer, whatever is down around it."""
        heard: dict[tuple[str, int], float] = {}
        told: set[tuple[str, int]] = set()
        while not self._watching.wait(_POLL_S):
            for member in list(self.members):
                pid, now = member.pid, time.monotonic()
                if pid is None or member.ending:
                    continue
                key = (member.name, pid)
                heard.setdefault(key, now + _START_S - _SILENT_S)
                if member.paused or member.status("/healthz") == 200:
                    heard[key] = max(heard[key], now)
                elif now - heard[key] > _SILENT_S and key not in told and member.pid == pid:
                    told.add(key)
                    self.violations.append(
                        f"{member.name} (pid {pid}) has not said for {_SILENT_S:.0f} s that it is "
                        f"alive\n{log_tail(member.log, 12)}"
                    )
                self._check_readiness(member)

    def _check_readiness(self, member: Member) -> None:
        """See that a process that is not ready says why, and when to come again."""
        response = member.get("/readyz")
        if response is None or response.is_success:
            return
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or not (
            response.headers.get("Retry-After") and response.json().get("reason")
        ):
            self.violations.append(
                f"{member.name}: /readyz answered {response.status_code} {response.text[:200]} "
                f"with Retry-After {response.headers.get('Retry-After')}"
            )


def wait_for(
    what: str,
    done: Callable[[], bool],
    timeout_s: float,
    tails: Callable[[], str] = lambda: "",
    poll_s: float = 0.2,
) -> float:
    """Wait until something is so; return the seconds it took.

    Raises
    ------
    HangError
        It is not so in time.
    """
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > timeout_s:
            raise HangError(f"waited {timeout_s:.0f} s in vain for {what}\n{tails()}")
        time.sleep(poll_s)
    return time.monotonic() - began
