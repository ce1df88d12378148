"""All that is published of changed learners: abilities, daily and weekly rows, state rows."""

from __future__ import annotations

from stream.compiling import compiled
from stream.engine.kernel.daily import write_features
from stream.engine.kernel.days import (
    DAY_WORDS,
    changed,
    days_at,
    forget_day,
    mark_flushed,
    n_rows,
    n_snapshots,
    number_of,
    tally,
)
from stream.engine.kernel.layout import (
    DAY_MS,
    HEAD_WORDS,
    I8,
    LATEST_MS,
    N_DAYS,
    N_ROWS,
    N_SNAPSHOTS,
    N_TOPICS,
    PUBLISHED_MS,
    STORAGE_DAYS,
    T_TOPIC,
    TOPIC_WORDS,
    U1,
    Arrays,
)
from stream.engine.kernel.transfer import export_day, export_head, export_size
from stream.engine.kernel.updates import put_user, write_theta
from stream.engine.kernel.weekly import changed_from, week_of, weeks_end, write_weeks

__all__ = [
    "FEATURES",
    "KPIS",
    "META_COLUMNS",
    "STATE",
    "THETA",
    "TOMBSTONE",
    "write_changed",
    "write_idle_weeks",
]

STATE, THETA, FEATURES, KPIS = range(4)
"""Kinds of messages."""

TOMBSTONE = -1
META_COLUMNS = 5
"""A message: kind, key's place and size, value's place and size (TOMBSTONE: no value)."""

_ROW_ROOM = 420
"""Most bytes of a daily or weekly row beside its names."""


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
    counts, rest = tally(s, base, scratch)
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
    for k in range(s.i4[2 * base + N_DAYS]):
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
                mark_flushed(s, day)
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
        counts, rest = tally(s, base, scratch)
        at = write_weeks(
            s, learner, counts, first, last, False, context, target, version, rest, out, value
        )
        n = note(meta, n, KPIS, key, value, at)
    return end, n, at
