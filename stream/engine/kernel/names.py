"""Ids as numbers: hash tables from the bytes of an id to its number."""

from __future__ import annotations

import numpy as np

from stream.compiling import compiled
from stream.engine.kernel.layout import I4, I8, N_USERS, NAMES_END, U1, Arrays

__all__ = ["enter", "find", "number_user", "number_users"]

_FNV_BASIS, _FNV_PRIME = np.uint64(0x811C9DC5), np.uint64(0x01000193)
_WORD, _FIFTEEN, _ONE = np.uint64(0xFFFF_FFFF), np.uint64(15), np.uint64(1)


@compiled
def slot_of(slots: I4, at: I8, sizes: I4, names: U1, data: U1, start: int, size: int) -> int:
    """Return the slot of an id: where its number is, or the empty one where it belongs.

    Parameters
    ----------
    slots
        The table: numbers, -1 for none. Its length is a power of two and never reached.
    at, sizes
        Place and length of each number's id in ``names``.
    data, start, size
        The id looked for.
    """
    mask = np.uint64(slots.shape[0] - 1)
    origin, length = np.uint64(start), np.uint64(size)
    hashed = _FNV_BASIS
    for k in range(length):
        hashed = ((hashed ^ np.uint64(data[origin + k])) * _FNV_PRIME) & _WORD
    slot = (hashed ^ (hashed >> _FIFTEEN)) & mask
    while True:
        number = slots[slot]
        if number < 0:
            return int(np.int64(slot))
        if sizes[number] == size:
            place = np.uint64(at[number])
            same = np.uint64(0)
            while same < length and names[place + same] == data[origin + same]:
                same += _ONE
            if same == length:
                return int(np.int64(slot))
        slot = (slot + _ONE) & mask


@compiled
def find(slots: I4, at: I8, sizes: I4, names: U1, data: U1, start: int, size: int) -> int:
    """Return the number of an id, -1 for an unknown one."""
    return slots[slot_of(slots, at, sizes, names, data, start, size)]


@compiled
def enter(slots: I4, at: I8, sizes: I4, names: U1, first: int, end: int) -> None:
    """Enter the numbers from ``first`` to ``end``, whose ids are in ``names`` already."""
    for number in range(first, end):
        slots[slot_of(slots, at, sizes, names, names, at[number], sizes[number])] = number


@compiled
def number_user(s: Arrays, data: U1, start: int, size: int) -> int:
    """Return a learner's number, giving one to a new id; -1 when there is no room for it."""
    slot = slot_of(s.user_slots, s.user_at, s.user_len, s.names, data, start, size)
    number = s.user_slots[slot]
    if number >= 0:
        return number
    number = s.control[N_USERS]
    place = s.control[NAMES_END]
    # The table of names has twice the slots that there are learners, so that it is never full.
    if number >= s.at.shape[0] or place + size > s.names.shape[0]:
        return -1
    for k in range(size):
        s.names[place + k] = data[start + k]
    s.user_at[number] = place
    s.user_len[number] = size
    s.user_slots[slot] = number
    s.control[N_USERS] = number + 1
    s.control[NAMES_END] = place + size
    return number


@compiled
def number_users(s: Arrays, data: U1, ends: I8, first: int, numbers: I4) -> int:
    """Give numbers to ids that lie end to end; return the first for which there is no room."""
    for k in range(first, ends.shape[0]):
        start = ends[k - 1] if k else 0
        number = number_user(s, data, start, ends[k] - start)
        if number < 0:
            return k
        numbers[k] = number
    return ends.shape[0]
