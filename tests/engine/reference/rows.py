"""Keys of the rows on ``engine-state``, and rows read back into a partition's state.

=========  ======================  ===============================================
key        value                   what
=========  ======================  ===============================================
``O``      Position (JSON)         how far the partition was folded
``L`` id   head of a learner       counts and abilities
``D`` day  packed day              attempts of one day; two bytes day, then the id
``T`` id   TopicPartial (JSON)     the partition's totals of a topic
``I`` id   ItemPartial (JSON)      the partition's totals of an item
=========  ======================  ===============================================
"""

from __future__ import annotations

import struct
from collections import defaultdict

from schemas.codec import decode
from schemas.outputs import ItemPartial, TopicPartial
from stream.engine.day import item_hash
from stream.errors import StateVersionError
from tests.engine.reference.learner import STATE_VERSION, join_packed
from tests.engine.reference.state import UNKNOWN_ITEM, Item, PartitionState, Position, TopicTotals

__all__ = [
    "POSITION_KEY",
    "StateLoader",
    "day_key",
    "item_key",
    "learner_key",
    "topic_key",
]

POSITION_KEY = b"O"
_DAY = struct.Struct(">H")


def learner_key(user_id: str) -> bytes:
    """Return the key of a learner's head row."""
    return b"L" + user_id.encode("utf-8", "surrogatepass")


def day_key(user_id: str, day: int) -> bytes:
    """Return the key of a learner's day row."""
    return b"D" + _DAY.pack(day) + user_id.encode("utf-8", "surrogatepass")


def topic_key(topic_id: str) -> bytes:
    """Return the key of a topic's totals."""
    return b"T" + topic_id.encode("utf-8", "surrogatepass")


def item_key(item_id: str) -> bytes:
    """Return the key of an item's totals."""
    return b"I" + item_id.encode("utf-8", "surrogatepass")


class StateLoader:
    """Collects the rows of one partition of ``engine-state``, then fills a state.

    Rows come in the order they were written; the newest of a key wins, a tombstone removes it.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, bytes] = {}
        self._days: defaultdict[bytes, dict[int, bytes]] = defaultdict(dict)
        self._rest: dict[bytes, bytes] = {}

    def add(self, key: bytes, value: bytes | None) -> None:
        """Take one row."""
        kind = key[:1]
        if kind == b"L":
            if value is None:
                self._heads.pop(key[1:], None)
            else:
                self._heads[key[1:]] = value
        elif kind == b"D":
            day = (key[1] << 8) | key[2]
            days = self._days[key[3:]]
            if value is None:
                days.pop(day, None)
            else:
                days[day] = value
        elif value is None:
            self._rest.pop(key, None)
        else:
            self._rest[key] = value

    def fill(self, state: PartitionState) -> None:
        """Put what was collected into an empty state.

        Raises
        ------
        StateVersionError
            The rows were written by a version that this one cannot read.
        """
        for key, value in self._rest.items():
            name = key[1:].decode("utf-8", "surrogatepass")
            if key == POSITION_KEY:
                state.position = decode(value, Position)
            elif key[:1] == b"T":
                topic = decode(value, TopicPartial)
                state.topics[name] = TopicTotals(topic.attempts, topic.correct, topic.learners)
            elif key[:1] == b"I":
                item = decode(value, ItemPartial)
                state.items[name] = Item(
                    item_hash(name),
                    UNKNOWN_ITEM,
                    item.attempts,
                    item.correct,
                    item.expected,
                    item.variance,
                )
        if state.position.state_version != STATE_VERSION:
            raise StateVersionError(
                f"The state of partition {state.partition} has version "
                f"{state.position.state_version}; this release reads {STATE_VERSION}. Nothing was "
                "changed. Start the release that wrote it, or replay the log under a new "
                "THETASTREAM_TOPIC_PREFIX."
            )
        for user, head in self._heads.items():
            days = self._days.pop(user, {})
            packed = join_packed(head, [days[day] for day in sorted(days)])
            state.rows[user.decode("utf-8", "surrogatepass")] = packed
        state.take_params()
