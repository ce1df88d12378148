"""Reading plain attempts straight into columns.

A plain attempt is JSON with the known fields only, each once, texts of ASCII without escapes, times
in epoch milliseconds, and neither a void nor a regrade: what platforms send nearly always. Every
other record, good or bad, is left to :func:`stream.records.parse`; a test holds that whatever is
taken here would have been read the same there.
"""

from __future__ import annotations

import numpy as np

from schemas.attempt import LATEST_MS, MAX_RECORD_BYTES, SCHEMA_VERSION
from stream.compiling import compiled
from stream.engine.kernel.blake2b import MOST_BYTES, U8, blake2b_64
from stream.engine.kernel.layout import I4, I8, U1, Arrays
from stream.engine.kernel.names import find, number_user
from stream.kafka.packed_records import KEY, KEY_SIZE, TIMESTAMP, VALUE, VALUE_SIZE
from stream.records import TOO_EARLY_MS

__all__ = ["NEW_ITEM", "NEW_TOPIC", "NO_ROOM", "N_FIELDS", "PLAIN", "UNREAD", "scan"]

PLAIN, UNREAD = 0, 1
NO_ROOM, NEW_TOPIC, NEW_ITEM = 1, 2, 3

_FIELDS = (
    "attempt_id", "user_id", "item_id", "topic_id", "correct", "response_time_ms", "hint_used",
    "attempt_no", "completed_at", "session_id", "schema_version", "op", "supersedes", "tenant_id",
    "started_at",
)  # fmt: skip
(
    ATTEMPT, USER, ITEM, TOPIC, CORRECT, RESPONSE, HINT, NUMBER, COMPLETED, SESSION, VERSION, OP,
    SUPERSEDES, TENANT, STARTED,
) = range(len(_FIELDS))  # fmt: skip
_NAMES = np.frombuffer("".join(_FIELDS).encode(), np.uint8)
_SIZES = np.array([len(name) for name in _FIELDS], np.int64)
_STARTS = np.cumsum(_SIZES) - _SIZES
N_FIELDS = len(_FIELDS)
_REQUIRED = 1 << ATTEMPT | 1 << USER | 1 << ITEM | 1 << CORRECT | 1 << COMPLETED
_OP = np.frombuffer(b"attempt", np.uint8)
_TRUE = np.frombuffer(b"true", np.uint8)
_FALSE = np.frombuffer(b"false", np.uint8)
_NULL = np.frombuffer(b"null", np.uint8)
_MOST_TEXT = MOST_BYTES
_MOST_RESPONSE = 86_400_000
_BAD = -1
_ONE = np.uint64(1)


@compiled
def skip_space(data: U1, at: int, end: int) -> int:
    """Return the first place that is not JSON's white space."""
    while at < end:
        one = data[np.uint64(at)]
        if one != 32 and one != 10 and one != 13 and one != 9:
            return at
        at += 1
    return at


@compiled
def text_end(data: U1, at: int, end: int) -> int:
    """Return the closing quote of a text that begins at ``at``; _BAD unless ASCII, unescaped."""
    while at < end:
        one = data[np.uint64(at)]
        if one == 34:
            return at
        if one < 32 or one > 126 or one == 92:
            return _BAD
        at += 1
    return _BAD


@compiled
def literal(data: U1, at: int, end: int, word: U1) -> bool:
    """Tell whether a word stands at a place."""
    if at + word.shape[0] > end:
        return False
    place, size = np.uint64(at), np.uint64(word.shape[0])
    k = np.uint64(0)
    while k < size and data[place + k] == word[k]:
        k += _ONE
    return k == size


@compiled
def field_of(data: U1, at: int, size: int, guess: int) -> int:
    """Return the field with a name, _BAD if none; the guess is tried first."""
    field = guess % N_FIELDS
    for _ in range(N_FIELDS):
        if _SIZES[field] == size:
            start, place, length = np.uint64(_STARTS[field]), np.uint64(at), np.uint64(size)
            k = np.uint64(0)
            while k < length and _NAMES[start + k] == data[place + k]:
                k += _ONE
            if k == length:
                return field
        field = field + 1 if field + 1 < N_FIELDS else 0
    return _BAD


