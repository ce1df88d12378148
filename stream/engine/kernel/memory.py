"""What a learner remembers of items: a table, and the rows of the answers since.

The rules are those of :class:`stream.domain.memory.ItemMemory`, to which every answer is added as
it comes. Here the latest answers are read from their rows, which hold the same, and enter the table
(are *settled*) later: a learner with few answers needs no table.
"""

from __future__ import annotations

import numpy as np

from stream.compiling import compiled
from stream.domain.memory import DEFAULT_CAPACITY, MAX_COUNT
from stream.domain.practice import NEVER_MET
from stream.engine.day import CORRECT
from stream.engine.kernel.days import DAY_WORDS, days_at, n_rows, number_of
from stream.engine.kernel.heap import grow
from stream.engine.kernel.layout import (
    DAY_MS,
    FOLDED,
    LATEST_MS,
    MEMORY_AT,
    MEMORY_WORDS,
    N_DAYS,
    N_MEMORY,
    N_ROWS,
    ROW_HALVES,
    SETTLED,
    STORAGE_DAYS,
    Arrays,
)
from stream.engine.kernel.moving import move
from stream.engine.kernel.rows import flags_of, item_of, row_place, time_of

__all__ = ["enters_at_once", "remember", "settle", "trace_of", "unsettled"]

MOST_UNSETTLED = 256
"""Answers read from their rows at most; a memory table without them is searched faster."""

_LAST_CORRECT = 0x8000_0000


@compiled
def unsettled(s: Arrays, base: int) -> int:
    """Return how many of a learner's latest answers its memory table does not hold yet.

    They are its last rows, in the order in which they were folded; those that are still stored.
    """
    half = 2 * base
    return min(s.i4[half + FOLDED] - s.i4[half + SETTLED], s.i4[half + N_ROWS])


@compiled
def remembered(s: Arrays, base: int, item: int) -> int:
    """Return the entry of an item in the memory table (its number), or -1."""
    i4 = s.i4
    place = np.uint64(2 * s.i8[base + MEMORY_AT])
    for k in range(i4[2 * base + N_MEMORY]):
        if i4[place] == item:
            return k
        place += np.uint64(2 * MEMORY_WORDS)
    return -1


@compiled
def day_of_row(s: Arrays, base: int, row: int) -> int:
    """Return the number of the day that a row belongs to, one of the latest."""
    half = 2 * base
    before = s.i4[half + N_ROWS]
    day = days_at(s, base) + DAY_WORDS * s.i4[half + N_DAYS]
    while before > row:
        day -= DAY_WORDS
        before -= n_rows(s, day)
    return number_of(s, day)


@compiled
def answer(s: Arrays, base: int, row: int) -> tuple[int, int, int, int]:
    """Return what an unsettled row tells: item, number, time (s), whether it was correct."""
    place = row_place(s, base, row)
    number = s.i4[2 * base + FOLDED] - (s.i4[2 * base + N_ROWS] - row)
    time_s = (day_of_row(s, base, row) * DAY_MS + time_of(s, place)) // 1000
    return item_of(s, place), number, time_s, flags_of(s, place) & CORRECT


@compiled
def trace_of(s: Arrays, base: int, item: int) -> tuple[int, int, int, int, bool]:
    """As :meth:`stream.domain.memory.ItemMemory.recall`; NEVER_MET for an unknown item.

    The latest answers are read from their rows, which hold them already.
    """
    i4 = s.i4
    number, time_s, right, wrong, last = NEVER_MET
    entry = remembered(s, base, item)
    if entry >= 0:
        half = 2 * (s.i8[base + MEMORY_AT] + MEMORY_WORDS * entry)
        number, time_s, counts = i4[half + 1], i4[half + 2] & 0xFFFF_FFFF, i4[half + 3]
        number, last = number & 0x7FFF_FFFF, number < 0
        right, wrong = counts & 0xFF, (counts >> 8) & 0xFF
    n = i4[2 * base + N_ROWS]
    first = n - unsettled(s, base)
    place = np.uint64(row_place(s, base, first))
    step = np.uint64(i4[2 * base + ROW_HALVES])
    newest = -1
    for row in range(first, n):
        if i4[place + np.uint64(1)] == item:
            newest = row
            correct = flags_of(s, int(np.int64(place))) & CORRECT
            right += correct
            wrong += 1 - correct
        place += step
    if newest >= 0:
        _, number, time_s, correct = answer(s, base, newest)
        last = correct != 0
    return number, time_s, min(right, MAX_COUNT), min(wrong, MAX_COUNT), last


