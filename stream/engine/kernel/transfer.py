"""Learners as rows of ``engine-state`` and back: the formats of ``learner`` and ``day``."""

from __future__ import annotations

import numpy as np

from stream.engine.kernel.compiling import compiled
from stream.engine.kernel.heap import grow, move, take
from stream.engine.kernel.layout import (
    ATTEMPTS,
    CORRECT_N,
    D_ATTEMPTS,
    D_CHANGED,
    D_CORRECT,
    D_DAY,
    D_ROWS,
    D_SNAPSHOTS,
    DAY_WORDS,
    FIRST_DAY,
    FOLDED,
    FORM,
    HEAD_CAPACITY,
    HEAD_WORDS,
    HEAP_END,
    I4,
    I8,
    LATEST_MS,
    MEMORY_AT,
    MEMORY_WORDS,
    N_DAYS,
    N_MEMORY,
    N_ROWS,
    N_SNAPSHOTS,
    N_TOPICS,
    PUBLISHED_MS,
    ROW_WORDS,
    ROWS_AT,
    ROWS_CAPACITY,
    S_TOPIC,
    SHIFT,
    SNAPSHOT_WORDS,
    T_ATTEMPTS,
    T_CORRECT,
    T_FOLDED,
    T_TOPIC,
    TOPIC_WORDS,
    U1,
    VG,
    Arrays,
    G,
)
from stream.engine.kernel.names import find
from stream.engine.kernel.writing import put_bytes, put_little, read_little

__all__ = ["DONE", "FULL_HEAP", "export_day", "export_head", "export_size", "load"]

DONE, FULL_HEAP = -1, -2

HEAD_BYTES = 59
TOPIC_BYTES = 46
DAY_BYTES = 32
SNAPSHOT_BYTES = 18
HASH_BYTES = 8
ROW_BYTES = 15
MEMORY_HASH_BYTES = 4
MEMORY_ROW_BYTES = 10


@compiled
def export_size(s: Arrays, learner: int) -> int:
    """Return an upper bound of the bytes of a learner's head and all its days."""
    base = s.at[learner]
    half = 2 * base
    i4 = s.i4
    names = 0
    for k in range(i4[half + N_TOPICS]):
        names += s.topic_len[i4[2 * (base + HEAD_WORDS + TOPIC_WORDS * k) + T_TOPIC]]
    return (
        HEAD_BYTES
        + TOPIC_BYTES * i4[half + N_TOPICS]
        + names
        + (MEMORY_HASH_BYTES + MEMORY_ROW_BYTES) * i4[half + N_MEMORY]
        + DAY_BYTES * i4[half + N_DAYS]
        + SNAPSHOT_BYTES * i4[half + N_SNAPSHOTS]
        + (HASH_BYTES + ROW_BYTES) * i4[half + N_ROWS]
    )


@compiled
def export_head(s: Arrays, learner: int, version: int, out: U1, at: int) -> int:
    """Write a head row; return the place behind it."""
    i8, i4 = s.i8, s.i4
    base = s.at[learner]
    half = 2 * base
    at = put_little(out, at, version, 1)
    at = put_little(out, at, i8[base + LATEST_MS], 8)
    at = put_little(out, at, i4[half + FIRST_DAY], 2)
    at = put_little(out, at, i4[half + ATTEMPTS], 4)
    at = put_little(out, at, i4[half + CORRECT_N], 4)
    at = put_little(out, at, i4[half + FOLDED], 4)
    at = put_little(out, at, i8[base + G], 8)
    at = put_little(out, at, i8[base + VG], 8)
    at = put_little(out, at, i8[base + SHIFT], 8)
    at = put_little(out, at, i8[base + FORM], 8)
    at = put_little(out, at, i4[half + N_TOPICS], 2)
    at = put_little(out, at, i4[half + N_MEMORY], 2)
    for k in range(i4[half + N_TOPICS]):
        word = base + HEAD_WORDS + TOPIC_WORDS * k
        topic = i4[2 * word + T_TOPIC]
        for j in range(3):
            at = put_little(out, at, i8[word + j], 8)
        at = put_little(out, at, i4[2 * word + T_FOLDED], 4)
        at = put_little(out, at, i4[2 * word + T_ATTEMPTS], 4)
        at = put_little(out, at, i4[2 * word + T_CORRECT], 4)
        at = put_little(out, at, i8[word + 3], 8)
        size = s.topic_len[topic]
        at = put_little(out, at, size, 2)
        at = put_bytes(out, at, s.names, s.topic_at[topic], size)
    memory = 2 * i8[base + MEMORY_AT]
    for k in range(i4[half + N_MEMORY]):
        at = put_little(out, at, i4[memory + 2 * MEMORY_WORDS * k], 4)
    for k in range(i4[half + N_MEMORY]):
        entry = memory + 2 * MEMORY_WORDS * k
        at = put_little(out, at, i4[entry + 1], 4)
        at = put_little(out, at, i4[entry + 2], 4)
        at = put_little(out, at, i4[entry + 3], 2)
    return at


