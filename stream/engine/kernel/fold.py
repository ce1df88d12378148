"""Folding attempts into learners: duplicates, lateness, the filter, counts, snapshots, memory.

What happens to one attempt is said in ``docs/counting-rules.md``; tests hold this against a plain
Python form of the same rules.
"""

from __future__ import annotations

import numpy as np

from stream.compiling import compiled
from stream.domain.ability import fold_drifted, match, topic_ability
from stream.domain.practice import features, next_form, plug_in
from stream.engine.day import CORRECT, NO_TOPIC
from stream.engine.kernel.changing import begin_change, end_change
from stream.engine.kernel.days import (
    DAY_WORDS,
    SNAPSHOT_HALVES,
    ability_at,
    add_rows,
    add_snapshots,
    change,
    days_at,
    find_day,
    insert_day,
    n_rows,
    n_snapshots,
    number_of,
    put_ability,
    put_snapshot,
    snapshots_at,
    topic_of_snapshot,
)
from stream.engine.kernel.heap import begin, reserve, used_head
from stream.engine.kernel.layout import (
    ATTEMPTS,
    CORRECT_N,
    DAY_MS,
    FIRST_DAY,
    FOLDED,
    FORM,
    HEAD_WORDS,
    I4,
    I8,
    LATENESS_MS,
    LATEST_MS,
    N_CHANGED,
    N_DAYS,
    N_ROWS,
    N_TOPICS,
    RETAINED_DAYS,
    ROW_HALVES,
    ROWS_AT,
    SETTLED,
    SHIFT,
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
from stream.engine.kernel.memory import enters_at_once, remember, settle, trace_of
from stream.engine.kernel.moving import move
from stream.engine.kernel.rows import open_rows, put_row, row_place

__all__ = ["ACCEPTED", "DUPLICATE", "OPERATION", "TOO_LATE", "fold", "mark", "rebase"]

ACCEPTED, DUPLICATE, TOO_LATE, OPERATION, FULL, REFUSED = range(6)
"""Outcomes. An OPERATION (void, regrade) is left to the caller; FULL: the heap must grow; a REFUSED
record is no event."""

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
    day = days_at(s, base)
    start = 0
    while start < n and number_of(s, day) < oldest:
        start += n_rows(s, day)
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
def advantage(s: Arrays, base: int, topic: int, item: int, start_ms: int) -> float:
    """As :func:`stream.domain.practice.advantage`; ``topic`` (its word) may be -1."""
    i8, i4 = s.i8, s.i4
    right = wrong = 0
    topic_s = 0.0
    if topic >= 0:
        right = i4[2 * topic + T_CORRECT]
        wrong = i4[2 * topic + T_ATTEMPTS] - right
        topic_s = i8[topic + 3] / 1000
    trace = trace_of(s, base, s.item_hash[item])
    folded = i4[2 * base + FOLDED]
    row = features(right, wrong, topic_s, s.f8[base + FORM], trace, folded, start_ms / 1000)
    total = s.item_params[item, 4] if trace[0] >= 0 else 0.0
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
    move(s, word, word + TOPIC_WORDS, base + used_head(s, base) - word)
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
    found, index, rows, snapshots = find_day(s, base, number)
    days = days_at(s, base)
    day = days + DAY_WORDS * index
    if found:
        return day, rows, snapshots
    if s.i4[2 * base + N_DAYS] == 0:
        theta, variance = s.f8[base + G] - s.f8[base + SHIFT], s.f8[base + VG]
    else:
        theta, variance = ability_at(s, 2 * (days + DAY_WORDS * max(index - 1, 0)))
    insert_day(s, base, index, number)
    put_ability(s, 2 * day, theta, variance)
    return day, rows, snapshots


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
    place = snapshots_at(s, base) + SNAPSHOT_HALVES * before
    n = n_snapshots(s, day)
    for _ in range(n):
        if topic_of_snapshot(s, place) == topic:
            if in_order:
                put_ability(s, place, theta, variance)
            return
        place += SNAPSHOT_HALVES
    add_snapshots(s, base, day, before + n, 1)
    put_snapshot(s, place, topic, theta, variance)


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
    correct = flags & CORRECT
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
        gain = advantage(s, base, word, item, start_ms)
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
        put_ability(s, 2 * day, g - f8[base + SHIFT], vg)
    row = rows_before + n_rows(s, day)
    open_rows(s, base, row, 1)
    i8[i8[base + ROWS_AT] + row] = attempt
    place = row_place(s, base, row)
    put_row(
        s,
        place,
        i4[half + ROW_HALVES],
        completed_ms - number * DAY_MS,
        response,
        hash_,
        index,
        flags,
    )
    add_rows(s, day, 1)
    change(s, day)
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
        begin_change(s.control, who)
        room = base >= 0 or begin(s, who)
        if not (room and settle(s, who, completed_ms[k]) and reserve(s, who)):
            end_change(s.control)
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
        end_change(s.control)
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
    days = days_at(s, base)
    for index in range(i4[half + N_DAYS] - 1, -1, -1):
        word = days + DAY_WORDS * index
        if number_of(s, word) <= day:
            shift = theta - (ability_at(s, 2 * word)[0] + f8[base + SHIFT])
            begin_change(s.control, learner)
            f8[base + G] += shift
            f8[base + SHIFT] += shift
            for k in range(i4[half + N_TOPICS]):
                topic = topics + TOPIC_WORDS * k
                f8[topic] -= f8[topic + 1] * shift
            end_change(s.control)
            mark(s, learner)
            return True
    return False
