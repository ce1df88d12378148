"""What is published of a learner, as JSON: abilities, daily rows, weekly rows; and its state rows.

The records are those of :mod:`schemas.outputs`; the formulas those of
:mod:`stream.domain.improvement` and :mod:`stream.domain.kpi`, which tests hold this against.
"""

from __future__ import annotations

from math import erfc, sqrt

import numpy as np

from stream.compiling import compiled
from stream.engine.kernel.days import (
    DAY_WORDS,
    SNAPSHOT_HALVES,
    ability_at,
    changed,
    days_at,
    forget_day,
    n_rows,
    n_snapshots,
    number_of,
    settle_day,
    snapshots_at,
    tally,
)
from stream.engine.kernel.layout import (
    ATTEMPTS,
    CORRECT_N,
    DAY_MS,
    FIRST_DAY,
    HEAD_WORDS,
    I8,
    LATEST_MS,
    N_DAYS,
    N_ROWS,
    N_SNAPSHOTS,
    N_TOPICS,
    PUBLISHED_MS,
    ROW_HALVES,
    SHIFT,
    STORAGE_DAYS,
    T_ATTEMPTS,
    T_TOPIC,
    TOPIC_WORDS,
    U1,
    VG,
    Arrays,
    G,
)
from stream.engine.kernel.rows import (
    CORRECT_FLAG,
    HINT_FLAG,
    UNCOUNTED,
    flags_of,
    item_of,
    response_of,
    row_place,
    time_of,
    topic_of_row,
)
from stream.engine.kernel.sorting import sort
from stream.engine.kernel.transfer import export_day, export_head, export_size
from stream.engine.kernel.writing import (
    put_bytes,
    put_float,
    put_int,
    put_json_text,
    put_text,
    text,
)

__all__ = ["FEATURES", "KPIS", "STATE", "THETA", "write_changed", "write_idle_weeks"]

STATE, THETA, FEATURES, KPIS = range(4)
"""Kinds of messages."""

TOMBSTONE = -1
META_COLUMNS = 5
"""A message: kind, key's place and size, value's place and size (TOMBSTONE: no value)."""

# Columns of the context.
PARTITION, OFFSET, COMPUTED_AT, WEEK, USE_THETA, INCLUDE_THETA, VERSION = range(7)

_WINDOW, _RECENT, _WEEKS_AFTER = 28, 14, 28  # days
_SESSION_GAP_MS = 30 * 60 * 1000
_ROW_ROOM = 420
"""Most bytes of a daily or weekly row beside its names."""

_USER = text('{"user_id":')
_THETA = text(',"theta":')
_SE = text(',"se":')
_N = text(',"n":')
_CORRECT = text(',"correct":')
_LAST = text(',"last_attempt_at":')
_VERSION = text(',"params_version":')
_TOPICS = text(',"topics":[')
_TOPIC = text('{"topic_id":')
_END_ROWS = text("]")
_ROWS = text(',"rows":[')
_SOURCE = text(',"source_partition":')
_OFFSET = text(',"source_offset":')
_COMPUTED = text(',"computed_at":')
_DATE = text(',"date":')
_ATTEMPTS = text(',"attempts":')
_HINTS = text(',"hints":')
_AVERAGE = text(',"avg_time_ms":')
_MEDIAN = text(',"rt_median":')
_ESTIMATE = text(',"theta_estimate":')
_SD = text(',"theta_sd":')
_IMPROVEMENT = text(',"improvement":')
_ACCURACY = text(',"improvement_accuracy":')
_SEEN = text(',"last_seen_at":')
_WEEK = text('{"week_start":')
_I = text(',"kpis":{"I_t":')
_I_ACCURACY = text(',"I_t_accuracy":')
_E = text(',"E_t":')
_R = text(',"R_t":')
_A = text(',"A_t":')
_P = text(',"P":')
_S = text(',"S":')
_CLOSE = text("}")
_CLOSE_TWICE = text("}}")
_NAN = float("nan")