@compiled
def export_day(
    s: Arrays, base: int, day: int, rows_before: int, snapshots_before: int, out: U1, at: int
) -> int:
    """Write the row of a day (its word); return the place behind it."""
    i8, i4 = s.i8, s.i4
    half = 2 * base
    n, n_snapshots = i4[2 * day + D_ROWS], i4[2 * day + D_SNAPSHOTS]
    at = put_little(out, at, i4[2 * day + D_DAY], 2)
    at = put_little(out, at, n, 4)
    at = put_little(out, at, n_snapshots, 2)
    at = put_little(out, at, i4[2 * day + D_ATTEMPTS], 4)
    at = put_little(out, at, i4[2 * day + D_CORRECT], 4)
    at = put_little(out, at, i8[day], 8)
    at = put_little(out, at, i8[day + 1], 8)
    first = base + HEAD_WORDS + TOPIC_WORDS * i4[half + N_TOPICS] + DAY_WORDS * i4[half + N_DAYS]
    for k in range(snapshots_before, snapshots_before + n_snapshots):
        word = first + SNAPSHOT_WORDS * k
        at = put_little(out, at, i4[2 * word + S_TOPIC], 2)
        at = put_little(out, at, i8[word], 8)
        at = put_little(out, at, i8[word + 1], 8)
    hashes = i8[base + ROWS_AT]
    for k in range(rows_before, rows_before + n):
        at = put_little(out, at, i8[hashes + k], 8)
    rows = 2 * (hashes + i4[half + ROWS_CAPACITY])
    for k in range(rows_before, rows_before + n):
        row = rows + 2 * ROW_WORDS * k
        at = put_little(out, at, i4[row], 4)
        at = put_little(out, at, i4[row + 1], 4)
        at = put_little(out, at, i4[row + 2], 4)
        at = put_little(out, at, i4[row + 3], 3)
    return at


@compiled
def export_days(s: Arrays, learner: int, out: U1, at: int) -> int:
    """Write the rows of all days, one behind the other; return the place behind them."""
    base = s.at[learner]
    days = base + HEAD_WORDS + TOPIC_WORDS * s.i4[2 * base + N_TOPICS]
    rows = snapshots = 0
    for k in range(s.i4[2 * base + N_DAYS]):
        day = days + DAY_WORDS * k
        at = export_day(s, base, day, rows, snapshots, out, at)
        rows += s.i4[2 * day + D_ROWS]
        snapshots += s.i4[2 * day + D_SNAPSHOTS]
    return at


@compiled
def topic_of(s: Arrays, data: U1, at: int, size: int) -> int:
    """Return the number of a topic's id, -1 for an unknown one."""
    return find(s.topic_slots, s.topic_at, s.topic_len, s.names, data, at, size)


