"""Processor time and memory of processes, read from outside them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psutil

__all__ = ["Figure", "Job", "Measured", "Meter"]

Job = Literal["whole", "small", "read"]

_EVERY_S = 0.1
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Measured:
    """What a span of time cost.

    Attributes
    ----------
    seconds
        Wall clock.
    cpu_s
        Processor seconds of all processes, user and system.
    peak_rss_mib
        Largest sum of their resident memory, looked at ten times a second.
    """

    seconds: float
    cpu_s: float
    peak_rss_mib: float


@dataclass(frozen=True)
class Figure:
    """One line of the comparison.

    Attributes
    ----------
    engine, job, learners
        Who did what on which population.
    events
        Attempts folded; a slow engine folds fewer than the topic holds.
    events_per_s, cpu_s_per_million, peak_rss_mib
        What was measured.
    version
        Of the engine.
    processes
        How many shared the work.
    cpu_s_each
        Processor seconds of each process, where there are several.
    """

    engine: str
    job: Job
    learners: int
    events: int
    events_per_s: float
    cpu_s_per_million: float
    peak_rss_mib: float
    version: str
    processes: int = 1
    cpu_s_each: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        measured: Measured,
        events: int,
        *,
        engine: str,
        job: Job,
        learners: int,
        version: str,
        cpu_s_each: Sequence[float] = (),
    ) -> Figure:
        """Turn a measured span into rates."""
        return cls(
            engine=engine,
            job=job,
            learners=learners,
            events=events,
            events_per_s=round(events / measured.seconds),
            cpu_s_per_million=round(measured.cpu_s / events * 1_000_000, 2),
            peak_rss_mib=round(measured.peak_rss_mib, 1),
            version=version,
            processes=max(1, len(cpu_s_each)),
            cpu_s_each=tuple(round(one, 2) for one in cpu_s_each),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the line of ``latest.json``."""
        line = asdict(self)
        if not self.cpu_s_each:
            del line["cpu_s_each"]
        return line


class Meter:
    """Reads processes and their children from :meth:`begin` to :meth:`end`.

    Parameters
    ----------
    pids
        The processes.
    """

    def __init__(self, *pids: int) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)
        self._peak = 0.0
        self._began_at = 0.0
        self._cpu_before: list[float] = []
        self.cpu_s_each: list[float] = []

    @property
    def running(self) -> bool:
        """Whether a span has begun and not ended."""
        return self._thread.is_alive()

    def begin(self) -> None:
        """Start the span."""
        self._cpu_before = [_cpu_s(root) for root in self._roots]
        self._began_at = time.perf_counter()
        self._thread.start()

    def end(self) -> Measured:
        """End the span, while the processes still live, and return what it cost."""
        seconds = time.perf_counter() - self._began_at
        after = [_cpu_s(root) for root in self._roots]
        self.cpu_s_each = [b - a for a, b in zip(self._cpu_before, after, strict=True)]
        self._look()
        self._ended.set()
        self._thread.join()
        return Measured(seconds, sum(self.cpu_s_each), self._peak)

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        total = 0.0
        for root in self._roots:
            for process in _tree(root):
                try:
                    total += process.memory_info().rss / _MIB
                except psutil.NoSuchProcess:
                    continue
        self._peak = max(self._peak, total)


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_s(root: psutil.Process) -> float:
    seconds = 0.0
    for process in _tree(root):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
    return seconds