@compiled
def week_of(day: int) -> int:
    """As :func:`stream.domain.window.week_of`."""
    return day - (day + 3) % 7


@compiled
def median(values: I8, n: int) -> float:
    """Sort the first n values and return their median, nan without any."""
    if n == 0:
        return _NAN
    sort(values, n)
    middle = n // 2
    if n % 2:
        return float(values[middle])
    return (values[middle - 1] + values[middle]) / 2


@compiled
def improvement(
    s: Arrays, base: int, counts: I8, as_of: int, use_theta: int
) -> tuple[float, float]:
    """Return (I_t, I_t in its accuracy form) at a day, nan without evidence.

    ``counts`` holds every day's attempts and correct ones.
    """
    day = days_at(s, base) - DAY_WORDS
    n_prev = k_prev = n_recent = k_recent = 0
    last_prev = last_recent = -1
    for k in range(s.i4[2 * base + N_DAYS]):
        day += DAY_WORDS
        number, attempts = number_of(s, day), counts[2 * k]
        if attempts == 0 or number > as_of or number <= as_of - _WINDOW:
            continue
        if number > as_of - _RECENT:
            n_recent += attempts
            k_recent += counts[2 * k + 1]
            last_recent = 2 * day
        else:
            n_prev += attempts
            k_prev += counts[2 * k + 1]
            last_prev = 2 * day
    if last_prev < 0 or last_recent < 0:
        return _NAN, _NAN
    exposure = min(1.0, n_recent / 30)
    p = k_recent / n_recent
    se = sqrt(p * (1 - p) / n_recent)
    accuracy = (p - k_prev / n_prev) * exposure * (1.0 - min(0.5, 1.96 * se))
    if not use_theta or n_recent < 5:
        return accuracy, accuracy
    theta, variance = ability_at(s, last_recent)
    gain = theta - ability_at(s, last_prev)[0]
    value = gain * exposure * (1.0 - min(0.5, 1.96 * sqrt(variance)))
    return max(-1.0, min(1.0, value)), accuracy


@compiled
def put_user(s: Arrays, learner: int, out: U1, at: int) -> int:
    return put_bytes(out, at, s.names, s.user_at[learner], s.user_len[learner])


@compiled
def open_update(s: Arrays, learner: int, out: U1, at: int) -> int:
    at = put_text(out, at, _USER)
    return put_json_text(out, at, s.names, s.user_at[learner], s.user_len[learner])


@compiled
def put_source(context: I8, out: U1, at: int) -> int:
    at = put_text(out, at, _SOURCE)
    at = put_int(out, at, context[PARTITION])
    at = put_text(out, at, _OFFSET)
    at = put_int(out, at, context[OFFSET])
    at = put_text(out, at, _COMPUTED)
    at = put_int(out, at, context[COMPUTED_AT])
    return put_text(out, at, _CLOSE)


@compiled
def put_version(version: U1, out: U1, at: int) -> int:
    at = put_text(out, at, _VERSION)
    return put_json_text(out, at, version, 0, version.shape[0])


@compiled
def write_theta(s: Arrays, learner: int, context: I8, version: U1, out: U1, at: int) -> int:
    """Write a ThetaUpdate."""
    i8, f8, i4 = s.i8, s.f8, s.i4
    base = s.at[learner]
    half = 2 * base
    at = open_update(s, learner, out, at)
    at = put_text(out, at, _THETA)
    at = put_float(out, at, f8[base + G])
    at = put_text(out, at, _SE)
    at = put_float(out, at, sqrt(f8[base + VG]))
    at = put_text(out, at, _N)
    at = put_int(out, at, i4[half + ATTEMPTS])
    at = put_text(out, at, _CORRECT)
    at = put_int(out, at, i4[half + CORRECT_N])
    at = put_text(out, at, _LAST)
    at = put_int(out, at, i8[base + LATEST_MS])
    at = put_version(version, out, at)
    at = put_text(out, at, _TOPICS)
    for k in range(i4[half + N_TOPICS]):
        word = base + HEAD_WORDS + TOPIC_WORDS * k
        topic = i4[2 * word + T_TOPIC]
        load = 1.0 + f8[word + 1]
        if k:
            out[at] = 44
            at += 1
        at = put_text(out, at, _TOPIC)
        at = put_json_text(out, at, s.names, s.topic_at[topic], s.topic_len[topic])
        at = put_text(out, at, _THETA)
        at = put_float(out, at, f8[word] + load * f8[base + G])
        at = put_text(out, at, _SE)
        at = put_float(out, at, sqrt(load * load * f8[base + VG] + f8[word + 2]))
        at = put_text(out, at, _N)
        at = put_int(out, at, i4[2 * word + T_ATTEMPTS])
        at = put_text(out, at, _LAST)
        at = put_int(out, at, i8[word + 3])
        at = put_text(out, at, _CLOSE)
    at = put_text(out, at, _END_ROWS)
    return put_source(context, out, at)


