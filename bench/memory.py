"""Memory a learner: ``python -m bench.memory ATTEMPTS_A_DAY`` measures one case.

In a process of its own, which folds like an engine (day after day, flushes in between) and
compares its resident memory before and after. So everything counts: blocks, keys, the dictionary,
and what the allocator could not give back. Beside it stands the heap in use alone.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import psutil

from bench.attempts import FIRST_DAY_MS
from stream.engine.flush import Flush, Indicators
from stream.engine.kernel.layout import HEAP_END
from stream.engine.params import ParamsStore
from stream.engine.state import PartitionState
from stream.engine.warm_up import warm_up

__all__ = ["measure_memory", "slope"]

LEARNERS = 100_000
DAYS = 10
TOPICS = 5
CASES = (1, 5, 10)
"""Attempts a day; the second is what the promise is about."""

_LEARNERS_A_FLUSH = 1000
_ITEMS = 500
_ITEMS_A_DAY = 10
"""Most attempts a day, so that no item comes twice."""

_DAY_MS = 86_400_000


@dataclass(slots=True)
class _Record:
    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int


def measure_memory() -> dict[str, object]:
    """Measure all cases, each in a new process; bytes a learner and their slope."""
    sizes: dict[int, float] = {}
    packed: dict[int, float] = {}
    for attempts in CASES:
        done = subprocess.run(
            [sys.executable, "-m", "bench.memory", str(attempts)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        sizes[attempts], packed[attempts] = map(float, done.stdout.split())
    return {
        "topics": TOPICS,
        "days": DAYS,
        "bytes_a_learner": {str(attempts): round(size) for attempts, size in sizes.items()},
        "bytes_an_attempt": round(slope(sizes, DAYS), 1),
        "packed_bytes_a_learner": {str(n): round(size) for n, size in packed.items()},
        "packed_bytes_an_attempt": round(slope(packed, DAYS), 1),
    }


def slope(sizes: dict[int, float], days: int) -> float:
    """Return how many bytes an attempt adds.

    Parameters
    ----------
    sizes
        Attempts a day -> bytes a learner, of at least two cases.
    days
        Active days of a learner.
    """
    line = np.polynomial.Polynomial.fit([n * days for n in sizes], list(sizes.values()), 1)
    return float(line.convert().coef[1])


def _bytes_a_learner(attempts_a_day: int) -> tuple[float, float]:
    state = PartitionState(0, 7, ParamsStore())
    warm_up()
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    offset = 0
    for day in range(DAYS):
        start = FIRST_DAY_MS + day * _DAY_MS
        for learner in range(LEARNERS):
            user = f"learner-{learner:07d}"
            times = range(start + 36_000_000, start + 36_000_000 + attempts_a_day * 20_000, 20_000)
            # Four in five attempts in the day's topic, the fifth in the next one; other items
            # every day, so that there is something to remember of each.
            state.fold(
                [
                    _record(user, offset + number, day, day + (number % 5 == 4), at)
                    for number, at in enumerate(times)
                ]
            )
            offset += attempts_a_day
            if learner % _LEARNERS_A_FLUSH == _LEARNERS_A_FLUSH - 1:
                _flush(state)
    gc.collect()
    resident = process.memory_info().rss - before
    packed = 8 * int(state.store.arrays.control[HEAP_END])
    return resident / LEARNERS, packed / LEARNERS


def _record(user: str, offset: int, day: int, topic: int, at_ms: int) -> _Record:
    item = (offset + day * _ITEMS_A_DAY) % _ITEMS
    value = (
        f'{{"attempt_id":"{offset:032x}","user_id":"{user}","item_id":"item-{item:03d}",'
        f'"topic_id":"topic-{topic % TOPICS}","correct":{"true" if offset % 3 else "false"},'
        f'"response_time_ms":12345,"completed_at":{at_ms}}}'
    )
    return _Record(user.encode(), value.encode(), offset, at_ms)


def _flush(state: PartitionState) -> None:
    flush = Flush(state, Indicators(), 0, 0, published_watermark=state.position.stream_week)
    for _ in flush.build():
        pass


if __name__ == "__main__":
    print(*_bytes_a_learner(int(sys.argv[1])))
