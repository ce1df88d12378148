"""An attempt's row among those of its learner, and making room for rows.

A block of rows holds one word a row for the hash of the attempt's id, then the rows themselves:
three 32-bit halves each, or four for a learner with more topics than five bits can tell.

====  ===========================================================================
half  holds
====  ===========================================================================
0     ms within the day (27 bits), flags (4 bits)
1     hash of the item
2     response time in ms and one, 0 for none (27 bits); of three halves: topic (5)
3     topic
====  ===========================================================================

The topic is its place among the learner's; 31 in three halves, 0xFFFF in four, for none.
"""

from __future__ import annotations

from stream.compiling import compiled
from stream.engine.day import NO_TOPIC, OPERATION, VOIDED
from stream.engine.kernel.layout import N_ROWS, ROW_HALVES, ROWS_AT, ROWS_CAPACITY, Arrays
from stream.engine.kernel.moving import move_halves

__all__ = [
    "NARROW",
    "UNCOUNTED",
    "block_words",
    "close_rows",
    "flags_of",
    "halves_for",
    "item_of",
    "open_rows",
    "put_row",
    "response_of",
    "row_place",
    "time_of",
    "topic_of_row",
]

NARROW, WIDE = 3, 4
"""Halves of a row."""

UNCOUNTED = VOIDED | OPERATION
"""Flags of the rows that no count holds."""

_NO_TOPIC_NARROW = 31

_BITS = 27
_LOW = (1 << _BITS) - 1


@compiled
def halves_for(topics: int) -> int:
    """Return the halves that a row of a learner with so many topics takes."""
    return NARROW if topics <= _NO_TOPIC_NARROW else WIDE


@compiled
def block_words(rows: int, halves: int) -> int:
    """Return the words that so many rows take, with the hashes of their attempts."""
    return rows + (halves * rows + 1) // 2


@compiled
def row_place(s: Arrays, base: int, row: int) -> int:
    """Return the first half of a row."""
    half = 2 * base
    first = 2 * (s.i8[base + ROWS_AT] + s.i4[half + ROWS_CAPACITY])
    return first + s.i4[half + ROW_HALVES] * row


@compiled
def time_of(s: Arrays, place: int) -> int:
    """Return a row's time, ms within its day."""
    return s.i4[place] & _LOW


@compiled
def flags_of(s: Arrays, place: int) -> int:
    """Return a row's flags."""
    return (s.i4[place] >> _BITS) & 15


@compiled
def item_of(s: Arrays, place: int) -> int:
    """Return the hash of a row's item (signed)."""
    return s.i4[place + 1]


@compiled
def response_of(s: Arrays, place: int) -> int:
    """Return a row's response time in ms, -1 for none."""
    return (s.i4[place + 2] & _LOW) - 1


@compiled
def topic_of_row(s: Arrays, place: int, halves: int) -> int:
    """Return the place of a row's topic among those of its learner, or NO_TOPIC."""
    if halves == WIDE:
        return s.i4[place + 3]
    topic = (s.i4[place + 2] >> _BITS) & _NO_TOPIC_NARROW
    return NO_TOPIC if topic == _NO_TOPIC_NARROW else topic


@compiled
def put_row(
    s: Arrays,
    place: int,
    halves: int,
    time_ms: int,
    response: int,
    item: int,
    topic: int,
    flags: int,
) -> None:
    """Write a row; arguments as they are read."""
    i4 = s.i4
    i4[place] = time_ms | flags << _BITS
    i4[place + 1] = item
    i4[place + 2] = response + 1
    if halves == WIDE:
        i4[place + 3] = topic
    else:
        i4[place + 2] |= min(topic, _NO_TOPIC_NARROW) << _BITS


@compiled
def open_rows(s: Arrays, base: int, at: int, n: int) -> None:
    """Make a gap of ``n`` rows before row ``at``; there is room for them."""
    later = s.i4[2 * base + N_ROWS] - at
    if later > 0:
        hashes = 2 * (s.i8[base + ROWS_AT] + at)
        move_halves(s, hashes, hashes + 2 * n, 2 * later)
        halves = s.i4[2 * base + ROW_HALVES]
        move_halves(s, row_place(s, base, at), row_place(s, base, at + n), halves * later)
    s.i4[2 * base + N_ROWS] += n


@compiled
def close_rows(s: Arrays, base: int, at: int, n: int) -> None:
    """Leave out the ``n`` rows from ``at`` on."""
    later = s.i4[2 * base + N_ROWS] - at - n
    hashes = 2 * (s.i8[base + ROWS_AT] + at)
    move_halves(s, hashes + 2 * n, hashes, 2 * later)
    halves = s.i4[2 * base + ROW_HALVES]
    move_halves(s, row_place(s, base, at + n), row_place(s, base, at), halves * later)
    s.i4[2 * base + N_ROWS] -= n