@compiled
def write_features(
    s: Arrays,
    learner: int,
    counts: I8,
    context: I8,
    version: U1,
    scratch: I8,
    out: U1,
    at: int,
) -> int:
    """Write a FeatureUpdate with the daily rows that changes affect; ``at`` itself if none.

    A change on a day enters the windows of the 27 days after it, too.
    """
    i4 = s.i4
    base = s.at[learner]
    halves = i4[2 * base + ROW_HALVES]
    snapshot, row = snapshots_at(s, base), row_place(s, base, 0)
    start = at
    written = 0
    last_change = -1000
    for k in range(i4[2 * base + N_DAYS]):
        day = days_at(s, base) + DAY_WORDS * k
        number, rows, snapshots = number_of(s, day), n_rows(s, day), n_snapshots(s, day)
        first_row, first_snapshot = row, snapshot
        row += halves * rows
        snapshot += SNAPSHOT_HALVES * snapshots
        if changed(s, day):
            last_change = number
        if number >= last_change + _WINDOW:
            continue
        value, accuracy = improvement(s, base, counts, number, context[USE_THETA])
        for j in range(snapshots):
            ability = first_snapshot + SNAPSHOT_HALVES * j
            index = i4[ability + 2]
            attempts = correct = hints = n_times = total = 0
            latest = -1
            for place in range(first_row, row, halves):
                if topic_of_row(s, place, halves) != index:
                    continue
                flags = flags_of(s, place)
                if flags & UNCOUNTED:
                    continue
                attempts += 1
                correct += flags & CORRECT_FLAG
                hints += flags & HINT_FLAG != 0
                latest = max(latest, time_of(s, place))
                response = response_of(s, place)
                if response >= 0:
                    scratch[n_times] = response
                    total += response
                    n_times += 1
            topic = i4[2 * (base + HEAD_WORDS + TOPIC_WORDS * index) + T_TOPIC]
            if written:
                out[at] = 44
                at += 1
            else:
                at = open_update(s, learner, out, at)
                at = put_text(out, at, _ROWS)
            written += 1
            at = put_text(out, at, _TOPIC)
            at = put_json_text(out, at, s.names, s.topic_at[topic], s.topic_len[topic])
            at = put_text(out, at, _DATE)
            at = put_int(out, at, number)
            at = put_text(out, at, _ATTEMPTS)
            at = put_int(out, at, attempts)
            at = put_text(out, at, _CORRECT)
            at = put_int(out, at, correct)
            at = put_text(out, at, _HINTS)
            at = put_int(out, at, hints)
            at = put_text(out, at, _AVERAGE)
            at = put_float(out, at, total / n_times if n_times else _NAN)
            at = put_text(out, at, _MEDIAN)
            at = put_float(out, at, median(scratch, n_times))
            at = put_text(out, at, _ESTIMATE)
            theta, variance = ability_at(s, ability)
            at = put_float(out, at, theta + s.f8[base + SHIFT] if context[INCLUDE_THETA] else _NAN)
            at = put_text(out, at, _SD)
            at = put_float(out, at, sqrt(variance) if context[INCLUDE_THETA] else _NAN)
            at = put_text(out, at, _IMPROVEMENT)
            at = put_float(out, at, value)
            at = put_text(out, at, _ACCURACY)
            at = put_float(out, at, accuracy)
            at = put_text(out, at, _SEEN)
            if attempts:
                at = put_int(out, at, number * DAY_MS + latest)
            else:
                at = put_float(out, at, _NAN)
            at = put_text(out, at, _CLOSE)
    if at == start:
        return at
    at = put_text(out, at, _END_ROWS)
    at = put_version(version, out, at)
    return put_source(context, out, at)


