"""A learner's days and the snapshots of its topics: their fields, finding and moving them.

A day is four 32-bit halves, a snapshot three; all snapshots lie behind the last day, those of the
first day first.

====  ======================================  =================================
half  of a day                                of a snapshot
====  ======================================  =================================
0     ability at its end, less the shift      the topic's ability, likewise
1     variance                                variance
2     number (16 bits), snapshots (16 bits)   topic, among those of the learner
3     rows; the sign: changed
====  ======================================  =================================

Abilities of the past are kept in single precision (seven digits): they are shown and compared,
and a rebase is measured from one, but nothing is folded on them.
"""

from __future__ import annotations

import numpy as np

from stream.compiling import compiled
from stream.engine.day import CORRECT
from stream.engine.kernel.layout import (
    HEAD_WORDS,
    I8,
    N_DAYS,
    N_ROWS,
    N_SNAPSHOTS,
    N_TOPICS,
    TOPIC_WORDS,
    Arrays,
)
from stream.engine.kernel.moving import move_halves
from stream.engine.kernel.rows import (
    UNCOUNTED,
    close_rows,
    flags_of,
    row_place,
)

__all__ = [
    "DAY_WORDS",
    "MOST_SNAPSHOT_WORDS",
    "SNAPSHOT_HALVES",
    "ability_at",
    "add_rows",
    "add_snapshots",
    "change",
    "changed",
    "days_at",
    "days_words",
    "find_day",
    "forget_day",
    "insert_day",
    "mark_flushed",
    "n_rows",
    "n_snapshots",
    "number_of",
    "put_ability",
    "put_snapshot",
    "snapshots_at",
    "tally",
    "topic_of_snapshot",
]

DAY_WORDS = 2
SNAPSHOT_HALVES = 3
MOST_SNAPSHOT_WORDS = 2
"""Words that one snapshot more may need."""

_CHANGED = 1 << 31


@compiled
def ability_at(s: Arrays, half: int) -> tuple[float, float]:
    """Return the ability less the shift and its variance, of a day or snapshot (its first half)."""
    return np.float64(s.f4[half]), np.float64(s.f4[half + 1])


@compiled
def put_ability(s: Arrays, half: int, theta: float, variance: float) -> None:
    """Keep an ability less the shift and its variance; arguments as they are read."""
    s.f4[half] = theta
    s.f4[half + 1] = variance


@compiled
def topic_of_snapshot(s: Arrays, half: int) -> int:
    """Return the place of a snapshot's topic among those of its learner."""
    return s.i4[half + 2]


@compiled
def put_snapshot(s: Arrays, half: int, topic: int, theta: float, variance: float) -> None:
    """Write a snapshot (its first half)."""
    put_ability(s, half, theta, variance)
    s.i4[half + 2] = topic


@compiled
def number_of(s: Arrays, day: int) -> int:
    """Return the number of a day (its word): days since 1970-01-01."""
    return s.i4[2 * day + 2] & 0xFFFF


@compiled
def n_snapshots(s: Arrays, day: int) -> int:
    """Return how many snapshots a day has."""
    return (s.i4[2 * day + 2] >> 16) & 0xFFFF


@compiled
def n_rows(s: Arrays, day: int) -> int:
    """Return how many rows a day has."""
    return s.i4[2 * day + 3] & (_CHANGED - 1)


@compiled
def add_rows(s: Arrays, day: int, n: int) -> None:
    """Count rows more for a day."""
    s.i4[2 * day + 3] += n


@compiled
def changed(s: Arrays, day: int) -> bool:
    """Tell whether a day changed since the last flush."""
    return s.i4[2 * day + 3] < 0


@compiled
def change(s: Arrays, day: int) -> None:
    """Note that a day changed."""
    s.i4[2 * day + 3] |= _CHANGED


@compiled
def mark_flushed(s: Arrays, day: int) -> None:
    """Note that a day is as it was published."""
    s.i4[2 * day + 3] &= _CHANGED - 1


@compiled
def days_at(s: Arrays, base: int) -> int:
    """Return the word of a learner's first day."""
    return base + HEAD_WORDS + TOPIC_WORDS * s.i4[2 * base + N_TOPICS]


