"""Blocks of the heap: taking, giving back, growing."""

from __future__ import annotations

from stream.compiling import compiled
from stream.engine.kernel.days import DAY_WORDS, MOST_SNAPSHOT_WORDS, days_words
from stream.engine.kernel.layout import (
    FIRST_DAY,
    FREE_WORDS,
    HEAD_CAPACITY,
    HEAD_WORDS,
    HEAP_END,
    I4,
    I8,
    MEMORY_AT,
    MEMORY_CAPACITY,
    MEMORY_WORDS,
    N_DAYS,
    N_MEMORY,
    N_ROWS,
    N_SNAPSHOTS,
    N_TOPICS,
    N_USERS,
    ROW_HALVES,
    ROWS_AT,
    ROWS_CAPACITY,
    TOPIC_WORDS,
    VG,
    Arrays,
    G,
)
from stream.engine.kernel.moving import move, move_halves
from stream.engine.kernel.rows import (
    NARROW,
    block_words,
    flags_of,
    halves_for,
    item_of,
    put_row,
    response_of,
    time_of,
    topic_of_row,
)

__all__ = ["CLASSES", "begin", "compact", "grow", "release", "reserve", "used_head"]

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
        s.control[FREE_WORDS] -= size
        return block, size
    block = s.control[HEAP_END]
    if block + size > s.i8.shape[0]:
        return -1, 0
    s.control[HEAP_END] = block + size
    return block, size


@compiled
def release(s: Arrays, block: int, words: int) -> None:
    """Give a block back."""
    kind, size = size_class(words)
    s.i8[block] = s.free[kind]
    s.free[kind] = block
    s.control[FREE_WORDS] += size


@compiled
def used_head(s: Arrays, base: int) -> int:
    """Return the words in use of a head block."""
    half = 2 * base
    return (
        HEAD_WORDS
        + TOPIC_WORDS * s.i4[half + N_TOPICS]
        + days_words(s.i4[half + N_DAYS], s.i4[half + N_SNAPSHOTS])
    )


@compiled
def rows_in(words: int, halves: int) -> int:
    """Return how many rows fit into a block of rows."""
    return 2 * words // (2 + halves)


@compiled
def move_rows(s: Arrays, base: int, block: int, capacity: int, halves: int) -> None:
    """Move a learner's rows into another block; it gives the old one back."""
    half = 2 * base
    n, old, size = s.i4[half + N_ROWS], s.i8[base + ROWS_AT], s.i4[half + ROWS_CAPACITY]
    width = s.i4[half + ROW_HALVES]
    if size > 0:
        move(s, old, block, n)
        source, target = 2 * (old + size), 2 * (block + capacity)
        if width == halves:
            move_halves(s, source, target, halves * n)
        else:
            for _ in range(n):
                put_row(
                    s,
                    target,
                    halves,
                    time_of(s, source),
                    response_of(s, source),
                    item_of(s, source),
                    topic_of_row(s, source, width),
                    flags_of(s, source),
                )
                source += width
                target += halves
        release(s, old, block_words(size, width))
    s.i8[base + ROWS_AT] = block
    s.i4[half + ROWS_CAPACITY] = capacity
    s.i4[half + ROW_HALVES] = halves


@compiled
def grow(s: Arrays, learner: int, head_words: int, rows: int, topics: int, items: int) -> bool:
    """Make a learner's blocks hold so many words, rows (of so many topics) and remembered items.

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
    halves = max(halves_for(topics), i4[half + ROW_HALVES])
    if i4[half + ROWS_CAPACITY] < rows or i4[half + ROW_HALVES] < halves:
        block, size = take(s, block_words(max(rows, i4[half + N_ROWS]), halves))
        if block < 0:
            return False
        move_rows(s, base, block, rows_in(size, halves), halves)
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
def begin(s: Arrays, learner: int) -> bool:
    """Make the head of a learner never seen; False when the heap is full."""
    block, size = take(s, HEAD_WORDS + TOPIC_WORDS + DAY_WORDS + MOST_SNAPSHOT_WORDS)
    if block < 0:
        return False
    for k in range(HEAD_WORDS):
        s.i8[block + k] = 0
    s.i4[2 * block + HEAD_CAPACITY] = size
    s.i4[2 * block + FIRST_DAY] = 0xFFFF
    s.i4[2 * block + ROW_HALVES] = NARROW
    s.f8[block + G] = s.filter[0]
    s.f8[block + VG] = s.filter[1]
    s.at[learner] = block
    return True


@compiled
def reserve(s: Arrays, learner: int) -> bool:
    """Make room for one more topic, day, snapshot and row."""
    base = s.at[learner]
    half = 2 * base
    words = used_head(s, base) + TOPIC_WORDS + DAY_WORDS + MOST_SNAPSHOT_WORDS
    return grow(s, learner, words, s.i4[half + N_ROWS] + 1, s.i4[half + N_TOPICS] + 1, 0)


@compiled
def compact(s: Arrays, i8: I8, i4: I4, at: I8) -> None:
    """Copy all learners, one behind the other, into another heap, which is large enough.

    Learners that grow leave blocks behind that only a smaller learner could use; where all have
    grown, nobody does.

    Parameters
    ----------
    i8, i4
        The other heap.
    at
        Out: the learners' places in it.
    """
    end = 0
    for learner in range(s.control[N_USERS]):
        base = s.at[learner]
        if base < 0:
            continue
        head, rows, memory = used_head(s, base), s.i4[2 * base + N_ROWS], s.i4[2 * base + N_MEMORY]
        _, size = size_class(head)
        for k in range(head):
            i8[end + k] = s.i8[base + k]
        half = 2 * end
        at[learner] = end
        i4[half + HEAD_CAPACITY] = size
        place = end
        end += size
        i4[half + ROWS_CAPACITY] = 0
        if rows:
            halves = i4[half + ROW_HALVES]
            _, size = size_class(block_words(rows, halves))
            capacity = rows_in(size, halves)
            hashes = s.i8[base + ROWS_AT]
            table = 2 * (hashes + s.i4[2 * base + ROWS_CAPACITY])
            for k in range(rows):
                i8[end + k] = s.i8[hashes + k]
            for k in range(halves * rows):
                i4[2 * (end + capacity) + k] = s.i4[table + k]
            i8[place + ROWS_AT] = end
            i4[half + ROWS_CAPACITY] = capacity
            end += size
        i4[half + MEMORY_CAPACITY] = 0
        if memory:
            _, size = size_class(MEMORY_WORDS * memory)
            entries = s.i8[base + MEMORY_AT]
            for k in range(MEMORY_WORDS * memory):
                i8[end + k] = s.i8[entries + k]
            i8[place + MEMORY_AT] = end
            i4[half + MEMORY_CAPACITY] = size // MEMORY_WORDS
            end += size
    s.control[HEAP_END] = end
    s.control[FREE_WORDS] = 0
    s.free[:] = -1
