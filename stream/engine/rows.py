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

from schemas.codec import decode
from schemas.outputs import ItemPartial, TopicPartial
from stream.engine.kernel.transfer import OTHER, UNREADABLE
from stream.engine.learner import READABLE_VERSIONS, STATE_VERSION, VERSIONS_READ
from stream.engine.state import PartitionState, Position
from stream.errors import StateVersionError
from stream.kafka.packed_records import PackedRecords

__all__ = [
    "POSITION_KEY",
    "StateLoader",
    "item_key",
    "topic_key",
]

POSITION_KEY = b"O"


def topic_key(topic_id: str) -> bytes:
    """Return the key of a topic's totals."""
    return b"T" + topic_id.encode("utf-8", "surrogatepass")


def item_key(item_id: str) -> bytes:
    """Return the key of an item's totals."""
    return b"I" + item_id.encode("utf-8", "surrogatepass")


class StateLoader:
    """Puts the rows of one partition of ``engine-state`` into an empty state, as they come.

    Rows come in the order they were written; the newest of a key wins, a tombstone removes it.

    Parameters
    ----------
    state
        Where to; not to be used before :meth:`finish`.
    """

    def __init__(self, state: PartitionState) -> None:
        self._state = state
        self._rest: dict[bytes, bytes | None] = {}
        self._unreadable: set[bytes] = set()

    def add(self, rows: PackedRecords) -> None:
        """Take rows."""
        fates = self._state.store.put_rows(rows)
        for place in (fates == OTHER).nonzero()[0].tolist():
            row = rows[place]
            self._rest[row.key or b""] = row.value
        # An older release's row is no matter once a later one of its key has replaced it.
        if self._unreadable or (fates == UNREADABLE).any():
            for row, fate in zip(rows, fates.tolist(), strict=True):
                if fate == UNREADABLE:
                    self._unreadable.add(row.key or b"")
                else:
                    self._unreadable.discard(row.key or b"")

    def finish(self) -> None:
        """Take the totals and the position over, after the last row.

        Raises
        ------
        StateVersionError
            The rows were written by a version that this one cannot read.
        """
        state, store = self._state, self._state.store
        position = self._rest.pop(POSITION_KEY, None)
        if position is not None:
            state.position = decode(position, Position)
        if state.position.state_version not in READABLE_VERSIONS:
            raise StateVersionError(
                f"The state of partition {state.partition} has version "
                f"{state.position.state_version}; this release reads {VERSIONS_READ}. Nothing was "
                "changed. Start the release that wrote it, or stop the engines and run "
                "`thetastream rebuild`."
            )
        if self._unreadable:
            raise StateVersionError(
                f"{len(self._unreadable)} rows of partition {state.partition}, the first under "
                f"{min(self._unreadable)!r}, are of another version or broken; this release reads "
                f"{VERSIONS_READ}. Nothing was changed. Start the release that wrote them, or stop "
                "the engines and run `thetastream rebuild`."
            )
        state.position.state_version = STATE_VERSION
        for key, value in self._rest.items():
            if value is None:
                continue
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
        store.stream_week = state.position.stream_week
        state.take_params()
