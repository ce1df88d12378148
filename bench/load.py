"""A learning platform at a steady rate: attempts sent from a process of its own.

``python -m bench.load RATE SECONDS LEARNERS TIME_MS`` (settings from the environment). A process
of its own, so that pacing it does not disturb whoever measures beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import numpy as np

from bench.attempts import Population, draw
from bench.engine import environment
from stream.kafka.clients import new_producer
from stream.kafka.packed import pack, produce_packed
from stream.settings import Settings

__all__ = ["load"]

_TICK_S = 0.01
_BY_KEY = -1
"""RD_KAFKA_PARTITION_UA: the producer's partitioner chooses."""


@contextmanager
def load(
    settings: Settings, *, rate: float, seconds: float, learners: int, time_ms: int
) -> Iterator[None]:
    """Send attempts as long as the block lasts, ``seconds`` at most; returns once they flow.

    Parameters
    ----------
    rate
        Attempts a second.
    learners
        From how many learners (numbers below this) they come, evenly.
    time_ms
        Event time of all of them, epoch ms.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load", *map(str, (rate, seconds, learners, time_ms))],
        env=environment(settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield
        if process.poll():
            sys.exit(f"the load ended with {process.returncode}")
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
        process.stdout.close()


def main() -> None:
    """Send what the arguments ask for."""
    rate, seconds = float(sys.argv[1]), float(sys.argv[2])
    learners, time_ms = int(sys.argv[3]), int(sys.argv[4])
    count = round(rate * seconds)
    seed = os.getpid()
    rng = np.random.default_rng(seed)
    drawn = draw(Population(count, min(count, 10_000), 1), seed)
    attempts = replace(
        drawn,
        learner=rng.integers(0, learners, count),
        completed_ms=np.full(count, time_ms, dtype=np.int64),
    )
    # Packed: the sender is no part of what is measured, and takes little of a shared machine.
    packed = pack(
        "attempts",
        _BY_KEY,
        [(k.encode(), v.encode()) for k, v in chain.from_iterable(attempts.records(seed))],
    )
    settings = Settings.from_env()
    producer = new_producer(settings, **{"linger.ms": 0, "queue.buffering.max.messages": count})
    topic = settings.topic(packed.topics[0])
    print("begin", flush=True)
    began = time.perf_counter()
    sent = 0
    while sent < count:
        due = min(count, int((time.perf_counter() - began) * rate))
        if due > sent:
            part = packed.places[sent:due, 1:]
            refused = produce_packed(producer, topic, packed.partition, packed.data, part)
            assert not refused.any(), refused
        sent = due
        producer.poll(0)
        time.sleep(_TICK_S)
    producer.flush(30)


if __name__ == "__main__":
    main()
