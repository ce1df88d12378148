"""How soon an attempt is in the lookup and in PostgreSQL while 5,000 others come every second."""

from __future__ import annotations

import asyncio
import time

from bench.latency import measure
from bench.load import load
from bench.pipeline import running_pipeline

__all__ = ["RATE", "steady_latency"]

RATE = 5_000
"""Attempts a second."""

_LEARNERS = 100_000
_AT_MOST_S = 150.0


def steady_latency() -> dict[str, object]:
    """Run a whole pipeline under load and time single attempts as ``make latency`` does.

    The load begins some seconds before, so that caches and connections are as in service.
    """
    with (
        running_pipeline(THETASTREAM_PARTITIONS="4") as pipeline,
        load(
            pipeline.settings,
            rate=RATE,
            seconds=_AT_MOST_S,
            learners=_LEARNERS,
            time_ms=int(time.time() * 1000),
        ),
    ):
        time.sleep(10)
        return {"attempts_per_s": RATE, **asyncio.run(measure(pipeline))}
