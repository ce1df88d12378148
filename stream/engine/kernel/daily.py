"""The daily rows of a learner, as JSON."""

from __future__ import annotations

from math import sqrt

from stream.compiling import compiled
from stream.engine.day import CORRECT, HINT
from stream.engine.kernel.days import (
    DAY_WORDS,
    SNAPSHOT_HALVES,
    ability_at,
    changed,
    days_at,
    n_rows,
    n_snapshots,
    number_of,
    snapshots_at,
    topic_of_snapshot,
)
from stream.engine.kernel.improvement import WINDOW, improvement
from stream.engine.kernel.layout import (
    DAY_MS,
    HEAD_WORDS,
    I8,
    N_DAYS,
    ROW_HALVES,
    SHIFT,
    T_TOPIC,
    TOPIC_WORDS,
    U1,
    Arrays,
)
from stream.engine.kernel.rows import (
    UNCOUNTED,
    flags_of,
    response_of,
    row_place,
    time_of,
    topic_of_row,
)
from stream.engine.kernel.sorting import median
from stream.engine.kernel.updates import (
    CLOSE,
    END_ROWS,
    INCLUDE_THETA,
    ROWS,
    TOPIC,
    USE_THETA,
    open_update,
    put_source,
    put_version,
)
from stream.engine.kernel.writing import put_float, put_int, put_json_text, put_text, text

__all__ = ["write_features"]

_NAN = float("nan")

_CORRECT = text(',"correct":')
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
    snapshot_at, row_at = snapshots_at(s, base), row_place(s, base, 0)
    start = at
    written = 0
    last_change = -1000
    for k in range(i4[2 * base + N_DAYS]):
        day = days_at(s, base) + DAY_WORDS * k
        number, rows, snapshots = number_of(s, day), n_rows(s, day), n_snapshots(s, day)
        first_at, ability = row_at, snapshot_at
        row_at += halves * rows
        snapshot_at += SNAPSHOT_HALVES * snapshots
        if changed(s, day):
            last_change = number
        if number >= last_change + WINDOW:
            continue
        value, accuracy = improvement(s, base, counts, number, context[USE_THETA])
        for _ in range(snapshots):
            index = topic_of_snapshot(s, ability)
            attempts = correct = hints = n_times = total = 0
            latest = -1
            for place in range(first_at, row_at, halves):
                if topic_of_row(s, place, halves) != index:
                    continue
                flags = flags_of(s, place)
                if flags & UNCOUNTED:
                    continue
                attempts += 1
                correct += flags & CORRECT
                hints += flags & HINT != 0
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
                at = put_text(out, at, ROWS)
            written += 1
            at = put_text(out, at, TOPIC)
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
            at = put_text(out, at, CLOSE)
            ability += SNAPSHOT_HALVES
    if at == start:
        return at
    at = put_text(out, at, END_ROWS)
    at = put_version(version, out, at)
    return put_source(context, out, at)
