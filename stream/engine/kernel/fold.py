"""Folding attempts into learners: duplicates, lateness, the filter, counts, snapshots, memory.

What happens to one attempt is said in ``docs/counting-rules.md``; tests hold this against a plain
Python form of the same rules.
"""

from __future__ import annotations

import numpy as np

from stream.compiling import compiled
from stream.domain.ability import fold_drifted, match, topic_ability
from stream.domain.memory import DEFAULT_CAPACITY, MAX_COUNT
from stream.domain.practice import NEVER_MET, features, next_form, plug_in
from stream.engine.kernel.heap import begin, grow, move, reserve
from stream.engine.kernel.layout import (
    ATTEMPTS,
    CORRECT_N,
    D_ATTEMPTS,
    D_CHANGED,
    D_CORRECT,
    D_DAY,
    D_ROWS,
    D_SNAPSHOTS,
    DAY_MS,
    DAY_WORDS,
    FIRST_DAY,
    FOLDED,
    FORM,
    HEAD_WORDS,
    I4,
    I8,
    LATENESS_MS,
    LATEST_MS,
    MEMORY_AT,
    MEMORY_WORDS,
    N_CHANGED,
    N_DAYS,
    N_MEMORY,
    N_ROWS,
    N_SNAPSHOTS,
    N_TOPICS,
    RETAINED_DAYS,
    ROW_WORDS,
    ROWS_AT,
    ROWS_CAPACITY,
    S_TOPIC,
    SETTLED,
    SHIFT,
    SNAPSHOT_WORDS,
    STORAGE_DAYS,
    STREAM_WEEK,
    T_ATTEMPTS,
    T_CORRECT,
    T_FOLDED,
    T_TOPIC,
    TOPIC_WORDS,
    U1,
    VG,
    WEIGHTED,
    Arrays,
    G,
)

__all__ = ["ACCEPTED", "DUPLICATE", "NO_TOPIC", "OPERATION", "TOO_LATE", "fold", "mark", "rebase"]

ACCEPTED, DUPLICATE, TOO_LATE, OPERATION, FULL, REFUSED = range(6)
"""Outcomes. An OPERATION (void, regrade) is left to the caller; FULL: the heap must grow; a REFUSED
record is no event."""

MOST_UNSETTLED = 256
"""Answers read from their rows at most; a memory table without them is searched faster."""

NO_TOPIC = 0xFFFF
CORRECT_FLAG = 1
_LAST_CORRECT = 0x8000_0000
_STRIDE = np.uint64(16)


@compiled
def mark(s: Arrays, learner: int) -> None:
    """Note that a learner changed."""
    if not s.changed[learner]:
        s.changed[learner] = 1
        s.queue[s.control[N_CHANGED]] = learner
        s.control[N_CHANGED] += 1


@compiled
def known(s: Arrays, base: int, attempt: int) -> bool:
    """Tell whether an attempt, void or regrade lies in the retained days."""
    i8, i4 = s.i8, s.i4
    half = 2 * base
    n = i4[half + N_ROWS]
    if n == 0:
        return False
    oldest = i8[base + LATEST_MS] // DAY_MS - s.control[RETAINED_DAYS]
    day = base + HEAD_WORDS + TOPIC_WORDS * i4[half + N_TOPICS]
    start = 0
    while start < n and i4[2 * day + D_DAY] < oldest:
        start += i4[2 * day + D_ROWS]
        day += DAY_WORDS
    rows = i8[base + ROWS_AT]
    # In strides without an early exit, which the compiler turns into vector instructions.
    k = np.uint64(rows + start)
    end = np.uint64(rows + n)
    while k + _STRIDE <= end:
        hits = 0
        for j in range(_STRIDE):
            hits += i8[k + j] == attempt
        if hits:
            return True
        k += _STRIDE
    while k < end:
        if i8[k] == attempt:
            return True
        k += np.uint64(1)
    return False


