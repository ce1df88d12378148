"""What a learner remembers of items: a bounded table of the items answered last.

An item that was answered before, with feedback, is easier next time. That is memory of the
item, not ability, so it is kept apart: for each of the learner's latest items, how often it
was answered rightly and wrongly, how the last time went, and when that was, in attempts and
in seconds. The item answered longest ago makes room for a new one.

The table is kept as the bytes it is stored as: two columns that are searched and moved with
plain byte operations, so that a learner who comes and goes costs no decoding.
"""

from __future__ import annotations

import struct

__all__ = ["DEFAULT_CAPACITY", "ENTRY_BYTES", "ItemMemory", "Trace"]

DEFAULT_CAPACITY = 1024
"""Items remembered a learner: 14 KB at most, and only for one who met that many. Fewer lose
much where learners come back to items after months; see docs/evaluation.md."""

MAX_COUNT = 255
"""Where the counts of an item stop; beyond it nobody forgets differently."""

Trace = tuple[int, int, int, int, bool]
"""One remembered item: attempt number of the learner at its last answer, time of that answer
(s, 0 = not known), right answers, wrong answers, whether the last one was right. A plain
tuple, since one is made an attempt."""

_HASH_BYTES = 4
_ROW = struct.Struct("<IIBB")
_PACK, _UNPACK = _ROW.pack, _ROW.unpack_from
_ROW_BYTES = _ROW.size
_LAST_CORRECT = 0x8000_0000  # top bit of the attempt number
_NUMBER = 0x7FFF_FFFF

ENTRY_BYTES = _HASH_BYTES + _ROW_BYTES
"""Stored bytes of one remembered item."""


class ItemMemory:
    """The items one learner answered last, the longest ago first.

    Parameters
    ----------
    capacity
        Most items to remember; 0 remembers nothing.

    Notes
    -----
    Items are told apart by 32 bits of a hash: two of a learner's 1024 items collide
    with a probability of 1e-4, and then share one trace.

    Examples
    --------
    >>> memory = ItemMemory(capacity=2)
    >>> for number, item in enumerate([7, 8, 7, 9]):
    ...     memory.remember(item, number, 60 * number, item == 7)
    >>> memory.recall(7)
    (2, 120, 2, 0, True)
    >>> memory.recall(8) is None
    True
    """

    __slots__ = ("_found", "_hashes", "_rows", "capacity")

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self.capacity = capacity
        self._hashes = bytearray()
        self._rows = bytearray()
        # Item and entry of the last search: an answer is recalled, then remembered.
        self._found = (-1, -1)

    def __len__(self) -> int:
        return len(self._hashes) // _HASH_BYTES

    def recall(self, item: int) -> Trace | None:
        """Return what is remembered of an item (its 32-bit hash), or None."""
        at = self._find(item)
        if at < 0:
            return None
        number, time_s, right, wrong = _UNPACK(self._rows, at * _ROW_BYTES)
        return number & _NUMBER, time_s, right, wrong, number >= _LAST_CORRECT

    def remember(self, item: int, number: int, time_s: int, correct: bool) -> None:
        """Add an answer.

        Parameters
        ----------
        item
            The item's 32-bit hash.
        number
            Attempts of the learner before this one, 0 <= number < 2^31.
        time_s
            When it was answered, seconds since 1970, 0 where not known. Kept to 32 bits.
        correct
            The score.
        """
        found, at = self._found
        if found != item:
            at = self._find(item)
        right = wrong = 0
        if at >= 0:
            _, _, right, wrong = _UNPACK(self._rows, at * _ROW_BYTES)
            self._remove(at)
        elif len(self._hashes) >= self.capacity * _HASH_BYTES:
            if not self.capacity:
                return
            self._remove(0)
        if correct:
            right = right + 1 if right < MAX_COUNT else right
            number |= _LAST_CORRECT
        else:
            wrong = wrong + 1 if wrong < MAX_COUNT else wrong
        self._hashes += item.to_bytes(_HASH_BYTES, "little")
        self._found = (-1, -1)
        self._rows += _PACK(number, time_s & 0xFFFF_FFFF, right, wrong)

    def forget(self, item: int, correct: bool) -> None:
        """Take back one answer to an item (it was voided); unknown items stay unknown.

        Counts are exact; when the item was answered before, how and when the last remaining
        answer was is no longer known, and stays what the voided one left.
        """
        self._recount(item, -int(correct), -int(not correct))

    def rescore(self, item: int, correct: bool) -> None:
        """Count one answer to an item as ``correct`` (it was ``not correct``).

        Which of several answers it was is not known here: the last outcome follows only
        where all remaining answers agree.
        """
        self._recount(item, 1 if correct else -1, -1 if correct else 1)

    def pack(self) -> bytes:
        """Return the table as bytes, `ENTRY_BYTES` an item."""
        return bytes(self._hashes + self._rows)

    @classmethod
    def unpack(cls, data: bytes, capacity: int = DEFAULT_CAPACITY) -> ItemMemory:
        """Read what `pack` wrote; of more than ``capacity`` items the latest are kept.

        Raises
        ------
        ValueError
            The length is not a whole number of entries.
        """
        n, rest = divmod(len(data), ENTRY_BYTES)
        if rest:
            raise ValueError(f"{len(data)} bytes are no table of {ENTRY_BYTES}-byte entries")
        memory = cls(capacity)
        first = max(0, n - capacity)
        memory._hashes = bytearray(data[first * _HASH_BYTES : n * _HASH_BYTES])
        memory._rows = bytearray(data[n * _HASH_BYTES + first * _ROW_BYTES :])
        return memory

    def _find(self, item: int) -> int:
        key = item.to_bytes(_HASH_BYTES, "little")
        hashes = self._hashes
        at = hashes.find(key)
        while at >= 0 and at % _HASH_BYTES:
            # Found across two entries: only an aligned hit is an item.
            at = hashes.find(key, at + 1)
        if at > 0:
            at //= _HASH_BYTES
        self._found = (item, at)
        return at

    def _remove(self, at: int) -> None:
        self._found = (-1, -1)
        del self._hashes[at * _HASH_BYTES : (at + 1) * _HASH_BYTES]
        del self._rows[at * _ROW_BYTES : (at + 1) * _ROW_BYTES]

    def _recount(self, item: int, d_right: int, d_wrong: int) -> None:
        at = self._find(item)
        if at < 0:
            return
        number, time_s, right, wrong = _UNPACK(self._rows, at * _ROW_BYTES)
        right = min(max(right + d_right, 0), MAX_COUNT)
        wrong = min(max(wrong + d_wrong, 0), MAX_COUNT)
        if right + wrong == 0:
            self._remove(at)
            return
        if wrong == 0:
            number |= _LAST_CORRECT
        elif right == 0:
            number &= _NUMBER
        _ROW.pack_into(self._rows, at * _ROW_BYTES, number, time_s, right, wrong)
