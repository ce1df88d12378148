"""The faults, one function a kind: each does its harm and, where it must, undoes it."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from bench.chaos.cluster import Cluster, HangError, Member, wait_for
from bench.chaos.progress import RoleProgress
from stream.local.service import LocalService
from stream.settings import describe

if TYPE_CHECKING:
    from bench.chaos.trial import Trial

__all__ = ["FAULTS", "Context", "Done", "base_environment", "schedule"]

_TAKE_OVER_S = 60.0
"""Seconds within which the others must have taken a paused process's partitions over."""

_ANSWER_S = 10.0
"""Seconds within which a process must answer while a server is away."""


@dataclass(frozen=True)
class Context:
    """What a fault works on."""

    trial: Trial
    cluster: Cluster
    rng: random.Random


@dataclass(frozen=True)
class Done:
    """What was done, to whom."""

    target: str
    pid: int | None = None
    member: Member | None = None
    notes: Sequence[str] = field(default_factory=tuple)


_START_S = 180.0
"""Seconds within which a server must be back; it is slow where cores are few and busy."""

_WAKING_S = 0.2
"""Seconds after which a process that has woken may have joined its group again."""

Fault = Callable[[Context], Done]


def base_environment() -> dict[str, str]:
    """Return our environment without any setting of the pipeline."""
    ours = {str(row["env"]) for row in describe()} | {"THETASTREAM_URL"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def schedule(rounds: int, rng: random.Random) -> list[str]:
    """Return the fault of each round: cycles of all kinds, each in an order of its own.

    Two engines are there at the beginning; a pause needs another that takes over, and there are
    never more than three.
    """
    kinds: list[str] = []
    while len(kinds) < rounds:
        cycle = list(FAULTS)
        while True:
            rng.shuffle(cycle)
            if _is_possible(cycle):
                break
        kinds += cycle
    return kinds[:rounds]


def _is_possible(cycle: Sequence[str]) -> bool:
    engines = 2
    for kind in cycle:
        engines += {"engines-grow": 1, "engines-shrink": -1}.get(kind, 0)
        if kind == "engine-pause" and engines < 2:
            return False
    return True


def _kill(role: str) -> Fault:
    def kill(ctx: Context) -> Done:
        member = ctx.rng.choice(ctx.cluster.role(role))
        pid = member.send_signal(signal.SIGKILL)
        wait_for(f"{member.name} to be gone", lambda: member.pid != pid, 15.0)
        return Done(member.name, pid, member)

    return kill


def _outage(part: str, *, kill: bool) -> Fault:
    """End a server, see that the processes live on without it, and start it again."""

    def outage(ctx: Context) -> Done:
        service: LocalService = getattr(ctx.trial.stack, part)
        service.start_timeout_s = _START_S
        process = service.process()
        before = _alive(ctx)
        if kill:
            service.kill()
        else:
            service.stop()
        began = time.monotonic()
        try:
            _expect_alive(ctx, before, f"{part} is away")
            if part == "postgres":
                _expect_sinks_not_ready(ctx)
        finally:
            away_s = ctx.rng.uniform(1.0, 5.0)
            time.sleep(max(0.0, away_s - (time.monotonic() - began)))
            service.start()
        away_s = time.monotonic() - began
        return Done(part, process.pid if process else None, notes=[f"away {away_s:.1f} s"])

    return outage


def _alive(ctx: Context) -> list[tuple[Member, int | None, str | None]]:
    """Return every process, its pid, and of an engine a learner that it holds."""
    learners = ctx.trial.known_learners(ctx.trial.replay.sent, 20)
    found = []
    for member in ctx.cluster.members:
        held = None
        if member.role == "engine":
            held = next((user for user in learners if member.held(user) is not None), None)
        found.append((member, member.pid, held))
    return found


def _expect_alive(
    ctx: Context, before: Sequence[tuple[Member, int | None, str | None]], when: str
) -> None:
    """Every process says that it is alive, and engines answer from memory, or it has exited."""
    for member, pid, learner in before:
        wait_for(
            f"{member.name} to be alive, and to answer for {learner}, while {when}",
            partial(_answers_or_gone, member, pid, learner),
            _ANSWER_S,
            ctx.cluster.tails,
        )


def _expect_sinks_not_ready(ctx: Context) -> None:
    """See that each sink, having rows to write, says that it cannot."""
    for sink in ctx.cluster.role("sink"):
        wait_for(
            f"{sink.name} to say that it is not ready without PostgreSQL",
            partial(_says, sink, "/readyz", 503),
            _ANSWER_S,
            ctx.cluster.tails,
        )


def _says(member: Member, path: str, status: int) -> bool:
    return member.status(path) == status


def _answers_or_gone(member: Member, pid: int | None, learner: str | None) -> bool:
    if member.pid != pid:
        return True
    alive = member.status("/healthz") == 200
    return alive and (learner is None or member.held(learner) is not None)


def _pause(role: str) -> Fault:
    def pause(ctx: Context) -> Done:
        member = ctx.rng.choice(ctx.cluster.role(role))
        if role == "engine":
            _await_dirty(member)
        progress = RoleProgress(ctx.trial.settings, role)
        pid = member.send_signal(signal.SIGSTOP)
        member.paused = True
        try:
            if member.status("/healthz") is not None:
                raise HangError(f"{member.name} is stopped and yet answers")
            began = time.monotonic()
            # Over its session time-out the others take its partitions, and pass where it was.
            time.sleep(ctx.trial.settings.session_timeout_secs + 1.0)
            wait_for(
                f"the others to take over from {member.name}",
                progress.is_past_mark,
                _TAKE_OVER_S,
                ctx.cluster.tails,
                poll_s=0.3,
            )
            slept = time.monotonic() - began
        finally:
            member.send_signal(signal.SIGCONT)
            member.paused = False
        _expect_sleepy(ctx, member)
        return Done(member.name, pid, member, [f"asleep {slept:.1f} s"])

    return pause


def _expect_sleepy(ctx: Context, member: Member) -> None:
    """See that a process that has just woken, out of its group, is not ready yet."""
    began = time.monotonic()
    status = member.status("/readyz")
    if status == 200 and time.monotonic() - began < _WAKING_S:
        ctx.cluster.violations.append(f"{member.name} woke out of its group and said: ready")


def _await_dirty(member: Member) -> None:
    """Return at a moment when the engine has folded something since its last flush."""
    state = [-1, -1]

    def dirty() -> bool:
        response = member.get("/metrics")
        text = response.text if response is not None else ""
        folded = _metric(text, r'thetastream_records_total\{source="attempts"\}')
        flushed = _metric(text, r"thetastream_flush_seconds_count")
        is_dirty = flushed == state[1] and folded > state[0] >= 0
        state[:] = [folded, flushed]
        return is_dirty

    wait_for(f"{member.name} to have rows to flush", dirty, 15.0, poll_s=0.02)


def _metric(text: str, name: str) -> int:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def _grow(ctx: Context) -> Done:
    member = ctx.cluster.add("engine")
    wait_for(f"{member.name} to start", lambda: member.pid is not None, 15.0)
    return Done(member.name, member.pid, member, [f"{len(ctx.cluster.role('engine'))} engines"])


def _shrink(ctx: Context) -> Done:
    member = ctx.rng.choice(ctx.cluster.role("engine"))
    pid = member.pid
    ctx.cluster.remove(member)
    return Done(member.name, pid, member, [f"{len(ctx.cluster.role('engine'))} engines"])


FAULTS: dict[str, Fault] = {
    "engine-kill": _kill("engine"),
    "calibrator-kill": _kill("calibrator"),
    "sink-kill": _kill("sink"),
    "broker-restart": _outage("kafka", kill=False),
    "broker-kill": _outage("kafka", kill=True),
    "postgres-restart": _outage("postgres", kill=False),
    "engine-pause": _pause("engine"),
    "sink-pause": _pause("sink"),
    "engines-grow": _grow,
    "engines-shrink": _shrink,
}
"""Every kind of fault by its name."""