@compiled
def unsettled(s: Arrays, base: int) -> int:
    """Return how many of a learner's latest answers its memory table does not hold yet.

    They are its last rows, in the order in which they were folded.
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
    i4 = s.i4
    half = 2 * base
    before = i4[half + N_ROWS]
    day = base + HEAD_WORDS + TOPIC_WORDS * i4[half + N_TOPICS] + DAY_WORDS * i4[half + N_DAYS]
    while before > row:
        day -= DAY_WORDS
        before -= i4[2 * day + D_ROWS]
    return i4[2 * day + D_DAY]


@compiled
def recall(s: Arrays, base: int, item: int) -> tuple[int, int, int, int, bool]:
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
    rows = s.i8[base + ROWS_AT] + i4[2 * base + ROWS_CAPACITY]
    newest = -1
    for row in range(n - unsettled(s, base), n):
        place = np.uint64(2 * (rows + ROW_WORDS * row))
        if i4[place + np.uint64(2)] == item:
            newest = row
            correct = (i4[place + np.uint64(3)] >> 16) & CORRECT_FLAG
            right += correct
            wrong += 1 - correct
    if newest >= 0:
        place = np.uint64(2 * (rows + ROW_WORDS * newest))
        number = i4[2 * base + FOLDED] - (n - newest)
        time_s = (day_of_row(s, base, newest) * DAY_MS + i4[place]) // 1000
        last = ((i4[place + np.uint64(3)] >> 16) & CORRECT_FLAG) != 0
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
    day = base + HEAD_WORDS + TOPIC_WORDS * s.i4[2 * base + N_TOPICS]
    before = s.i8[base + LATEST_MS] // DAY_MS - s.control[STORAGE_DAYS]
    for _ in range(s.i4[2 * base + N_DAYS]):
        number = s.i4[2 * day + D_DAY]
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
    if not grow(s, learner, 0, 0, items):
        return False
    i4 = s.i4
    rows, end = s.i8[base + ROWS_AT] + i4[half + ROWS_CAPACITY], i4[half + N_ROWS]
    for row in range(end - n, end):
        place = 2 * (rows + ROW_WORDS * row)
        number = i4[half + FOLDED] - (end - row)
        time_s = (day_of_row(s, base, row) * DAY_MS + i4[place]) // 1000
        correct = (i4[place + 3] >> 16) & CORRECT_FLAG
        remember(s, base, i4[place + 2], number, time_s, correct)
    i4[half + SETTLED] = i4[half + FOLDED]
    return True


@compiled
def advantage(s: Arrays, base: int, topic: int, item: int, start_ms: int) -> float:
    """As :func:`stream.domain.practice.advantage`; ``topic`` (its word) may be -1."""
    i8, i4 = s.i8, s.i4
    right = wrong = 0
    topic_s = 0.0
    if topic >= 0:
        right = i4[2 * topic + T_CORRECT]
        wrong = i4[2 * topic + T_ATTEMPTS] - right
        topic_s = i8[topic + 3] / 1000
    trace = recall(s, base, item)
    folded = i4[2 * base + FOLDED]
    row = features(right, wrong, topic_s, s.f8[base + FORM], trace, folded, start_ms / 1000)
    total = 0.0
    for k in range(len(row)):
        total += s.weights[k] * row[k]
    return total


@compiled
def topic_of(s: Arrays, base: int, topic: int) -> tuple[int, int]:
    """Return a topic's index within the learner and its word, adding it when new."""
    i8, f8, i4 = s.i8, s.f8, s.i4
    half = 2 * base
    n = i4[half + N_TOPICS]
    word = base + HEAD_WORDS
    for index in range(n):
        if i4[2 * word + T_TOPIC] == topic:
            return index, word
        word += TOPIC_WORDS
    behind = DAY_WORDS * i4[half + N_DAYS] + SNAPSHOT_WORDS * i4[half + N_SNAPSHOTS]
    move(s, word, word + TOPIC_WORDS, behind)
    f8[word] = 0.0
    f8[word + 1] = 0.0
    f8[word + 2] = s.filter[2]
    for k in range(3, TOPIC_WORDS):
        i8[word + k] = 0
    i4[2 * word + T_TOPIC] = topic
    i4[half + N_TOPICS] = n + 1
    return n, word