@compiled
def sessions_of(s: Arrays, first: int, end: int, halves: int, scratch: I8) -> int:
    """Count the sessions of one day's valid rows, from one place to another."""
    n = 0
    in_order = True
    for place in range(first, end, halves):
        if flags_of(s, place) & UNCOUNTED:
            continue
        scratch[n] = time_of(s, place)
        in_order = in_order and (n == 0 or scratch[n - 1] <= scratch[n])
        n += 1
    if not in_order:
        sort(scratch, n)
    sessions = 1
    for k in range(1, n):
        sessions += scratch[k] - scratch[k - 1] > _SESSION_GAP_MS
    return sessions


@compiled
def write_week(
    s: Arrays,
    base: int,
    counts: I8,
    week: int,
    context: I8,
    target: float,
    scratch: I8,
    out: U1,
    at: int,
) -> int:
    """Write a KpiRow, computed as of the week's Sunday.

    ``scratch`` has room for sixteen words a row of the learner, and some.
    """
    i4 = s.i4
    half = 2 * base
    halves = i4[half + ROW_HALVES]
    as_of = week + 6
    # Parts of the scratch: recent and previous times, then a hash table of items.
    n_all = i4[half + N_ROWS]
    recent, previous = scratch[:n_all], scratch[n_all : 2 * n_all]
    slots = 4
    while slots < 2 * n_all:
        slots *= 2
    rest = scratch[2 * n_all :]
    items, missed, right = rest[:slots], rest[slots : 2 * slots], rest[2 * slots : 3 * slots]
    sessions = n_recent = n_previous = n_active = last_day = last = 0
    gaps = gaps_squared = 0
    row = row_place(s, base, 0)
    for k in range(i4[half + N_DAYS]):
        day = days_at(s, base) + DAY_WORDS * k
        number, rows, first_row = number_of(s, day), n_rows(s, day), row
        row += halves * rows
        if number > as_of - _WINDOW and number <= as_of and counts[2 * k] > 0:
            if n_active == 0:
                for j in range(slots):
                    items[j] = -1
            else:
                gaps += number - last_day
                gaps_squared += (number - last_day) ** 2
            n_active += 1
            last_day, last = number, 2 * day
            if rows > 1:
                sessions += sessions_of(s, first_row, row, halves, rest[3 * slots :])
            else:
                sessions += 1
            for place in range(first_row, row, halves):
                flags = flags_of(s, place)
                if flags & UNCOUNTED:
                    continue
                moment = number * DAY_MS + time_of(s, place)
                item = np.int64(item_of(s, place)) & 0xFFFF_FFFF
                slot = (item * 0x9E37_79B1) & (slots - 1)
                while items[slot] >= 0 and items[slot] != item:
                    slot = (slot + 1) & (slots - 1)
                if items[slot] < 0:
                    items[slot] = item
                    missed[slot] = -1
                    right[slot] = -1
                if flags & CORRECT_FLAG:
                    response = response_of(s, place)
                    if response >= 0:
                        if number > as_of - _RECENT:
                            recent[n_recent] = response
                            n_recent += 1
                        else:
                            previous[n_previous] = response
                            n_previous += 1
                    right[slot] = max(right[slot], moment)
                elif missed[slot] < 0 or moment < missed[slot]:
                    missed[slot] = moment
    value = accuracy = efficiency = recovery = engagement = chance = stopping = _NAN
    if n_active:
        value, accuracy = improvement(s, base, counts, as_of, context[USE_THETA])
        median_prev, median_recent = median(previous, n_previous), median(recent, n_recent)
        # A comparison with nan is false.
        if median_prev > 0.0 and n_recent > 0:
            efficiency = max(0.0, min(1.0, (median_prev - median_recent) / median_prev))
        n_missed = n_recovered = 0
        for j in range(slots):
            if items[j] >= 0 and missed[j] >= 0:
                n_missed += 1
                n_recovered += right[j] > missed[j]
        if n_missed:
            recovery = n_recovered / n_missed
        n_gaps = n_active - 1
        mean_gap = gaps / n_gaps if n_gaps else 7.0
        regularity = 0.0
        if n_active >= 3:
            # In whole numbers, so that equal gaps vary by exactly 0.
            variance = (n_gaps * gaps_squared - gaps * gaps) / (n_gaps * n_gaps)
            regularity = 1.0 / (1.0 + sqrt(variance) / mean_gap)
        engagement = 0.5 * min(1.0, sessions / 28) + 0.5 * regularity
        theta, variance = ability_at(s, last)
        above = target - theta - s.f8[base + SHIFT]
        chance = 0.5 * erfc(above / sqrt(2.0 * variance))
        stopping = (
            0.6 * min(1.0, (as_of - last_day) / 14)
            + 0.25 * min(1.0, mean_gap / 7)
            + 0.15 * (1.0 - min(1.0, sessions / 10))
        )
    at = put_text(out, at, _WEEK)
    at = put_int(out, at, week)
    at = put_text(out, at, _I)
    at = put_float(out, at, value)
    at = put_text(out, at, _I_ACCURACY)
    at = put_float(out, at, accuracy)
    at = put_text(out, at, _E)
    at = put_float(out, at, efficiency)
    at = put_text(out, at, _R)
    at = put_float(out, at, recovery)
    at = put_text(out, at, _A)
    at = put_float(out, at, engagement)
    at = put_text(out, at, _P)
    at = put_float(out, at, chance)
    at = put_text(out, at, _S)
    at = put_float(out, at, stopping)
    return put_text(out, at, _CLOSE_TWICE)


