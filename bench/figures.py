"""What else is promised: recovery, lookups beside folding, rows into PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from urllib.parse import urlsplit

import psutil

from bench.attempts import FIRST_DAY_MS
from bench.engine import Positions, RoleProcess, running_role
from bench.load import load
from bench.pipeline import percentile, wait_until
from stream.kafka.progress import unseen_partitions
from stream.migrate import migrate
from stream.settings import Settings
from topics.catalogue import feature_updates_topic, kpi_updates_topic, theta_updates_topic

__all__ = ["Latency", "recovery_and_lookups", "sink_rows"]

_LOOKUPS_S = 20.0
_LOOKUP_EVERY_S = 0.01
_SINKS_AT_MOST_S = 60.0


@dataclass(frozen=True)
class Latency:
    """Some lookups; in ms."""

    lookups: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, times_ms: list[float]) -> Latency:
        """Sum times up."""
        return cls(
            len(times_ms),
            round(percentile(times_ms, 0.5), 2),
            round(percentile(times_ms, 0.99), 2),
            round(max(times_ms), 2),
        )


def recovery_and_lookups(
    settings: Settings, *, learners: int, maximum_rate: float
) -> dict[str, object]:
    """Start an engine on a full changelog, then look learners up idle and while it folds.

    The engine keeps nothing on disk, so every start is one after losing local state. Lookups go
    over one connection, one every 10 ms, to random learners; a late answer delays the next.

    Parameters
    ----------
    settings
        Of an installation whose engine has folded a population and ended.
    learners
        Of that population.
    maximum_rate
        Attempts/s that the engine folded at most; half of it is sent during the lookups.
    """
    started = time.perf_counter()
    with running_role("engine", settings) as engine:
        wait_until(engine.ready, 600, every_s=0.02)
        to_ready_s = time.perf_counter() - started
        taking_over_s = engine.metric("thetastream_recovery_seconds")
        held = int(engine.metric("thetastream_learners"))
        rss = psutil.Process(engine.process.pid).memory_info().rss
        idle = _look_up(engine, learners)
        rate = maximum_rate / 2
        positions = Positions(settings)
        # The evening of the population's last day: no new week begins, whose rows would be
        # published for everybody.
        now_ms = FIRST_DAY_MS + 7 * 86_400_000 - 3_600_000
        with load(settings, rate=rate, seconds=_LOOKUPS_S + 30, learners=learners, time_ms=now_ms):
            time.sleep(3)
            before, began = positions.look(), time.perf_counter()
            folding = _look_up(engine, learners)
            folded = (positions.look() - before) / (time.perf_counter() - began)
        positions.close()
    return {
        "recovery": {
            "learners": held,
            "taking_over_s": round(taking_over_s, 2),
            "process_start_to_ready_s": round(to_ready_s, 2),
            "rss_after_mib": round(rss / 1024 / 1024, 1),
        },
        "lookup_idle": idle.__dict__,
        "lookup_folding": {
            **folding.__dict__,
            "sent_per_s": round(rate),
            "folded_per_s": round(folded),
        },
    }


def _look_up(engine: RoleProcess, learners: int) -> Latency:
    chosen = random.Random(5)
    times: list[float] = []
    address = urlsplit(engine.url or "")
    # The plainest of clients: what it computes itself would count as the engine's.
    client = HTTPConnection(address.hostname or "", address.port, timeout=30)

    def look_up() -> None:
        client.request("GET", f"/theta/learner-{chosen.randrange(learners):07d}")
        reply = client.getresponse()
        reply.read()
        if reply.status != HTTPStatus.OK:
            sys.exit(f"a lookup was answered with {reply.status}")

    for _ in range(50):
        look_up()
    ends_at = time.perf_counter() + _LOOKUPS_S
    while (began := time.perf_counter()) < ends_at:
        look_up()
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(_LOOKUP_EVERY_S)
    client.close()
    return Latency.of(times)


def sink_rows(settings: Settings) -> dict[str, object]:
    """Let a sink write what an engine has published, and count the rows.

    From the sink's first rows until it has seen everything, or for a minute.

    Parameters
    ----------
    settings
        Of an installation whose engine has folded a population, with an empty database.
    """
    asyncio.run(migrate(settings.database_url))
    specs = (theta_updates_topic, feature_updates_topic, kpi_updates_topic)
    with running_role("sink", settings) as sink:
        wait_until(lambda: sink.ready() and sink.metric("thetastream_sink_rows_total") > 0, 120)
        began = time.perf_counter()
        rows = sink.metric("thetastream_sink_rows_total")
        cpu = sum(psutil.Process(sink.process.pid).cpu_times()[:2])
        whole = False
        while not whole and time.perf_counter() - began < _SINKS_AT_MOST_S:
            sink.check()
            time.sleep(1)
            whole = not unseen_partitions(settings, "sink", specs)
        seconds = time.perf_counter() - began
        rows = sink.metric("thetastream_sink_rows_total") - rows
        cpu = sum(psutil.Process(sink.process.pid).cpu_times()[:2]) - cpu
    return {
        "rows": round(rows),
        "rows_per_s": round(rows / seconds),
        "cpu_s_per_million_rows": round(cpu / rows * 1_000_000, 1),
        "everything_written": whole,
    }