@compiled
def load(s: Arrays, learner: int, data: U1, head: int, days: int, end: int) -> int:
    """Put a learner in place of what there is of it.

    Parameters
    ----------
    data
        Holds the head row from ``head`` and the days' rows, ascending, from ``days`` to ``end``.

    Returns
    -------
    int
        DONE, FULL_HEAP, or where in ``data`` the length of the name of an unknown topic stands.
        Unless DONE, nothing has changed.
    """
    i8, i4 = s.i8, s.i4
    n_topics = read_little(data, head + 55, 2)
    n_memory = read_little(data, head + 57, 2)
    at = head + HEAD_BYTES
    for _ in range(n_topics):
        size = read_little(data, at + TOPIC_BYTES - 2, 2)
        if topic_of(s, data, at + TOPIC_BYTES, size) < 0:
            return at + TOPIC_BYTES - 2
        at += TOPIC_BYTES + size
    n_days = n_rows = n_snapshots = 0
    at = days
    while at < end:
        rows, snapshots = read_little(data, at + 2, 4), read_little(data, at + 6, 2)
        n_days += 1
        n_rows += rows
        n_snapshots += snapshots
        at += DAY_BYTES + SNAPSHOT_BYTES * snapshots + (HASH_BYTES + ROW_BYTES) * rows
    words = HEAD_WORDS + TOPIC_WORDS * n_topics + DAY_WORDS * n_days + SNAPSHOT_WORDS * n_snapshots
    most = (words + (1 + ROW_WORDS) * n_rows + MEMORY_WORDS * n_memory) * 9 // 8 + 8
    if s.control[HEAP_END] + most > i8.shape[0]:
        return FULL_HEAP
    if s.at[learner] < 0:
        base, size = take(s, words)
        for k in range(HEAD_WORDS):
            i8[base + k] = 0
        i4[2 * base + HEAD_CAPACITY] = size
        s.at[learner] = base
    grow(s, learner, words, n_rows, n_memory)
    base = s.at[learner]
    half = 2 * base
    i8[base + LATEST_MS] = read_little(data, head + 1, 8)
    i8[base + PUBLISHED_MS] = i8[base + LATEST_MS]
    i4[half + FIRST_DAY] = read_little(data, head + 9, 2)
    i4[half + ATTEMPTS] = read_little(data, head + 11, 4)
    i4[half + CORRECT_N] = read_little(data, head + 15, 4)
    i4[half + FOLDED] = read_little(data, head + 19, 4)
    i8[base + G] = read_little(data, head + 23, 8)
    i8[base + VG] = read_little(data, head + 31, 8)
    i8[base + SHIFT] = read_little(data, head + 39, 8)
    i8[base + FORM] = read_little(data, head + 47, 8)
    i4[half + N_TOPICS] = n_topics
    i4[half + N_MEMORY] = n_memory
    i4[half + N_DAYS] = n_days
    i4[half + N_SNAPSHOTS] = n_snapshots
    i4[half + N_ROWS] = n_rows
    at = head + HEAD_BYTES
    word = base + HEAD_WORDS
    for _ in range(n_topics):
        for j in range(3):
            i8[word + j] = read_little(data, at + 8 * j, 8)
        i4[2 * word + T_FOLDED] = read_little(data, at + 24, 4)
        i4[2 * word + T_ATTEMPTS] = read_little(data, at + 28, 4)
        i4[2 * word + T_CORRECT] = read_little(data, at + 32, 4)
        i8[word + 3] = read_little(data, at + 36, 8)
        size = read_little(data, at + TOPIC_BYTES - 2, 2)
        at += TOPIC_BYTES
        i4[2 * word + T_TOPIC] = topic_of(s, data, at, size)
        at += size
        word += TOPIC_WORDS
    memory = 2 * i8[base + MEMORY_AT]
    rows_at = at + MEMORY_HASH_BYTES * n_memory
    for k in range(n_memory):
        entry = memory + 2 * MEMORY_WORDS * k
        i4[entry] = read_little(data, at + MEMORY_HASH_BYTES * k, 4)
        i4[entry + 1] = read_little(data, rows_at + MEMORY_ROW_BYTES * k, 4)
        i4[entry + 2] = read_little(data, rows_at + MEMORY_ROW_BYTES * k + 4, 4)
        i4[entry + 3] = read_little(data, rows_at + MEMORY_ROW_BYTES * k + 8, 2)
    at = days
    snapshot = word + DAY_WORDS * n_days
    hashes = i8[base + ROWS_AT]
    row = hashes + i4[half + ROWS_CAPACITY]
    for _ in range(n_days):
        n, n_snapshots = read_little(data, at + 2, 4), read_little(data, at + 6, 2)
        i4[2 * word + D_DAY] = read_little(data, at, 2)
        i4[2 * word + D_CHANGED] = 0
        i4[2 * word + D_ROWS] = n
        i4[2 * word + D_SNAPSHOTS] = n_snapshots
        i4[2 * word + D_ATTEMPTS] = read_little(data, at + 8, 4)
        i4[2 * word + D_CORRECT] = read_little(data, at + 12, 4)
        i8[word] = read_little(data, at + 16, 8)
        i8[word + 1] = read_little(data, at + 24, 8)
        word += DAY_WORDS
        at += DAY_BYTES
        for _ in range(n_snapshots):
            i8[snapshot] = read_little(data, at + 2, 8)
            i8[snapshot + 1] = read_little(data, at + 10, 8)
            i8[snapshot + 2] = 0
            i4[2 * snapshot + S_TOPIC] = read_little(data, at, 2)
            snapshot += SNAPSHOT_WORDS
            at += SNAPSHOT_BYTES
        for _ in range(n):
            i8[hashes] = read_little(data, at, 8)
            hashes += 1
            at += HASH_BYTES
        for _ in range(n):
            i4[2 * row] = read_little(data, at, 4)
            i4[2 * row + 1] = read_little(data, at + 4, 4)
            i4[2 * row + 2] = read_little(data, at + 8, 4)
            i4[2 * row + 3] = read_little(data, at + 12, 3)
            row += ROW_WORDS
            at += ROW_BYTES
    return DONE


