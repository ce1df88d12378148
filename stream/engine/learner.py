"""A learner's row: counts, abilities and days, and its packed form."""

from __future__ import annotations

import struct

from stream.domain import ability
from stream.domain.memory import ENTRY_BYTES, ItemMemory
from stream.domain.window import DAY_MS
from stream.engine.day import CORRECT, Day
from stream.errors import StateVersionError

__all__ = [
    "READABLE_VERSIONS",
    "STATE_VERSION",
    "VERSIONS_READ",
    "Learner",
    "Topic",
    "check_version",
    "day_key",
    "head_key",
]

STATE_VERSION = 2
"""First byte of every head row. An on-disk format: a change needs a migration and an ADR."""

READABLE_VERSIONS = (1, STATE_VERSION)
"""Versions that are read; what is written next is of the last."""

VERSIONS_READ = " and ".join(map(str, READABLE_VERSIONS))
"""The same for messages."""

_HEAD = struct.Struct("<BQHIIIddddHH")
_SETTLED = struct.Struct("<I")
"""What version 1 has not: answers that the memory table holds. There it held all of them."""
_TOPIC = struct.Struct("<dddIIIQH")


def check_version(user_id: str, version: int) -> None:
    """Refuse a learner's row of a version that this release cannot read.

    Raises
    ------
    StateVersionError
        It is none of :data:`READABLE_VERSIONS`.
    """
    if version not in READABLE_VERSIONS:
        raise StateVersionError(
            f"The state of learner {user_id!r} has version {version}; this release reads "
            f"{VERSIONS_READ}. Nothing was changed. Start the release that wrote it, or "
            "stop all engines and make the state anew from the log: `thetastream rebuild`."
        )


def head_key(user: bytes) -> bytes:
    """Return the key of a learner's head row."""
    return b"L" + user


def day_key(user: bytes, day: int) -> bytes:
    """Return the key of the row of a learner's day."""
    return b"D" + day.to_bytes(2, "big") + user


class Topic:
    """A learner's state in one topic.

    Attributes
    ----------
    d0, s, r
        The deviation from the global ability given it, see :mod:`stream.domain.ability`.
    folded
        Attempts folded into the ability (voided ones included).
    attempts, correct
        Valid attempts, and those correct.
    latest_ms
        Latest event time, epoch ms.
    """

    __slots__ = ("attempts", "correct", "d0", "folded", "latest_ms", "r", "s", "topic_id")

    def __init__(self, topic_id: str) -> None:
        self.topic_id = topic_id
        self.d0, self.s, self.r = ability.initial_topic()
        self.folded = 0
        self.attempts = 0
        self.correct = 0
        self.latest_ms = 0


class Learner:
    """Everything kept of one learner, decoded.

    Attributes
    ----------
    g, vg
        Global ability: mean (logits) and variance.
    shift
        Sum of all rebasings. Days hold their abilities less the shift at the time, so that a
        rebasing moves every snapshot without rewriting a day.
    latest_ms
        Latest event time of an accepted attempt, epoch ms; 0 before the first.
    first_day
        Day number of the earliest accepted attempt.
    attempts, correct
        Valid attempts of all time, and those correct.
    folded
        Attempts folded into the ability.
    form, memory
        How the last answers went, and what is remembered of items: kept apart from ability, see
        :mod:`stream.domain.practice` and :mod:`stream.domain.memory`.
    days
        Day number -> :class:`Day`, the stored days.
    """

    __slots__ = (
        "attempts",
        "correct",
        "days",
        "first_day",
        "folded",
        "form",
        "g",
        "latest_ms",
        "memory",
        "shift",
        "topics",
        "user_id",
        "vg",
    )

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.g, self.vg = ability.initial_global()
        self.shift = 0.0
        self.latest_ms = 0
        self.first_day = 0xFFFF
        self.attempts = 0
        self.correct = 0
        self.folded = 0
        self.form = 0.0
        self.memory = ItemMemory()
        self.topics: list[Topic] = []
        self.days: dict[int, Day] = {}

    def pack_head(self) -> bytes:
        """Return all but the days as bytes; the memory table holds all answers."""
        parts = [
            _HEAD.pack(
                STATE_VERSION,
                self.latest_ms,
                self.first_day,
                self.attempts,
                self.correct,
                self.folded,
                self.g,
                self.vg,
                self.shift,
                self.form,
                len(self.topics),
                len(self.memory),
            ),
            _SETTLED.pack(self.folded),
        ]
        for topic in self.topics:
            name = topic.topic_id.encode()
            parts.append(
                _TOPIC.pack(
                    topic.d0,
                    topic.s,
                    topic.r,
                    topic.folded,
                    topic.attempts,
                    topic.correct,
                    topic.latest_ms,
                    len(name),
                )
            )
            parts.append(name)
        parts.append(self.memory.pack())
        return b"".join(parts)

    @classmethod
    def _read_head(cls, user_id: str, data: bytes) -> tuple[Learner, bytes, int]:
        """Return the learner of a head row, its memory table, and the answers that this holds."""
        check_version(user_id, data[0])
        learner = cls(user_id)
        (
            version,
            learner.latest_ms,
            learner.first_day,
            learner.attempts,
            learner.correct,
            learner.folded,
            learner.g,
            learner.vg,
            learner.shift,
            learner.form,
            n_topics,
            n_remembered,
        ) = _HEAD.unpack_from(data)
        at = _HEAD.size
        settled = learner.folded
        if version > 1:
            (settled,) = _SETTLED.unpack_from(data, at)
            at += _SETTLED.size
        for _ in range(n_topics):
            d0, s, r, folded, attempts, correct, latest_ms, length = _TOPIC.unpack_from(data, at)
            at += _TOPIC.size
            topic = Topic.__new__(Topic)
            topic.topic_id = data[at : at + length].decode()
            topic.d0, topic.s, topic.r = d0, s, r
            topic.folded, topic.attempts, topic.correct = folded, attempts, correct
            topic.latest_ms = latest_ms
            at += length
            learner.topics.append(topic)
        return learner, data[at : at + n_remembered * ENTRY_BYTES], settled

    def rows(self) -> tuple[bytes, bytes]:
        """Return the head row and the joined day rows, ascending."""
        days = b"".join(self.days[number].pack() for number in sorted(self.days))
        return self.pack_head(), days

    @classmethod
    def from_rows(cls, user_id: str, head: bytes, days: bytes) -> Learner:
        """Read a head row and the joined day rows of the same moment.

        Raises
        ------
        StateVersionError
            The rows were written by a version that this one cannot read.
        """
        learner, memory, settled = cls._read_head(user_id, head)
        at = 0
        while at < len(days):
            day, at = Day.unpack(days, at)
            learner.days[day.day] = day
        learner.memory = ItemMemory.unpack(memory)
        learner._settle(settled)
        return learner

    def _settle(self, settled: int) -> None:
        """Let the memory table hold all answers, not only the first ``settled``.

        The others are the last rows, in the order in which they were folded.
        """
        rows = [
            (number * DAY_MS + row[0], row)
            for number in sorted(self.days)
            for row in self.days[number].rows()
        ]
        latest = rows[max(0, len(rows) - (self.folded - settled)) :]
        for number, (time_ms, (_, _, item, _, flags)) in enumerate(
            latest, self.folded - len(latest)
        ):
            self.memory.remember(item, number, time_ms // 1000, bool(flags & CORRECT))
