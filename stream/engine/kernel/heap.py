"""Blocks of the heap: taking, giving back, growing; and moving words within them."""

from __future__ import annotations

from stream.engine.kernel.compiling import compiled
from stream.engine.kernel.layout import (
    DAY_WORDS,
    HEAD_CAPACITY,
    HEAD_WORDS,
    HEAP_END,
    MEMORY_AT,
    MEMORY_CAPACITY,
    MEMORY_WORDS,
    N_DAYS,
    N_MEMORY,
    N_ROWS,
    N_SNAPSHOTS,
    N_TOPICS,
    ROW_WORDS,
    ROWS_AT,
    ROWS_CAPACITY,
    SNAPSHOT_WORDS,
    TOPIC_WORDS,
    Arrays,
)

__all__ = ["CLASSES", "grow", "move", "release", "reserve", "take"]

CLASSES = 8 + 8 * 40
"""Size classes: every second word up to 16 words, then eight an octave."""


@compiled
def size_class(words: int) -> tuple[int, int]:
    """Return the class that a block of so many words belongs to, and the class's size."""
    if words <= 16:
        half = (words + 1) // 2
        return half, 2 * half
    octave = 4
    while (1 << (octave + 1)) < words:
        octave += 1
    step = 1 << (octave - 3)
    steps = (words - (1 << octave) + step - 1) // step
    return 8 + (octave - 4) * 8 + steps, (1 << octave) + steps * step


@compiled
def take(s: Arrays, words: int) -> tuple[int, int]:
    """Take a block of at least ``words``; return its place (-1: the heap is full) and its size."""
    kind, size = size_class(words)
    block = s.free[kind]
    if block >= 0:
        s.free[kind] = s.i8[block]
        return block, size
    block = s.control[HEAP_END]
    if block + size > s.i8.shape[0]:
        return -1, 0
    s.control[HEAP_END] = block + size
    return block, size


@compiled
def release(s: Arrays, block: int, words: int) -> None:
    """Give a block back."""
    kind, _ = size_class(words)
    s.i8[block] = s.free[kind]
    s.free[kind] = block


@compiled
def move(s: Arrays, source: int, target: int, words: int) -> None:
    """Copy words; the two places may overlap."""
    i8 = s.i8
    if target <= source:
        for k in range(words):
            i8[target + k] = i8[source + k]
    else:
        for k in range(words - 1, -1, -1):
            i8[target + k] = i8[source + k]


@compiled
def used_head(s: Arrays, base: int) -> int:
    """Return the words in use of a head block."""
    half = 2 * base
    return (
        HEAD_WORDS
        + TOPIC_WORDS * s.i4[half + N_TOPICS]
        + DAY_WORDS * s.i4[half + N_DAYS]
        + SNAPSHOT_WORDS * s.i4[half + N_SNAPSHOTS]
    )


@compiled
def grow(s: Arrays, learner: int, head_words: int, rows: int, items: int) -> bool:
    """Make a learner's blocks hold so many words, rows and remembered items.

    Returns
    -------
    bool
        False when the heap is full: what was grown before that stays valid.
    """
    i8, i4 = s.i8, s.i4
    base = s.at[learner]
    if i4[2 * base + HEAD_CAPACITY] < head_words:
        block, size = take(s, head_words)
        if block < 0:
            return False
        move(s, base, block, used_head(s, base))
        release(s, base, i4[2 * base + HEAD_CAPACITY])
        base = block
        s.at[learner] = base
        i4[2 * base + HEAD_CAPACITY] = size
    half = 2 * base
    capacity = i4[half + ROWS_CAPACITY]
    if capacity < rows:
        block, size = take(s, (1 + ROW_WORDS) * rows)
        if block < 0:
            return False
        wider = size // (1 + ROW_WORDS)
        if capacity > 0:
            old, n = i8[base + ROWS_AT], i4[half + N_ROWS]
            move(s, old, block, n)
            move(s, old + capacity, block + wider, ROW_WORDS * n)
            release(s, old, (1 + ROW_WORDS) * capacity)
        i8[base + ROWS_AT] = block
        i4[half + ROWS_CAPACITY] = wider
    capacity = i4[half + MEMORY_CAPACITY]
    if capacity < items:
        block, size = take(s, MEMORY_WORDS * items)
        if block < 0:
            return False
        if capacity > 0:
            old = i8[base + MEMORY_AT]
            move(s, old, block, MEMORY_WORDS * i4[half + N_MEMORY])
            release(s, old, MEMORY_WORDS * capacity)
        i8[base + MEMORY_AT] = block
        i4[half + MEMORY_CAPACITY] = size // MEMORY_WORDS
    return True


@compiled
def reserve(s: Arrays, learner: int, remembered: int) -> bool:
    """Make room for one more topic, day, snapshot, row and remembered item (up to a limit)."""
    base = s.at[learner]
    half = 2 * base
    items = min(s.i4[half + N_MEMORY] + 1, remembered)
    more = TOPIC_WORDS + DAY_WORDS + SNAPSHOT_WORDS
    return grow(s, learner, used_head(s, base) + more, s.i4[half + N_ROWS] + 1, items)