@compiled
def day_of(s: Arrays, base: int, number: int) -> tuple[int, int, int]:
    """Return a day's word and how many rows and snapshots lie before its own, making it when new.

    A past day starts from the abilities of the day nearest before it, else after.
    """
    i8, f8, i4 = s.i8, s.f8, s.i4
    half = 2 * base
    n = i4[half + N_DAYS]
    days = base + HEAD_WORDS + TOPIC_WORDS * i4[half + N_TOPICS]
    index, rows, snapshots = n, i4[half + N_ROWS], i4[half + N_SNAPSHOTS]
    # From the end: attempts come nearly in order.
    while index > 0:
        day = 2 * (days + DAY_WORDS * (index - 1))
        if i4[day + D_DAY] < number:
            break
        index -= 1
        rows -= i4[day + D_ROWS]
        snapshots -= i4[day + D_SNAPSHOTS]
        if i4[day + D_DAY] == number:
            return days + DAY_WORDS * index, rows, snapshots
    if n == 0:
        theta, variance = f8[base + G] - f8[base + SHIFT], f8[base + VG]
    else:
        nearest = days + DAY_WORDS * max(index - 1, 0)
        theta, variance = f8[nearest], f8[nearest + 1]
    word = days + DAY_WORDS * index
    behind = DAY_WORDS * (n - index) + SNAPSHOT_WORDS * i4[half + N_SNAPSHOTS]
    move(s, word, word + DAY_WORDS, behind)
    f8[word] = theta
    f8[word + 1] = variance
    for k in range(2, DAY_WORDS):
        i8[word + k] = 0
    i4[2 * word + D_DAY] = number
    i4[half + N_DAYS] = n + 1
    return word, rows, snapshots


@compiled
def snapshot_topic(
    s: Arrays,
    base: int,
    day: int,
    before: int,
    topic: int,
    theta: float,
    variance: float,
    in_order: bool,
) -> None:
    """Record a topic's ability on a day; of a past day only where there is none yet."""
    f8, i4 = s.f8, s.i4
    half = 2 * base
    first = (
        base
        + HEAD_WORDS
        + TOPIC_WORDS * i4[half + N_TOPICS]
        + DAY_WORDS * i4[half + N_DAYS]
        + SNAPSHOT_WORDS * before
    )
    n = i4[2 * day + D_SNAPSHOTS]
    for k in range(n):
        word = first + SNAPSHOT_WORDS * k
        if i4[2 * word + S_TOPIC] == topic:
            if in_order:
                f8[word] = theta
                f8[word + 1] = variance
            return
    word = first + SNAPSHOT_WORDS * n
    move(
        s,
        word,
        word + SNAPSHOT_WORDS,
        SNAPSHOT_WORDS * (i4[half + N_SNAPSHOTS] - before - n),
    )
    f8[word] = theta
    f8[word + 1] = variance
    s.i8[word + 2] = 0
    i4[2 * word + S_TOPIC] = topic
    i4[2 * day + D_SNAPSHOTS] = n + 1
    i4[half + N_SNAPSHOTS] += 1