@compiled
def snapshots_at(s: Arrays, base: int) -> int:
    """Return the half of a learner's first snapshot."""
    return 2 * (days_at(s, base) + DAY_WORDS * s.i4[2 * base + N_DAYS])


@compiled
def days_words(days: int, snapshots: int) -> int:
    """Return the words that so many days and snapshots take."""
    return DAY_WORDS * days + (SNAPSHOT_HALVES * snapshots + 1) // 2


@compiled
def find_day(s: Arrays, base: int, number: int) -> tuple[bool, int, int, int]:
    """Tell whether a day is there, and how many days, rows and snapshots lie before its place."""
    days = days_at(s, base)
    half = 2 * base
    found = False
    index, rows, snapshots = s.i4[half + N_DAYS], s.i4[half + N_ROWS], s.i4[half + N_SNAPSHOTS]
    # From the end: attempts come nearly in order.
    while index > 0:
        day = days + DAY_WORDS * (index - 1)
        if number_of(s, day) < number:
            break
        index -= 1
        rows -= n_rows(s, day)
        snapshots -= n_snapshots(s, day)
        found = number_of(s, day) == number
    return found, index, rows, snapshots


@compiled
def insert_day(s: Arrays, base: int, index: int, number: int) -> int:
    """Insert a day without rows, snapshots and abilities; return its word. There is room."""
    half = 2 * base
    day = days_at(s, base) + DAY_WORDS * index
    behind = 2 * DAY_WORDS * (s.i4[half + N_DAYS] - index)
    behind += SNAPSHOT_HALVES * s.i4[half + N_SNAPSHOTS]
    move_halves(s, 2 * day, 2 * (day + DAY_WORDS), behind)
    s.i8[day] = 0
    s.i8[day + 1] = number
    s.i4[half + N_DAYS] += 1
    return day


@compiled
def add_snapshots(s: Arrays, base: int, day: int, before: int, n: int) -> int:
    """Add ``n`` snapshots to a day; return the half of the first. There is room for them.

    ``before`` is how many lie before the place of the new ones.
    """
    half = 2 * base
    place = snapshots_at(s, base) + SNAPSHOT_HALVES * before
    later = SNAPSHOT_HALVES * (s.i4[half + N_SNAPSHOTS] - before)
    move_halves(s, place, place + SNAPSHOT_HALVES * n, later)
    s.i4[2 * day + 2] += n << 16
    s.i4[half + N_SNAPSHOTS] += n
    return place


@compiled
def forget_day(s: Arrays, base: int, number: int) -> None:
    """Forget a day of a learner, if it is there, with its rows and snapshots."""
    half = 2 * base
    found, index, row, snapshot = find_day(s, base, number)
    if not found:
        return
    day = days_at(s, base) + DAY_WORDS * index
    snapshots = n_snapshots(s, day)
    close_rows(s, base, row, n_rows(s, day))
    first = snapshots_at(s, base) + SNAPSHOT_HALVES * snapshot
    behind = first + SNAPSHOT_HALVES * snapshots
    later = SNAPSHOT_HALVES * (s.i4[half + N_SNAPSHOTS] - snapshot - snapshots)
    next_day = 2 * (day + DAY_WORDS)
    move_halves(s, next_day, 2 * day, first - next_day)
    move_halves(s, behind, first - 2 * DAY_WORDS, later)
    s.i4[half + N_DAYS] -= 1
    s.i4[half + N_SNAPSHOTS] -= snapshots


@compiled
def tally(s: Arrays, base: int, scratch: I8) -> tuple[I8, I8]:
    """Count each day's valid attempts, and those correct, in pairs at the start of ``scratch``.

    Returns
    -------
    tuple
        The counts, and what is left of ``scratch``.
    """
    n_days = s.i4[2 * base + N_DAYS]
    counts = scratch[: 2 * n_days]
    day = days_at(s, base)
    place = row_place(s, base, 0)
    step = row_place(s, base, 1) - place
    for k in range(n_days):
        attempts = correct = 0
        for _ in range(n_rows(s, day)):
            flags = flags_of(s, place)
            if not flags & UNCOUNTED:
                attempts += 1
                correct += flags & CORRECT
            place += step
        counts[2 * k] = attempts
        counts[2 * k + 1] = correct
        day += DAY_WORDS
    return counts, scratch[2 * n_days :]