@compiled
def remember(s: Arrays, base: int, item: int, number: int, time_s: int, correct: int) -> None:
    """As :meth:`stream.domain.memory.ItemMemory.remember`; there is room for another entry."""
    i8, i4 = s.i8, s.i4
    half = 2 * base
    n = i4[half + N_MEMORY]
    memory = i8[base + MEMORY_AT]
    right = wrong = 0
    entry = remembered(s, base, item)
    if entry >= 0:
        counts = i4[2 * (memory + MEMORY_WORDS * entry) + 3]
        right, wrong = counts & 0xFF, (counts >> 8) & 0xFF
    elif n >= DEFAULT_CAPACITY:
        entry = 0
    if entry >= 0:
        after = memory + MEMORY_WORDS * (entry + 1)
        move(s, after, after - MEMORY_WORDS, MEMORY_WORDS * (n - entry - 1))
        n -= 1
    if correct:
        right = min(right + 1, MAX_COUNT)
        number |= _LAST_CORRECT
    else:
        wrong = min(wrong + 1, MAX_COUNT)
    place = 2 * (memory + MEMORY_WORDS * n)
    i4[place] = item
    i4[place + 1] = number
    i4[place + 2] = time_s
    i4[place + 3] = right | (wrong << 8)
    i4[half + N_MEMORY] = n + 1


@compiled
def enters_at_once(s: Arrays, base: int, completed_ms: int) -> bool:
    """Tell whether an answer must enter the memory table as it is folded.

    A late one does not become the last row; and where the table is full, an item that is met for
    the first time takes the place of the one that was answered longest ago.
    """
    return (
        completed_ms // DAY_MS < s.i8[base + LATEST_MS] // DAY_MS
        or s.i4[2 * base + N_MEMORY] + unsettled(s, base) >= DEFAULT_CAPACITY
    )


@compiled
def expires(s: Arrays, base: int, completed_ms: int) -> bool:
    """Tell whether a day is stored until now that an attempt makes too old.

    Days that were too old before may still be there until the next flush: they do not count, so
    that rows do not depend on when they are written.
    """
    day = days_at(s, base)
    before = s.i8[base + LATEST_MS] // DAY_MS - s.control[STORAGE_DAYS]
    for _ in range(s.i4[2 * base + N_DAYS]):
        number = number_of(s, day)
        if number >= before:
            return number < completed_ms // DAY_MS - s.control[STORAGE_DAYS]
        day += DAY_WORDS
    return False


@compiled
def settle(s: Arrays, learner: int, completed_ms: int) -> bool:
    """Enter the latest answers into the memory table, if the attempt to come asks for it.

    It does if it enters at once itself, if the oldest day expires with it, and if many answers
    have gathered.

    Returns
    -------
    bool
        False when the heap is full; nothing has changed then.
    """
    base = s.at[learner]
    half = 2 * base
    n = unsettled(s, base)
    at_once = enters_at_once(s, base, completed_ms)
    if not (at_once or expires(s, base, completed_ms) or n >= MOST_UNSETTLED):
        return True
    items = min(s.i4[half + N_MEMORY] + n + 1, DEFAULT_CAPACITY)
    if not grow(s, learner, 0, 0, 0, items):
        return False
    end = s.i4[half + N_ROWS]
    for row in range(end - n, end):
        item, number, time_s, correct = answer(s, base, row)
        remember(s, base, item, number, time_s, correct)
    s.i4[half + SETTLED] = s.i4[half + FOLDED]
    return True