@compiled
def append_row(
    s: Arrays,
    base: int,
    at: int,
    attempt: int,
    time_ms: int,
    response: int,
    item: int,
    topic_flags: int,
) -> None:
    """Put a row at a place among the learner's rows."""
    i8, i4 = s.i8, s.i4
    half = 2 * base
    n = i4[half + N_ROWS]
    hashes = i8[base + ROWS_AT]
    rows = hashes + i4[half + ROWS_CAPACITY]
    if at < n:
        move(s, hashes + at, hashes + at + 1, n - at)
        move(s, rows + ROW_WORDS * at, rows + ROW_WORDS * (at + 1), ROW_WORDS * (n - at))
    i8[hashes + at] = attempt
    row = 2 * (rows + ROW_WORDS * at)
    i4[row] = time_ms
    i4[row + 1] = response
    i4[row + 2] = item
    i4[row + 3] = topic_flags
    i4[half + N_ROWS] = n + 1


@compiled
def fold_attempt(
    s: Arrays,
    learner: int,
    attempt: int,
    item: int,
    topic: int,
    completed_ms: int,
    response: int,
    flags: int,
) -> None:
    """Fold a valid attempt that is neither known nor late; there is room for it."""
    i8, f8, i4 = s.i8, s.f8, s.i4
    base = s.at[learner]
    half = 2 * base
    number = completed_ms // DAY_MS
    in_order = number >= i8[base + LATEST_MS] // DAY_MS
    correct = flags & CORRECT_FLAG
    a, b = s.item_params[item, 0], s.item_params[item, 1]
    c, b_variance = s.item_params[item, 2], s.item_params[item, 3]
    hash_ = s.item_hash[item]
    folded = i4[half + FOLDED]
    g, vg = f8[base + G], f8[base + VG]
    index, word = NO_TOPIC, -1
    if topic >= 0:
        index, word = topic_of(s, base, topic)
    day, rows_before, snapshots_before = day_of(s, base, number)
    at_once = enters_at_once(s, base, completed_ms)
    gain = 0.0
    if s.control[WEIGHTED]:
        start_ms = completed_ms - response if response > 0 else completed_ms
        gain = advantage(s, base, word, hash_, start_ms)
    drift = s.filter[3] / (1.0 + folded / s.filter[4])
    if topic < 0:
        theta = g
        g, vg = match(g, vg + drift, a, b - gain / a, c, correct != 0, b_variance)
    else:
        d0, slope, rest = f8[word], f8[word + 1], f8[word + 2]
        theta, _ = topic_ability(g, vg, d0, slope, rest)
        topic_folded = i4[2 * word + T_FOLDED]
        topic_drift = s.filter[5] / (1.0 + topic_folded / s.filter[6])
        g, vg, d0, slope, rest = fold_drifted(
            *(g, vg, d0, slope, rest, a, b - gain / a, c, correct != 0, b_variance),
            *(drift, topic_drift),
        )
        f8[word], f8[word + 1], f8[word + 2] = d0, slope, rest
        s.topic_counts[topic, 0] += 1
        s.topic_counts[topic, 1] += correct
        s.topic_counts[topic, 2] += i4[2 * word + T_ATTEMPTS] == 0
        s.topic_changed[topic] = 1
        i4[2 * word + T_FOLDED] = topic_folded + 1
        i4[2 * word + T_ATTEMPTS] += 1
        i4[2 * word + T_CORRECT] += correct
        i8[word + 3] = max(i8[word + 3], completed_ms)
        after, variance = topic_ability(g, vg, d0, slope, rest)
        after -= f8[base + SHIFT]
        snapshot_topic(s, base, day, snapshots_before, index, after, variance, in_order)
    f8[base + G], f8[base + VG] = g, vg
    if in_order:
        # A late attempt leaves earlier snapshots as they were seen.
        f8[day], f8[day + 1] = g - f8[base + SHIFT], vg
    append_row(
        s,
        base,
        rows_before + i4[2 * day + D_ROWS],
        attempt,
        completed_ms - number * DAY_MS,
        response,
        hash_,
        index | (flags << 16),
    )
    i4[2 * day + D_ROWS] += 1
    i4[2 * day + D_ATTEMPTS] += 1
    i4[2 * day + D_CORRECT] += correct
    i4[2 * day + D_CHANGED] = 1
    expected = plug_in(theta, a, b, c, gain)
    f8[base + FORM] = next_form(f8[base + FORM], expected, correct != 0)
    if at_once:
        remember(s, base, hash_, folded, completed_ms // 1000, correct)
        i4[half + SETTLED] = folded + 1
    i4[half + FOLDED] = folded + 1
    i4[half + ATTEMPTS] += 1
    i4[half + CORRECT_N] += correct
    if number < i4[half + FIRST_DAY]:
        i4[half + FIRST_DAY] = number
    if completed_ms > i8[base + LATEST_MS]:
        i8[base + LATEST_MS] = completed_ms
        if number > s.control[STREAM_WEEK] + 6:
            s.control[STREAM_WEEK] = number - (number + 3) % 7
    s.item_counts[item, 0] += 1
    s.item_counts[item, 1] += correct
    s.item_sums[item, 0] += expected
    s.item_sums[item, 1] += expected * (1.0 - expected)
    s.item_changed[item] = 1
    mark(s, learner)


@compiled
def fold(
    s: Arrays,
    start: int,
    end: int,
    learner: I4,
    attempt: I8,
    item: I4,
    topic: I4,
    completed_ms: I8,
    response: I4,
    flags: U1,
    outcome: U1,
    lag_ms: I8,
) -> int:
    """Fold the attempts ``start`` to ``end`` of a batch.

    Parameters
    ----------
    s
        The partition.
    learner, attempt, item, topic, completed_ms, response, flags
        Columns of the batch, (n,): learner, 64 bits of the attempt id, item, topic or -1, event
        time, response time (ms, -1 for none), row flags.
    outcome
        (n,). In: OPERATION for a void or regrade, REFUSED to skip a record. Out: what became of
        each attempt.
    lag_ms
        (n,). Out: of a late attempt, by how much it is behind the learner's latest.

    Returns
    -------
    int
        The first attempt not folded: ``end``, an operation, or one for which the heap is full
        (outcome FULL).
    """
    for k in range(start, end):
        if outcome[k] == OPERATION:
            return k
        if outcome[k] == REFUSED:
            continue
        who = learner[k]
        base = s.at[who]
        if base >= 0:
            if known(s, base, attempt[k]):
                outcome[k] = DUPLICATE
                continue
            lag = s.i8[base + LATEST_MS] - completed_ms[k]
            if lag > s.control[LATENESS_MS]:
                outcome[k] = TOO_LATE
                lag_ms[k] = lag
                continue
        elif not begin(s, who):
            outcome[k] = FULL
            return k
        if not (settle(s, who, completed_ms[k]) and reserve(s, who)):
            outcome[k] = FULL
            return k
        fold_attempt(
            s,
            who,
            attempt[k],
            item[k],
            topic[k],
            completed_ms[k],
            response[k],
            int(np.int64(flags[k])),
        )
        outcome[k] = ACCEPTED
    return end


@compiled
def rebase(s: Arrays, learner: int, theta: float, day: int) -> bool:
    """Move a learner so that its ability at the end of a day is ``theta``.

    Returns
    -------
    bool
        False, and nothing moved, when no day up to then is stored.
    """
    f8, i4 = s.f8, s.i4
    base = s.at[learner]
    half = 2 * base
    topics = base + HEAD_WORDS
    days = topics + TOPIC_WORDS * i4[half + N_TOPICS]
    for index in range(i4[half + N_DAYS] - 1, -1, -1):
        word = days + DAY_WORDS * index
        if i4[2 * word + D_DAY] <= day:
            shift = theta - (f8[word] + f8[base + SHIFT])
            f8[base + G] += shift
            f8[base + SHIFT] += shift
            for k in range(i4[half + N_TOPICS]):
                topic = topics + TOPIC_WORDS * k
                f8[topic] -= f8[topic + 1] * shift
            mark(s, learner)
            return True
    return False
