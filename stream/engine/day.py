"""One learner's attempts of one UTC day, packed.

A day is what is rewritten when an attempt arrives; earlier days stay as they are. Its rows are
kept in two byte columns that only grow: hashes of the attempt ids (searched for duplicates), and
fixed-size rows with what the windows and corrections need.
"""

from __future__ import annotations

import hashlib
import struct

from stream.domain.ability import snapshot

__all__ = [
    "CORRECT",
    "HINT",
    "NO_RESPONSE_TIME",
    "NO_TOPIC",
    "OPERATION",
    "VOIDED",
    "Day",
    "attempt_hash",
    "item_hash",
]

CORRECT = 1
HINT = 2
VOIDED = 4
OPERATION = 8
"""Row flags. An OPERATION row only remembers a void's or regrade's own id."""

NO_TOPIC = 0xFFFF
"""Topic index of an attempt with topic_id null."""

NO_RESPONSE_TIME = -1

_HASH_BYTES = 8

_ROW = struct.Struct("<IiIHB")
"""A row: ms within the day, response time (ms, -1 = none), item hash, topic index, flags."""

_HEADER = struct.Struct("<HIHIIdd")
_SNAPSHOT = struct.Struct("<Hdd")


def attempt_hash(attempt_id: str) -> bytes:
    """Return 64 bits that stand for an attempt id.

    Within one learner's retained days (some thousand ids) two ids collide with a probability
    below 1e-12.
    """
    return hashlib.blake2b(attempt_id.encode(), digest_size=_HASH_BYTES).digest()


def item_hash(item_id: str) -> int:
    """Return 32 bits that stand for an item within one learner's days."""
    return int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=4).digest(), "little")


class Day:
    """Attempts of one day and the abilities at its end.

    Attributes
    ----------
    day
        Day number (days since 1970-01-01).
    theta, variance
        The learner's ability after the day's last attempt, **less the learner's shift** (see
        :class:`stream.engine.learner.Learner`), and its variance; in single precision.
    topics
        Topic index -> (ability less the shift, variance) likewise.
    attempts, correct
        Valid attempts of the day, and those correct.
    """

    __slots__ = (
        "_hashes",
        "_rows",
        "attempts",
        "correct",
        "day",
        "theta",
        "topics",
        "variance",
    )

    def __init__(self, day: int, theta: float, variance: float) -> None:
        self.day = day
        self.theta, self.variance = snapshot(theta, variance)
        self.topics: dict[int, tuple[float, float]] = {}
        self.attempts = 0
        self.correct = 0
        self._hashes = bytearray()
        self._rows = bytearray()

    def __len__(self) -> int:
        return len(self._hashes) // _HASH_BYTES

    def append(
        self, attempt: bytes, time_ms: int, response_time: int, item: int, topic: int, flags: int
    ) -> None:
        """Add a row; arguments as in a row, ``attempt`` from :func:`attempt_hash`."""
        self._hashes += attempt
        self._rows += _ROW.pack(time_ms, response_time, item, topic, flags)
        if not flags & OPERATION:
            self.attempts += 1
            self.correct += flags & CORRECT

    def find(self, attempt: bytes) -> int:
        """Return the row of an attempt hash, or -1."""
        hashes = self._hashes
        at = hashes.find(attempt)
        while at >= 0:
            if at % _HASH_BYTES == 0:
                return at // _HASH_BYTES
            at = hashes.find(attempt, at + 1)
        return -1

    def hashes(self) -> list[bytes]:
        """Return the attempt hashes, in order of arrival."""
        packed = bytes(self._hashes)
        return [packed[at : at + _HASH_BYTES] for at in range(0, len(packed), _HASH_BYTES)]

    def row(self, index: int) -> tuple[int, int, int, int, int]:
        """Return (time, response_time, item, topic, flags) of a row."""
        fields: tuple[int, int, int, int, int] = _ROW.unpack_from(self._rows, index * _ROW.size)
        return fields

    def void(self, index: int) -> None:
        """Take an attempt out of the counts."""
        at = index * _ROW.size + _ROW.size - 1
        self.attempts -= 1
        self.correct -= self._rows[at] & CORRECT
        self._rows[at] |= VOIDED

    def regrade(self, index: int, correct: bool) -> None:
        """Rescore a valid attempt."""
        at = index * _ROW.size + _ROW.size - 1
        self.correct += correct - (self._rows[at] & CORRECT)
        self._rows[at] = self._rows[at] & ~CORRECT | correct

    def snapshot(self, theta: float, variance: float) -> None:
        """Record the learner's ability (less the shift) after an attempt of this day."""
        self.theta, self.variance = snapshot(theta, variance)

    def snapshot_topic(self, topic: int, theta: float, variance: float) -> None:
        """Record a topic's ability (less the shift) after an attempt of this day."""
        self.topics[topic] = snapshot(theta, variance)

    def rows(self) -> list[tuple[int, int, int, int, int]]:
        """Return (time, response_time, item, topic, flags) of all rows."""
        return list(_ROW.iter_unpack(self._rows))

    def valid_rows(self) -> list[tuple[int, int, int, int, int]]:
        """Return (time, response_time, item, topic, flags) of the valid attempts."""
        excluded = VOIDED | OPERATION
        return [row for row in self.rows() if not row[4] & excluded]

    def pack(self) -> bytes:
        """Return the day as bytes."""
        header = _HEADER.pack(
            self.day,
            len(self),
            len(self.topics),
            self.attempts,
            self.correct,
            self.theta,
            self.variance,
        )
        snapshots = b"".join(_SNAPSHOT.pack(t, *ability) for t, ability in self.topics.items())
        return b"".join((header, snapshots, self._hashes, self._rows))

    @classmethod
    def unpack(cls, data: bytes, start: int = 0) -> tuple[Day, int]:
        """Read a day from bytes; return it and where the next one starts."""
        number, n_rows, n_topics, attempts, correct, theta, variance = _HEADER.unpack_from(
            data, start
        )
        day = cls(number, theta, variance)
        day.attempts, day.correct = attempts, correct
        at = start + _HEADER.size
        for _ in range(n_topics):
            topic, topic_theta, topic_variance = _SNAPSHOT.unpack_from(data, at)
            day.topics[topic] = snapshot(topic_theta, topic_variance)
            at += _SNAPSHOT.size
        rows_at = at + n_rows * _HASH_BYTES
        end = rows_at + n_rows * _ROW.size
        day._hashes = bytearray(data[at:rows_at])
        day._rows = bytearray(data[rows_at:end])
        return day, end
