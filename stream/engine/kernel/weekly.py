"""The weekly rows of a learner, as JSON.

The formulas are those of :mod:`stream.domain.kpi`, which tests hold this against.
"""

from __future__ import annotations

from math import erfc, sqrt

import numpy as np

from stream.compiling import compiled
from stream.engine.day import CORRECT
from stream.engine.kernel.days import DAY_WORDS, ability_at, changed, days_at, n_rows, number_of
from stream.engine.kernel.improvement import RECENT, WINDOW, improvement
from stream.engine.kernel.layout import (
    DAY_MS,
    FIRST_DAY,
    I8,
    LATEST_MS,
    N_DAYS,
    N_ROWS,
    PUBLISHED_MS,
    ROW_HALVES,
    SHIFT,
    U1,
    Arrays,
)
from stream.engine.kernel.rows import (
    UNCOUNTED,
    flags_of,
    item_of,
    response_of,
    row_place,
    time_of,
)
from stream.engine.kernel.sorting import median, sort
from stream.engine.kernel.updates import (
    END_ROWS,
    ROWS,
    USE_THETA,
    WEEK,
    open_update,
    put_source,
    put_version,
)
from stream.engine.kernel.writing import put_float, put_int, put_text, text

__all__ = ["changed_from", "week_of", "weeks_end", "write_weeks"]

_WEEKS_AFTER = 28
"""Days after its latest attempt for which a learner has weekly rows."""

_SESSION_GAP_MS = 30 * 60 * 1000
_NAN = float("nan")

_WEEK = text('{"week_start":')
_I = text(',"kpis":{"I_t":')
_I_ACCURACY = text(',"I_t_accuracy":')
_E = text(',"E_t":')
_R = text(',"R_t":')
_A = text(',"A_t":')
_P = text(',"P":')
_S = text(',"S":')
_CLOSE_TWICE = text("}}")


@compiled
def week_of(day: int) -> int:
    """As :func:`stream.domain.window.week_of`."""
    return day - (day + 3) % 7


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
    row_at = row_place(s, base, 0)
    for k in range(i4[half + N_DAYS]):
        day = days_at(s, base) + DAY_WORDS * k
        number, rows, first_at = number_of(s, day), n_rows(s, day), row_at
        row_at += halves * rows
        if number > as_of - WINDOW and number <= as_of and counts[2 * k] > 0:
            if n_active == 0:
                for j in range(slots):
                    items[j] = -1
            else:
                gaps += number - last_day
                gaps_squared += (number - last_day) ** 2
            n_active += 1
            last_day, last = number, 2 * day
            if rows > 1:
                sessions += sessions_of(s, first_at, row_at, halves, rest[3 * slots :])
            else:
                sessions += 1
            for place in range(first_at, row_at, halves):
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
                if flags & CORRECT:
                    response = response_of(s, place)
                    if response >= 0:
                        if number > as_of - RECENT:
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
        theta += s.f8[base + SHIFT]
        chance = 0.5 * erfc((target - theta) / sqrt(variance) / sqrt(2.0))
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
            at = put_text(out, at, ROWS)
        written += 1
        at = write_week(s, base, counts, week, context, target, scratch, out, at)
    if at == start:
        return at
    at = put_text(out, at, END_ROWS)
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
