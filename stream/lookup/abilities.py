"""Reading learners' abilities from the memory of an engine that folds meanwhile.

The other side of :mod:`stream.engine.segment`. Nothing here waits for the engine or holds it up:
a learner is copied, and the copy taken if the word CHANGING says that it is whole.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from math import sqrt
from struct import Struct

from schemas.outputs import TopicTheta
from stream.domain import ability
from stream.engine.kernel.layout import (
    ATTEMPTS,
    CHANGING,
    CORRECT_N,
    EVERYBODY,
    FOLDED,
    HEAD_WORDS,
    LATEST_MS,
    N_TOPICS,
    NOBODY,
    T_ATTEMPTS,
    T_TOPIC,
    TOPIC_WORDS,
    VG,
    G,
)
from stream.engine.segment import (
    GENERATION,
    SHARED,
    TABLE,
    VERSION_AT,
    VERSION_SIZE,
)

__all__ = ["Abilities", "AbilityReader", "BeingChangedError", "hash_of"]

_INT, _LONG = Struct("<i"), Struct("<q")

_SLOTS_AT_ONCE = 8
_TOPICS_AT_ONCE = 16
"""Read in one call; a learner with more topics takes a second one."""


class BeingChangedError(Exception):
    """What was to be read is being changed at this moment: try again at once."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """A learner as a lookup tells of it; theta and its standard error in logits."""

    theta: float
    se: float
    n: int
    correct: int
    latest_ms: int
    params_version: str
    topics: tuple[TopicTheta, ...]


def hash_of(key: bytes) -> int:
    """Return the 32 bits by which an id is looked for, as :mod:`stream.engine.kernel.names`."""
    hashed = 0x811C9DC5
    for byte in key:
        hashed = ((hashed ^ byte) * 0x01000193) & 0xFFFF_FFFF
    return hashed ^ (hashed >> 15)


class AbilityReader:
    """The reader's side of a segment.

    Only the head is mapped. The rest is read by ``pread``: a lookup goes to a few places that none
    before it went to, and mapping each of those pages first takes longer than the call.

    Parameters
    ----------
    fd
        The segment's file; closed with this object.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._head = memoryview(mmap.mmap(fd, VERSION_AT, prot=mmap.PROT_READ)).cast("q")
        self._generation = -1
        self._places: dict[str, int] = {}
        self._slots = 0
        self._topic_ids: dict[int, str] = {}
        self._version = ""

    def __del__(self) -> None:
        os.close(self._fd)

    def read(self, key: bytes, hashed: int) -> Abilities | None:
        """Read a learner.

        Parameters
        ----------
        key
            Its id, UTF-8.
        hashed
            `hash_of` the id.

        Returns
        -------
        Abilities or None
            None if this partition knows no attempt of the learner.

        Raises
        ------
        BeingChangedError
            Just now it cannot be read; the engine is folding into it, or moving its arrays.
        """
        head = self._head
        if head[CHANGING] & NOBODY == EVERYBODY:
            raise BeingChangedError
        if head[GENERATION] != self._generation:
            self._look_anew()
        number = self._number(key, hashed)
        copy = self._copy(number) if number >= 0 else b""
        if head[GENERATION] != self._generation:
            # What was looked through may have been another array's place by then.
            raise BeingChangedError
        return self._told(memoryview(copy)) if copy else None

    def _look_anew(self) -> None:
        """Take note of where the arrays are now."""
        head = self._head
        generation = head[GENERATION]
        places = {name: head[TABLE + 2 * number] for number, name in enumerate(SHARED)}
        slots = head[TABLE + 2 * list(SHARED).index("user_slots") + 1]
        version = os.pread(self._fd, head[VERSION_SIZE], VERSION_AT)
        if head[CHANGING] & NOBODY == EVERYBODY or head[GENERATION] != generation:
            raise BeingChangedError
        self._places, self._slots, self._generation = places, slots, generation
        self._version = version.decode("utf-8", "surrogatepass")

    def _entry(self, form: Struct, name: str, index: int) -> int:
        """Return one number of an array."""
        data = os.pread(self._fd, form.size, self._places[name] + form.size * index)
        return int(form.unpack(data)[0])

    def _number(self, key: bytes, hashed: int) -> int:
        """Return a learner's number, -1 for an unknown id."""
        slot, end = hashed & (self._slots - 1), self._slots
        for _ in range(0, end, _SLOTS_AT_ONCE):
            count = min(_SLOTS_AT_ONCE, end - slot)
            data = os.pread(self._fd, 4 * count, self._places["user_slots"] + 4 * slot)
            for (number,) in _INT.iter_unpack(data):
                if number < 0:
                    return -1
                if self._is_id_of(number, key):
                    return int(number)
            slot = (slot + count) & (end - 1)
        return -1

    def _is_id_of(self, number: int, key: bytes) -> bool:
        if self._entry(_INT, "user_len", number) != len(key):
            return False
        place = self._places["names"] + self._entry(_LONG, "user_at", number)
        return os.pread(self._fd, len(key), place) == key

    def _copy(self, number: int) -> bytes:
        """Return the head block of a learner up to its last topic; empty without any attempt."""
        before = self._head[CHANGING]
        if before & NOBODY in (number, EVERYBODY):
            raise BeingChangedError
        base = self._entry(_LONG, "at", number)
        copy = b""
        if base >= 0:
            place = self._places["i8"] + 8 * base
            copy = os.pread(self._fd, 8 * (HEAD_WORDS + TOPIC_WORDS * _TOPICS_AT_ONCE), place)
            self._check(before)  # Before a number of topics is believed.
            (topics,) = _INT.unpack_from(copy, 4 * N_TOPICS)
            size = 8 * (HEAD_WORDS + TOPIC_WORDS * topics)
            copy = copy[:size] if len(copy) >= size else os.pread(self._fd, size, place)
            if _INT.unpack_from(copy, 4 * FOLDED)[0] == 0:
                copy = b""  # Its first attempt is about to be folded.
        self._check(before)
        return copy

    def _check(self, before: int) -> None:
        """Refuse what was read since CHANGING was ``before`` if it may have changed."""
        if self._head[CHANGING] >> 32 != before >> 32 or self._head[GENERATION] != self._generation:
            raise BeingChangedError

    def _told(self, copy: memoryview) -> Abilities:
        words, halves, floats = copy.cast("q"), copy.cast("i"), copy.cast("d")
        g, vg = floats[G], floats[VG]
        topics = []
        for word in range(HEAD_WORDS, len(words), TOPIC_WORDS):
            d0, slope, rest = floats[word : word + 3]
            theta, variance = ability.topic_ability(g, vg, d0, slope, rest)
            topics.append(
                TopicTheta(
                    self._topic_id(halves[2 * word + T_TOPIC]),
                    theta,
                    sqrt(variance),
                    halves[2 * word + T_ATTEMPTS],
                    words[word + 3],
                )
            )
        return Abilities(
            g,
            sqrt(vg),
            halves[ATTEMPTS],
            halves[CORRECT_N],
            words[LATEST_MS],
            self._version,
            tuple(topics),
        )

    def _topic_id(self, number: int) -> str:
        name = self._topic_ids.get(number)
        if name is None:
            place = self._places["names"] + self._entry(_LONG, "topic_at", number)
            data = os.pread(self._fd, self._entry(_INT, "topic_len", number), place)
            name = self._topic_ids[number] = data.decode("utf-8", "surrogatepass")
        return name