@compiled
def write_weeks(
    s: Arrays,
    learner: int,
    counts: I8,
    first: int,
    last: int,
    only_changed: bool,
    context: I8,
    target: float,
    version: U1,
    scratch: I8,
    out: U1,
    at: int,
) -> int:
    """Write a KpiUpdate of the weeks from first to last; ``at`` itself if there are none.

    With ``only_changed``, weeks already published are left out unless a changed day reaches them.
    """
    base = s.at[learner]
    published_ms = s.i8[base + PUBLISHED_MS]
    published = week_of(published_ms // DAY_MS) if published_ms else first - 7
    start = at
    written = 0
    for week in range(first, last + 1, 7):
        if only_changed and week <= published:
            reached = False
            for k in range(s.i4[2 * base + N_DAYS]):
                day = days_at(s, base) + DAY_WORDS * k
                if changed(s, day):
                    behind = week - week_of(number_of(s, day))
                    reached = reached or 0 <= behind <= _WEEKS_AFTER
            if not reached:
                continue
        if written:
            out[at] = 44
            at += 1
        else:
            at = open_update(s, learner, out, at)
            at = put_text(out, at, _ROWS)
        written += 1
        at = write_week(s, base, counts, week, context, target, scratch, out, at)
    if at == start:
        return at
    at = put_text(out, at, _END_ROWS)
    at = put_version(version, out, at)
    return put_source(context, out, at)


@compiled
def weeks_end(s: Arrays, base: int, context: I8) -> int:
    """Return the last week that a learner has a row of."""
    latest = week_of(s.i8[base + LATEST_MS] // DAY_MS)
    return min(latest + _WEEKS_AFTER, context[WEEK])


@compiled
def changed_from(s: Arrays, base: int) -> int:
    """Return the first week that changes since the last flush can reach."""
    i8, i4 = s.i8, s.i4
    first = week_of(i4[2 * base + FIRST_DAY])
    if i8[base + PUBLISHED_MS] == 0:
        return first
    week = week_of(i8[base + PUBLISHED_MS] // DAY_MS) + 7
    for k in range(i4[2 * base + N_DAYS]):
        day = days_at(s, base) + DAY_WORDS * k
        if changed(s, day):
            week = min(week, week_of(number_of(s, day)))
    return max(first, week)


@compiled
def room_for(s: Arrays, learner: int, weeks: int, longest: int, version: U1) -> int:
    """Return the most bytes that a learner's messages can take."""
    base = s.at[learner]
    half = 2 * base
    names = 0
    for k in range(s.i4[half + N_TOPICS]):
        names += s.topic_len[s.i4[2 * (base + HEAD_WORDS + TOPIC_WORDS * k) + T_TOPIC]]
    user = s.user_len[learner]
    return (
        export_size(s, learner)
        + (s.i4[half + N_DAYS] + 8) * (user + 4)
        + 6 * names
        + 160 * s.i4[half + N_TOPICS]
        + s.i4[half + N_SNAPSHOTS] * (_ROW_ROOM + 6 * longest)
        + weeks * _ROW_ROOM
        + 3 * (7 * user + 6 * version.shape[0] + 300)
    )


@compiled
def scratch_for(s: Arrays, base: int) -> int:
    """Return the words of scratch that a learner's messages need, counts of the days included."""
    return 16 * s.i4[2 * base + N_ROWS] + 2 * s.i4[2 * base + N_DAYS] + 64


@compiled
def note(meta: I8, n: int, kind: int, key: int, value: int, end: int) -> int:
    """Enter a message whose key and value lie one behind the other; return how many there are."""
    meta[n, 0] = kind
    meta[n, 1] = key
    meta[n, 2] = value - key
    meta[n, 3] = value
    meta[n, 4] = end - value
    return n + 1


@compiled
def write_changed(
    s: Arrays,
    start: int,
    end: int,
    state_version: int,
    longest: int,
    context: I8,
    target: float,
    version: U1,
    scratch: I8,
    out: U1,
    meta: I8,
) -> tuple[int, int, int]:
    """Write all messages of the changed learners from ``start`` on in the queue.

    Marks each as flushed: its days are unchanged, expired ones are gone.

    Parameters
    ----------
    state_version
        First byte of a head row.
    longest
        Bytes of the longest topic id.
    context
        Partition, offset, time of writing, latest week, and what the settings say.
    target
        Ability that P is about.
    version
        Name of the parameters in force.
    scratch
        Working space.
    out, meta
        The messages' bytes, and where each lies (messages, 5).

    Returns
    -------
    tuple
        The place in the queue of the first learner not written (its messages may not fit, or
        ``end`` is reached), the number of messages, and their bytes. When that number is 0 though
        learners remain: what the next one needs, scratch words (negative) or bytes (positive).
    """
    at = n = 0
    for place in range(start, end):
        learner = s.queue[place]
        base = s.at[learner]
        half = 2 * base
        first, last = changed_from(s, base), weeks_end(s, base, context)
        weeks = max(0, (last - first) // 7 + 1)
        room = room_for(s, learner, weeks, longest, version)
        needs = scratch_for(s, base)
        if needs > scratch.shape[0]:
            return place, n, (-needs if n == 0 else at)
        if at + room > out.shape[0] or n + s.i4[half + N_DAYS] + 8 > meta.shape[0]:
            if n == 0:
                return place, 0, room
            return place, n, at
        n, at = write_learner(
            s,
            learner,
            first,
            last,
            state_version,
            context,
            target,
            version,
            scratch,
            out,
            meta,
            n,
            at,
        )
    return end, n, at


@compiled
def write_learner(
    s: Arrays,
    learner: int,
    first: int,
    last: int,
    state_version: int,
    context: I8,
    target: float,
    version: U1,
    scratch: I8,
    out: U1,
    meta: I8,
    n: int,
    at: int,
) -> tuple[int, int]:
    """Write the messages of one changed learner; return their number and the place behind."""
    base = s.at[learner]
    n_days = s.i4[2 * base + N_DAYS]
    counts, rest = scratch[: 2 * n_days], scratch[2 * n_days :]
    tally(s, base, counts)
    key = at
    value = put_user(s, learner, out, key)
    at = write_theta(s, learner, context, version, out, value)
    n = note(meta, n, THETA, key, value, at)
    key = at
    value = put_user(s, learner, out, key)
    at = write_features(s, learner, counts, context, version, rest, out, value)
    if at > value:
        n = note(meta, n, FEATURES, key, value, at)
    key = at
    value = put_user(s, learner, out, key)
    at = write_weeks(
        s, learner, counts, first, last, True, context, target, version, rest, out, value
    )
    if at > value:
        n = note(meta, n, KPIS, key, value, at)
    oldest = s.i8[base + LATEST_MS] // DAY_MS - s.control[STORAGE_DAYS]
    rows = snapshots = expired = 0
    for k in range(n_days):
        day = days_at(s, base) + DAY_WORDS * k
        number = number_of(s, day)
        if number < oldest or changed(s, day):
            key = at
            out[key] = 68  # D
            out[key + 1] = number >> 8
            out[key + 2] = number & 0xFF
            value = put_user(s, learner, out, key + 3)
            if number < oldest:
                expired += 1
                at = value
                n = note(meta, n, STATE, key, value, value)
                meta[n - 1, 4] = TOMBSTONE
            else:
                attempts, correct = counts[2 * k], counts[2 * k + 1]
                at = export_day(s, base, day, rows, snapshots, attempts, correct, out, value)
                n = note(meta, n, STATE, key, value, at)
                settle_day(s, day)
        rows += n_rows(s, day)
        snapshots += n_snapshots(s, day)
    for _ in range(expired):
        forget_day(s, base, number_of(s, days_at(s, base)))
    key = at
    out[key] = 76  # L
    value = put_user(s, learner, out, key + 1)
    at = export_head(s, learner, state_version, out, value)
    n = note(meta, n, STATE, key, value, at)
    s.i8[base + PUBLISHED_MS] = s.i8[base + LATEST_MS]
    s.changed[learner] = 0
    return n, at


@compiled
def write_idle_weeks(
    s: Arrays,
    start: int,
    end: int,
    published: int,
    context: I8,
    target: float,
    version: U1,
    scratch: I8,
    out: U1,
    meta: I8,
) -> tuple[int, int, int]:
    """Write the weeks that have begun since the last flush of the learners without changes.

    Arguments and result as for :func:`write_changed`, learners in place of the queue;
    ``published`` is the latest week written for everybody.
    """
    at = n = 0
    for learner in range(start, end):
        base = s.at[learner]
        if base < 0 or s.changed[learner]:
            continue
        first = max(published, week_of(s.i8[base + LATEST_MS] // DAY_MS)) + 7
        last = weeks_end(s, base, context)
        if first > last:
            continue
        weeks = (last - first) // 7 + 1
        room = weeks * _ROW_ROOM + 8 * s.user_len[learner] + 6 * version.shape[0] + 300
        needs = scratch_for(s, base)
        if needs > scratch.shape[0]:
            return learner, n, (-needs if n == 0 else at)
        if at + room > out.shape[0] or n + 1 > meta.shape[0]:
            return learner, n, (room if n == 0 else at)
        key = at
        value = put_user(s, learner, out, key)
        n_days = s.i4[2 * base + N_DAYS]
        counts, rest = scratch[: 2 * n_days], scratch[2 * n_days :]
        tally(s, base, counts)
        at = write_weeks(
            s, learner, counts, first, last, False, context, target, version, rest, out, value
        )
        n = note(meta, n, KPIS, key, value, at)
    return end, n, at
