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

from collections import defaultdict
from itertools import islice

from schemas.codec import decode
from schemas.outputs import ItemPartial, TopicPartial
from stream.engine.learner import STATE_VERSION
from stream.engine.state import PartitionState, Position
from stream.errors import StateVersionError

__all__ = [
    "POSITION_KEY",
    "StateLoader",
    "item_key",
    "topic_key",
]

POSITION_KEY = b"O"
_AT_ONCE = 5000
"""Learners put in place in one call."""


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
            if key == POSITION_KEY:
                state.position = decode(value, Position)
        if state.position.state_version != STATE_VERSION:
            raise StateVersionError(
                f"The state of partition {state.partition} has version "
                f"{state.position.state_version}; this release reads {STATE_VERSION}. Nothing was "
                "changed. Start the release that wrote it, or replay the log under a new "
                "THETASTREAM_TOPIC_PREFIX."
            )
        store = state.store
        for key, value in self._rest.items():
            if key[:1] == b"T":
                topic = decode(value, TopicPartial)
                counts = topic.attempts, topic.correct, topic.learners
                number = store.topic(topic.topic_id)
                store.arrays.topic_counts[number] = counts
            elif key[:1] == b"I":
                item = decode(value, ItemPartial)
                number = store.item(item.item_id)
                store.arrays.item_counts[number] = item.attempts, item.correct
                store.arrays.item_sums[number] = item.expected, item.variance
        heads = iter(self._heads.items())
        while part := list(islice(heads, _AT_ONCE)):
            store.load(
                [user for user, _ in part],
                [head for _, head in part],
                [self._joined(user) for user, _ in part],
            )
        store.stream_week = state.position.stream_week
        state.take_params()

    def _joined(self, user: bytes) -> bytes:
        days = self._days.pop(user, {})
        return b"".join(days[day] for day in sorted(days))