@compiled
def scan_object(data: U1, at: int, end: int, values: I8) -> bool:
    """Read one object into ``values`` (fields, 2): start and size of texts, or a number and 0.

    A null leaves (0, -1). Returns False for anything but a plain attempt.
    """
    values[:, 0] = 0
    values[:, 1] = -1
    at = skip_space(data, at, end)
    if at >= end or data[at] != 123:
        return False
    at += 1
    seen = 0
    field = _BAD
    while True:
        at = skip_space(data, at, end)
        if at >= end or data[at] != 34:
            return False
        close = text_end(data, at + 1, end)
        if close == _BAD:
            return False
        field = field_of(data, at + 1, close - at - 1, field + 1)
        if field == _BAD or seen & (1 << field):
            return False
        seen |= 1 << field
        at = skip_space(data, close + 1, end)
        if at >= end or data[at] != 58:
            return False
        at = skip_space(data, at + 1, end)
        if at >= end:
            return False
        one = data[at]
        if one == 34:
            close = text_end(data, at + 1, end)
            if close == _BAD:
                return False
            size = close - at - 1
            if size < 1 or size > _MOST_TEXT:
                return False
            if field == OP:
                if size != 7 or not literal(data, at + 1, end, _OP):
                    return False
            elif not (field <= TOPIC or field in (SESSION, TENANT)):
                return False
            values[field, 0] = at + 1
            values[field, 1] = size
            at = close + 1
        elif one == 116 or one == 102:
            if field != CORRECT and field != HINT:
                return False
            if one == 116:
                if not literal(data, at, end, _TRUE):
                    return False
                at += 4
            else:
                if not literal(data, at, end, _FALSE):
                    return False
                at += 5
            values[field, 0] = one == 116
            values[field, 1] = 0
        elif one == 110:
            optional = field in (TOPIC, RESPONSE, NUMBER)
            optional = optional or field == SESSION or field >= SUPERSEDES
            if not optional or not literal(data, at, end, _NULL):
                return False
            at += 4
        elif 48 <= one <= 57:
            number = 0
            first = at
            while at < end and 48 <= data[np.uint64(at)] <= 57:
                number = 10 * number + int(np.int64(data[np.uint64(at)])) - 48
                at += 1
                if at - first > 15:
                    return False
            if at - first > 1 and one == 48:
                return False
            if at < end and (data[at] == 46 or data[at] == 101 or data[at] == 69):
                return False
            if field in (COMPLETED, STARTED):
                if number > LATEST_MS:
                    return False
            elif field == RESPONSE:
                if number > _MOST_RESPONSE:
                    return False
            elif field == VERSION:
                if number != SCHEMA_VERSION:
                    return False
            elif field != NUMBER:
                return False
            values[field, 0] = number
            values[field, 1] = 0
        else:
            return False
        at = skip_space(data, at, end)
        if at >= end:
            return False
        if data[at] == 125:
            return seen & _REQUIRED == _REQUIRED and skip_space(data, at + 1, end) == end
        if data[at] != 44:
            return False
        at += 1


@compiled
def alike(one: U1, start: int, other: U1, first: int, size: int) -> bool:
    """Tell whether two texts of one size are the same."""
    place, origin = np.uint64(start), np.uint64(first)
    same = True
    for k in range(np.uint64(size)):
        same &= one[place + k] == other[origin + k]
    return same


@compiled
def scan(
    s: Arrays,
    start: int,
    data: U1,
    places: I8,
    values: I8,
    block: U8,
    learner: I4,
    attempt: I8,
    item: I4,
    topic: I4,
    completed_ms: I8,
    response: I4,
    flags: U1,
    unread: U1,
) -> tuple[int, int, int, int]:
    """Read records from ``start`` on into columns.

    Parameters
    ----------
    data, places
        The records, as of :class:`stream.kafka.packed_records.PackedRecords`.
    values
        Working space (fields, 2).
    block
        Working space of the hash.
    learner, attempt, item, topic, completed_ms, response, flags
        Out: as :func:`stream.engine.kernel.fold.fold` takes them.
    unread
        Out (n,): UNREAD for a record that is left to the caller.

    Returns
    -------
    tuple
        The number of records, 0, 0, 0; or the first record not read because of an id that is not
        in the tables: its place, what is missing, and start and size of the id in ``data``.
    """
    n = places.shape[0]
    for k in range(start, n):
        first, size = places[k, VALUE], places[k, VALUE_SIZE]
        unread[k] = UNREAD
        if size > MAX_RECORD_BYTES or not scan_object(data, first, first + size, values):
            continue
        user, size = values[USER, 0], values[USER, 1]
        if (
            places[k, KEY_SIZE] != size
            or not alike(data, places[k, KEY], data, user, size)
            or values[COMPLETED, 0] > places[k, TIMESTAMP] + TOO_EARLY_MS
        ):
            continue
        who = number_user(s, data, user, size)
        if who < 0:
            return k, NO_ROOM, user, size
        name, size = values[ITEM, 0], values[ITEM, 1]
        what = find(s.item_slots, s.item_at, s.item_len, s.names, data, name, size)
        if what < 0:
            return k, NEW_ITEM, name, size
        where = -1
        if values[TOPIC, 1] > 0:
            name, size = values[TOPIC, 0], values[TOPIC, 1]
            where = find(s.topic_slots, s.topic_at, s.topic_len, s.names, data, name, size)
            if where < 0:
                return k, NEW_TOPIC, name, size
        learner[k] = who
        item[k] = what
        topic[k] = where
        attempt[k] = blake2b_64(data, values[ATTEMPT, 0], values[ATTEMPT, 1], block)
        completed_ms[k] = values[COMPLETED, 0]
        response[k] = values[RESPONSE, 0] if values[RESPONSE, 1] == 0 else -1
        flags[k] = values[CORRECT, 0] | values[HINT, 0] << 1
        unread[k] = PLAIN
    return n, 0, 0, 0