@compiled
def change_day(s: Arrays, learner: int, number: int) -> None:
    """Note that a stored day changed since the last flush."""
    base = s.at[learner]
    days = base + HEAD_WORDS + TOPIC_WORDS * s.i4[2 * base + N_TOPICS]
    for k in range(s.i4[2 * base + N_DAYS]):
        if s.i4[2 * (days + DAY_WORDS * k) + D_DAY] == number:
            s.i4[2 * (days + DAY_WORDS * k) + D_CHANGED] = 1


@compiled
def drop_days(s: Arrays, learner: int, count: int) -> None:
    """Forget the first days of a learner, with their rows and snapshots."""
    i8, i4 = s.i8, s.i4
    base = s.at[learner]
    half = 2 * base
    days = base + HEAD_WORDS + TOPIC_WORDS * i4[half + N_TOPICS]
    rows = snapshots = 0
    for k in range(count):
        rows += i4[2 * (days + DAY_WORDS * k) + D_ROWS]
        snapshots += i4[2 * (days + DAY_WORDS * k) + D_SNAPSHOTS]
    n_days = i4[half + N_DAYS]
    first = days + DAY_WORDS * n_days
    kept_days = DAY_WORDS * (n_days - count)
    move(s, days + DAY_WORDS * count, days, kept_days)
    move(
        s,
        first + SNAPSHOT_WORDS * snapshots,
        days + kept_days,
        SNAPSHOT_WORDS * (i4[half + N_SNAPSHOTS] - snapshots),
    )
    hashes = i8[base + ROWS_AT]
    table = hashes + i4[half + ROWS_CAPACITY]
    n = i4[half + N_ROWS] - rows
    move(s, hashes + rows, hashes, n)
    move(s, table + ROW_WORDS * rows, table, ROW_WORDS * n)
    i4[half + N_DAYS] = n_days - count
    i4[half + N_ROWS] = n
    i4[half + N_SNAPSHOTS] -= snapshots


@compiled
def load_many(s: Arrays, learners: I4, data: U1, ends: I8, start: int) -> tuple[int, int]:
    """Load learners one after the other, see :func:`load`.

    ``ends`` (n, 2) says where in ``data`` each learner's head and days end; they lie one behind
    the other. Returns the first learner not loaded, and why.
    """
    for k in range(start, learners.shape[0]):
        head = ends[k - 1, 1] if k else 0
        problem = load(s, learners[k], data, head, ends[k, 0], ends[k, 1])
        if problem != DONE:
            return k, problem
    return learners.shape[0], DONE


@compiled
def changed_days(s: Arrays, learner: int, found: I8) -> int:
    """Write the stored days that changed since the last flush; return how many.

    ``found`` has room for all days of the learner.
    """
    base = s.at[learner]
    days = base + HEAD_WORDS + TOPIC_WORDS * s.i4[2 * base + N_TOPICS]
    n = 0
    for k in range(s.i4[2 * base + N_DAYS]):
        day = 2 * (days + DAY_WORDS * k)
        if s.i4[day + D_CHANGED]:
            found[n] = s.i4[day + D_DAY]
            n += 1
    return n
