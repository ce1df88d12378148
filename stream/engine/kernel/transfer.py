"""Learners as rows of ``engine-state`` and back: the formats of ``learner`` and ``day``."""

from __future__ import annotations

import numpy as np

from stream.compiling import compiled
from stream.engine.day import NO_TOPIC
from stream.engine.kernel.days import (
    DAY_WORDS,
    SNAPSHOT_HALVES,
    ability_at,
    add_rows,
    add_snapshots,
    change,
    days_at,
    days_words,
    find_day,
    forget_day,
    insert_day,
    n_rows,
    n_snapshots,
    number_of,
    put_ability,
    put_snapshot,
    snapshots_at,
    tally,
    topic_of_snapshot,
)
from stream.engine.kernel.heap import begin, grow, release, used_head
from stream.engine.kernel.layout import (
    ATTEMPTS,
    CORRECT_N,
    FIRST_DAY,
    FOLDED,
    FORM,
    HEAD_CAPACITY,
    HEAD_WORDS,
    I8,
    LATEST_MS,
    MEMORY_AT,
    MEMORY_CAPACITY,
    MEMORY_WORDS,
    N_DAYS,
    N_MEMORY,
    N_ROWS,
    N_SNAPSHOTS,
    N_TOPICS,
    PUBLISHED_MS,
    ROW_HALVES,
    ROWS_AT,
    ROWS_CAPACITY,
    SETTLED,
    SHIFT,
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
from stream.engine.kernel.moving import move
from stream.engine.kernel.names import find, number_user
from stream.engine.kernel.rows import (
    block_words,
    flags_of,
    item_of,
    open_rows,
    put_row,
    response_of,
    row_place,
    time_of,
    topic_of_row,
)
from stream.engine.kernel.writing import put_bytes, put_little, read_little
from stream.kafka.packed_records import KEY, KEY_SIZE, VALUE, VALUE_SIZE

__all__ = [
    "DONE",
    "FULL_HEAP",
    "FULL_NAMES",
    "NEW_TOPIC",
    "OTHER",
    "TAKEN",
    "UNREADABLE",
    "change_day",
    "export_day",
    "export_days",
    "export_head",
    "export_size",
    "put_rows",
]

DONE, FULL_HEAP, FULL_NAMES, NEW_TOPIC = -1, -2, -3, -4
"""Why putting rows in place ended."""

TAKEN, OTHER, UNREADABLE = range(3)
"""What became of a row."""

HEAD_BYTES_1 = 59
"""Of version 1, which ends before the number of settled answers: all of them are."""
HEAD_BYTES = HEAD_BYTES_1 + 4

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
    at = put_little(out, at, i4[half + SETTLED], 4)
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
def put_doubles(out: U1, at: int, values: tuple[float, float]) -> int:
    """Write doubles, eight bytes each."""
    for value in values:
        at = put_little(out, at, int(np.float64(value).view(np.int64)), 8)
    return at


@compiled
def read_double(data: U1, at: int) -> float:
    """Read a double."""
    return float(np.int64(read_little(data, at, 8)).view(np.float64))


@compiled
def export_day(
    s: Arrays,
    base: int,
    day: int,
    rows_before: int,
    snapshots_before: int,
    attempts: int,
    correct: int,
    out: U1,
    at: int,
) -> int:
    """Write the row of a day (its word) with its counts; return the place behind it."""
    i8, i4 = s.i8, s.i4
    halves = i4[2 * base + ROW_HALVES]
    n, snapshots = n_rows(s, day), n_snapshots(s, day)
    at = put_little(out, at, number_of(s, day), 2)
    at = put_little(out, at, n, 4)
    at = put_little(out, at, snapshots, 2)
    at = put_little(out, at, attempts, 4)
    at = put_little(out, at, correct, 4)
    at = put_doubles(out, at, ability_at(s, 2 * day))
    place = snapshots_at(s, base) + SNAPSHOT_HALVES * snapshots_before
    for _ in range(snapshots):
        at = put_little(out, at, topic_of_snapshot(s, place), 2)
        at = put_doubles(out, at, ability_at(s, place))
        place += SNAPSHOT_HALVES
    hashes = i8[base + ROWS_AT]
    for k in range(rows_before, rows_before + n):
        at = put_little(out, at, i8[hashes + k], 8)
    place = row_place(s, base, rows_before)
    for _ in range(n):
        at = put_little(out, at, time_of(s, place), 4)
        at = put_little(out, at, response_of(s, place), 4)
        at = put_little(out, at, item_of(s, place), 4)
        at = put_little(out, at, topic_of_row(s, place, halves), 2)
        at = put_little(out, at, flags_of(s, place), 1)
        place += halves
    return at


@compiled
def export_days(s: Arrays, learner: int, scratch: I8, out: U1, at: int) -> int:
    """Write the rows of all days, one behind the other; return the place behind them.

    ``scratch`` has room for two numbers a day.
    """
    base = s.at[learner]
    counts, _ = tally(s, base, scratch)
    day = days_at(s, base)
    rows = snapshots = 0
    for k in range(s.i4[2 * base + N_DAYS]):
        at = export_day(s, base, day, rows, snapshots, counts[2 * k], counts[2 * k + 1], out, at)
        rows += n_rows(s, day)
        snapshots += n_snapshots(s, day)
        day += DAY_WORDS
    return at


@compiled
def topic_of(s: Arrays, data: U1, at: int, size: int) -> int:
    """Return the number of a topic's id, -1 for an unknown one."""
    return find(s.topic_slots, s.topic_at, s.topic_len, s.names, data, at, size)


@compiled
def head_bytes(data: U1, at: int) -> int:
    """Return the bytes of a head row's fixed fields, by its version."""
    return HEAD_BYTES_1 if data[at] == 1 else HEAD_BYTES


@compiled
def put_head(s: Arrays, learner: int, data: U1, at: int) -> int:
    """Put a head row in place of the learner's; its days stay.

    Returns
    -------
    int
        DONE, FULL_HEAP, or where in ``data`` the length of the name of an unknown topic stands.
        Unless DONE, nothing has changed.
    """
    n_topics = read_little(data, at + 55, 2)
    n_memory = read_little(data, at + 57, 2)
    names = at + head_bytes(data, at)
    for _ in range(n_topics):
        size = read_little(data, names + TOPIC_BYTES - 2, 2)
        if topic_of(s, data, names + TOPIC_BYTES, size) < 0:
            return names + TOPIC_BYTES - 2
        names += TOPIC_BYTES + size
    if s.at[learner] < 0 and not begin(s, learner):
        return FULL_HEAP
    base = s.at[learner]
    before = s.i4[2 * base + N_TOPICS]
    words = used_head(s, base) + TOPIC_WORDS * (n_topics - before)
    if not grow(s, learner, words, s.i4[2 * base + N_ROWS], n_topics, n_memory):
        return FULL_HEAP
    i8, i4 = s.i8, s.i4
    base = s.at[learner]
    half = 2 * base
    topics = base + HEAD_WORDS
    behind = days_words(i4[half + N_DAYS], i4[half + N_SNAPSHOTS])
    move(s, topics + TOPIC_WORDS * before, topics + TOPIC_WORDS * n_topics, behind)
    i8[base + LATEST_MS] = read_little(data, at + 1, 8)
    i8[base + PUBLISHED_MS] = i8[base + LATEST_MS]
    i4[half + FIRST_DAY] = read_little(data, at + 9, 2)
    i4[half + ATTEMPTS] = read_little(data, at + 11, 4)
    i4[half + CORRECT_N] = read_little(data, at + 15, 4)
    i4[half + FOLDED] = read_little(data, at + 19, 4)
    i8[base + G] = read_little(data, at + 23, 8)
    i8[base + VG] = read_little(data, at + 31, 8)
    i8[base + SHIFT] = read_little(data, at + 39, 8)
    i8[base + FORM] = read_little(data, at + 47, 8)
    i4[half + N_TOPICS] = n_topics
    i4[half + N_MEMORY] = n_memory
    i4[half + SETTLED] = (
        i4[half + FOLDED] if data[at] == 1 else read_little(data, at + HEAD_BYTES_1, 4)
    )
    at += head_bytes(data, at)
    word = topics
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
    return DONE


@compiled
def put_day(s: Arrays, learner: int, data: U1, at: int) -> int:
    """Put the row of a day in place of what there is of that day.

    Returns
    -------
    int
        DONE or FULL_HEAP; then nothing has changed.
    """
    number = read_little(data, at, 2)
    rows, snapshots = read_little(data, at + 2, 4), read_little(data, at + 6, 2)
    hash_at = at + DAY_BYTES + SNAPSHOT_BYTES * snapshots
    row_at = hash_at + HASH_BYTES * rows
    if s.at[learner] < 0 and not begin(s, learner):
        return FULL_HEAP
    base = s.at[learner]
    # The head with its topics may come later.
    topics = s.i4[2 * base + N_TOPICS]
    for k in range(rows):
        topic = read_little(data, row_at + ROW_BYTES * k + 12, 2)
        if topic != NO_TOPIC:
            topics = max(topics, topic + 1)
    words = used_head(s, base) + days_words(1, snapshots)
    if not grow(s, learner, words, s.i4[2 * base + N_ROWS] + rows, topics, 0):
        return FULL_HEAP
    base = s.at[learner]
    forget_day(s, base, number)
    _, index, row, snapshot = find_day(s, base, number)
    day = insert_day(s, base, index, number)
    put_ability(s, 2 * day, read_double(data, at + 16), read_double(data, at + 24))
    place = add_snapshots(s, base, day, snapshot, snapshots)
    at += DAY_BYTES
    for _ in range(snapshots):
        topic = read_little(data, at, 2)
        put_snapshot(s, place, topic, read_double(data, at + 2), read_double(data, at + 10))
        place += SNAPSHOT_HALVES
        at += SNAPSHOT_BYTES
    open_rows(s, base, row, rows)
    add_rows(s, day, rows)
    hashes = s.i8[base + ROWS_AT] + row
    halves = s.i4[2 * base + ROW_HALVES]
    place = row_place(s, base, row)
    for k in range(rows):
        s.i8[hashes + k] = read_little(data, hash_at + HASH_BYTES * k, 8)
        put_row(
            s,
            place,
            halves,
            read_little(data, row_at, 4),
            read_little(data, row_at + 4, 4),
            read_little(data, row_at + 8, 4),
            read_little(data, row_at + 12, 2),
            read_little(data, row_at + 14, 1),
        )
        place += halves
        row_at += ROW_BYTES
    return DONE


@compiled
def forget(s: Arrays, learner: int) -> None:
    """Forget a learner, if it is there; its number stays its own."""
    base = s.at[learner]
    if base < 0:
        return
    half = 2 * base
    if s.i4[half + ROWS_CAPACITY] > 0:
        release(
            s,
            s.i8[base + ROWS_AT],
            block_words(s.i4[half + ROWS_CAPACITY], s.i4[half + ROW_HALVES]),
        )
    if s.i4[half + MEMORY_CAPACITY] > 0:
        release(s, s.i8[base + MEMORY_AT], MEMORY_WORDS * s.i4[half + MEMORY_CAPACITY])
    s.at[learner] = -1
    release(s, base, s.i4[half + HEAD_CAPACITY])


@compiled
def change_day(s: Arrays, learner: int, number: int) -> None:
    """Note that a stored day changed since the last flush."""
    base = s.at[learner]
    found, index, _, _ = find_day(s, base, number)
    if found:
        change(s, days_at(s, base) + DAY_WORDS * index)


@compiled
def fits_head(data: U1, at: int, end: int, version: int) -> bool:
    """Tell whether a head row is whole and of a version up to this one."""
    if at == end or not 1 <= data[at] <= version or at + head_bytes(data, at) > end:
        return False
    topics, memory = read_little(data, at + 55, 2), read_little(data, at + 57, 2)
    at += head_bytes(data, at)
    for _ in range(topics):
        if at + TOPIC_BYTES > end:
            return False
        at += TOPIC_BYTES + read_little(data, at + TOPIC_BYTES - 2, 2)
    return at + (MEMORY_HASH_BYTES + MEMORY_ROW_BYTES) * memory == end


@compiled
def fits_day(data: U1, at: int, end: int) -> bool:
    """Tell whether the row of a day is whole."""
    if at + DAY_BYTES > end:
        return False
    rows, snapshots = read_little(data, at + 2, 4), read_little(data, at + 6, 2)
    return at + DAY_BYTES + SNAPSHOT_BYTES * snapshots + (HASH_BYTES + ROW_BYTES) * rows == end


@compiled
def put_rows(
    s: Arrays, start: int, data: U1, places: I8, version: int, fate: U1
) -> tuple[int, int, int]:
    """Put rows of ``engine-state`` in place, in the order in which they were written.

    Parameters
    ----------
    data, places
        The rows, as of :class:`stream.kafka.packed_records.PackedRecords`; an empty value is a
        tombstone, too.
    version
        First byte of a head row as it is written now; older ones are read too.
    fate
        Out (n,): TAKEN; OTHER, neither a learner's head nor a day; or UNREADABLE, of another
        version or broken, which changes nothing.

    Returns
    -------
    tuple
        The number of rows, DONE and 0; or the first row not dealt with, why (FULL_HEAP,
        FULL_NAMES, NEW_TOPIC), and the size of the learner's id or where in ``data`` the length of
        the topic's id stands.
    """
    n = places.shape[0]
    for k in range(start, n):
        key, key_size = places[k, KEY], places[k, KEY_SIZE]
        at = places[k, VALUE]
        end = at + max(places[k, VALUE_SIZE], 0)
        kind = data[key] if key_size > 0 else 0
        if kind != 76 and kind != 68:  # L, D
            fate[k] = OTHER
            continue
        if end > at:
            whole = fits_day(data, at, end) if kind == 68 else fits_head(data, at, end, version)
            if not whole:
                fate[k] = UNREADABLE
                continue
        user = key + 1 if kind == 76 else key + 3
        size = key + key_size - user
        learner = number_user(s, data, user, size)
        if learner < 0:
            return k, FULL_NAMES, size
        if end == at:
            if kind == 68:
                day = int(np.int64(data[key + 1])) << 8 | int(np.int64(data[key + 2]))
                if s.at[learner] >= 0:
                    forget_day(s, s.at[learner], day)
            else:
                forget(s, learner)
            continue
        problem = put_day(s, learner, data, at) if kind == 68 else put_head(s, learner, data, at)
        if problem == FULL_HEAP:
            return k, FULL_HEAP, 0
        if problem != DONE:
            return k, NEW_TOPIC, problem
    return n, DONE, 0
