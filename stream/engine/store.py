"""A partition's learners, topics and items in arrays, and what compiled code does with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stream.domain.ability import DEFAULT_FILTER, FilterConfig
from stream.domain.practice import NO_WEIGHTS, Weights
from stream.domain.window import DAY_MS, retained_days, storage_days
from stream.engine.day import item_hash
from stream.engine.kernel import fold as folding
from stream.engine.kernel import transfer
from stream.engine.kernel.heap import CLASSES
from stream.engine.kernel.layout import (
    CONTROL_WORDS,
    LATENESS_MS,
    N_CHANGED,
    PUBLISHED_MS,
    RETAINED_DAYS,
    STORAGE_DAYS,
    STREAM_WEEK,
    WEIGHTED,
    Arrays,
)
from stream.engine.learner import STATE_VERSION, Learner
from stream.engine.params import ItemInForce
from stream.errors import StateVersionError

__all__ = ["Store"]

_FIRST_WORDS = 4096
_HEAP_GROWTH = 1.25
"""The heap grows by this factor: what is reserved beyond what is used stays small."""

_PER_LEARNER = ("at", "changed", "queue", "user_at", "user_len")
_PER_TOPIC = ("topic_at", "topic_len", "topic_counts", "topic_changed")
_PER_ITEM = ("item_hash", "item_params", "item_counts", "item_sums", "item_changed")


class Store:
    """Learners packed in a heap; ids numbered in the order in which they came.

    Parameters
    ----------
    lateness_days
        Days an attempt may be older than its learner's latest.

    Attributes
    ----------
    arrays
        What compiled code works on. Replaced whenever an array grows: never keep it.
    users, topics, items
        Id -> number.
    user_ids, topic_ids, item_ids
        Number -> id.
    """

    def __init__(self, lateness_days: int) -> None:
        self.users: dict[str, int] = {}
        self.topics: dict[str, int] = {}
        self.items: dict[str, int] = {}
        self.user_ids: list[str] = []
        self.topic_ids: list[str] = []
        self.item_ids: list[str] = []
        self._names_end = 0
        self.longest_topic = 0
        learners, few = 1024, 64
        words = np.zeros(_FIRST_WORDS, np.int64)
        self._heap: npt.NDArray[np.int64] | None = words
        control = np.zeros(CONTROL_WORDS, np.int64)
        control[LATENESS_MS] = lateness_days * DAY_MS
        control[RETAINED_DAYS] = retained_days(lateness_days)
        control[STORAGE_DAYS] = storage_days(lateness_days)
        self.arrays = Arrays(
            i8=words,
            f8=words.view(np.float64),
            i4=words.view(np.int32),
            free=np.full(CLASSES, -1, np.int64),
            control=control,
            at=np.full(learners, -1, np.int64),
            changed=np.zeros(learners, np.uint8),
            queue=np.zeros(learners, np.int32),
            names=np.zeros(_FIRST_WORDS, np.uint8),
            user_at=np.zeros(learners, np.int64),
            user_len=np.zeros(learners, np.int32),
            topic_at=np.zeros(few, np.int64),
            topic_len=np.zeros(few, np.int32),
            topic_slots=np.full(4 * few, -1, np.int32),
            item_hash=np.zeros(few, np.int32),
            item_params=np.zeros((few, 4)),
            item_counts=np.zeros((few, 2), np.int64),
            item_sums=np.zeros((few, 2)),
            item_changed=np.zeros(few, np.uint8),
            topic_counts=np.zeros((few, 3), np.int64),
            topic_changed=np.zeros(few, np.uint8),
            weights=np.zeros(len(NO_WEIGHTS)),
            filter=np.zeros(7),
        )
        self._params: dict[str, ItemInForce] = {}
        self._unknown = ItemInForce(1.0, 0.0, 0.0, 1.0)
        self.set_filter(DEFAULT_FILTER)

    # -- parameters --------------------------------------------------------------------------

    def set_filter(self, config: FilterConfig) -> None:
        """Put the constants of the filter in force."""
        self.arrays.filter[:] = (
            config.prior_mean,
            config.prior_var,
            config.topic_var,
            config.drift,
            config.drift_n0,
            config.topic_drift,
            config.topic_drift_n0,
        )

    def set_weights(self, weights: Weights) -> None:
        """Put weights of practice, memory and form in force."""
        self.arrays.weights[:] = weights
        self.arrays.control[WEIGHTED] = weights != NO_WEIGHTS

    def set_params(self, params: dict[str, ItemInForce], unknown: ItemInForce) -> None:
        """Put item parameters in force, for items known and for those to come."""
        self._params, self._unknown = params, unknown
        table = self.arrays.item_params
        for number, item_id in enumerate(self.item_ids):
            table[number] = params.get(item_id, unknown)

    # -- ids ---------------------------------------------------------------------------------

    def user(self, user_id: str) -> int:
        """Return a learner's number, giving one to a new id."""
        number = self.users.get(user_id)
        if number is None:
            number = self.users[user_id] = len(self.user_ids)
            self.user_ids.append(user_id)
            if number >= len(self.arrays.at):
                self._widen(_PER_LEARNER, number + 1, at=-1)
            at, size = self._name(user_id)
            self.arrays.user_at[number], self.arrays.user_len[number] = at, size
        return number

    def topic(self, topic_id: str) -> int:
        """Return a topic's number, giving one to a new id."""
        number = self.topics.get(topic_id)
        if number is None:
            number = self.topics[topic_id] = len(self.topic_ids)
            self.topic_ids.append(topic_id)
            if number >= len(self.arrays.topic_at):
                self._widen(_PER_TOPIC, number + 1)
                slots = np.full(4 * len(self.arrays.topic_at), -1, np.int32)
                self.arrays = self.arrays._replace(topic_slots=slots)
                for other in range(number):
                    transfer.insert_topic(self.arrays, other)
            at, size = self._name(topic_id)
            self.arrays.topic_at[number], self.arrays.topic_len[number] = at, size
            self.longest_topic = max(self.longest_topic, size)
            transfer.insert_topic(self.arrays, number)
        return number

    def item(self, item_id: str) -> int:
        """Return an item's number, giving one to a new id and putting its parameters in force."""
        number = self.items.get(item_id)
        if number is None:
            number = self.items[item_id] = len(self.item_ids)
            self.item_ids.append(item_id)
            if number >= len(self.arrays.item_hash):
                self._widen(_PER_ITEM, number + 1)
            self.arrays.item_hash[number] = np.uint32(item_hash(item_id)).astype(np.int32)
            self.arrays.item_params[number] = self._params.get(item_id, self._unknown)
        return number

    def _name(self, value: str) -> tuple[int, int]:
        data = value.encode("utf-8", "surrogatepass")
        at, end = self._names_end, self._names_end + len(data)
        if end > len(self.arrays.names):
            self._widen(("names",), end)
        self.arrays.names[at:end] = np.frombuffer(data, np.uint8)
        self._names_end = end
        return at, len(data)

    def _widen(self, names: tuple[str, ...], least: int, **fill: int) -> None:
        """Give arrays at least twice the room."""
        wider: dict[str, Any] = {}
        for name in names:
            old = getattr(self.arrays, name)
            shape = (max(2 * len(old), least), *old.shape[1:])
            new = np.full(shape, fill.get(name, 0), old.dtype)
            new[: len(old)] = old
            wider[name] = new
        self.arrays = self.arrays._replace(**wider)

    def grow_heap(self) -> None:
        """Give the heap more room."""
        heap = self.arrays.i8
        words = int(len(heap) * _HEAP_GROWTH) + _FIRST_WORDS
        # Without views the memory can be extended in place.
        empty = np.zeros(0, np.int64)
        self.arrays = self.arrays._replace(
            i8=empty, f8=empty.view(np.float64), i4=empty.view(np.int32)
        )
        self._heap = None
        heap.resize(words, refcheck=False)
        self._heap = heap
        self.arrays = self.arrays._replace(
            i8=heap, f8=heap.view(np.float64), i4=heap.view(np.int32)
        )

    # -- learners ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(np.count_nonzero(self.arrays.at[: len(self.user_ids)] >= 0))

    @property
    def n_changed(self) -> int:
        """Learners with changes since the last flush."""
        return int(self.arrays.control[N_CHANGED])

    @property
    def stream_week(self) -> int:
        """Latest week with an accepted attempt."""
        return int(self.arrays.control[STREAM_WEEK])

    @stream_week.setter
    def stream_week(self, week: int) -> None:
        self.arrays.control[STREAM_WEEK] = week

    def read(self, user_id: str) -> Learner | None:
        """Return a learner, decoded: a copy."""
        number = self.users.get(user_id)
        if number is None or self.arrays.at[number] < 0:
            return None
        out = np.empty(transfer.export_size(self.arrays, number), np.uint8)
        head = transfer.export_head(self.arrays, number, STATE_VERSION, out, 0)
        end = transfer.export_days(self.arrays, number, out, head)
        return Learner.from_rows(user_id, out[:head].tobytes(), out[head:end].tobytes())

    def write(self, learner: Learner, changed_day: int) -> None:
        """Put a decoded learner of which one day was changed in place of what was read."""
        number = self.users[learner.user_id]
        base = int(self.arrays.at[number])
        published = int(self.arrays.i8[base + PUBLISHED_MS])
        changed = transfer.changed_days(self.arrays, number)
        head, days = learner.rows()
        self.load([learner.user_id], [head], [days])
        base = int(self.arrays.at[number])
        self.arrays.i8[base + PUBLISHED_MS] = published
        for day in {*changed.tolist(), changed_day}:
            transfer.change_day(self.arrays, number, day)
        folding.mark(self.arrays, number)

    def load(self, user_ids: list[str], heads: list[bytes], days: list[bytes]) -> None:
        """Put learners in place from their rows; each learner's day rows joined, ascending.

        Raises
        ------
        StateVersionError
            The rows were written by a version that this one cannot read.
        """
        for user_id, head in zip(user_ids, heads, strict=True):
            if head[0] != STATE_VERSION:
                raise StateVersionError(
                    f"The state of learner {user_id!r} has version {head[0]}; this release reads "
                    f"{STATE_VERSION}. Nothing was changed. Start the release that wrote it, or "
                    "set a new THETASTREAM_TOPIC_PREFIX and replay the log."
                )
        numbers = np.fromiter(map(self.user, user_ids), np.int32, len(user_ids))
        sizes = np.empty((len(user_ids), 2), np.int64)
        sizes[:, 0] = [len(head) for head in heads]
        sizes[:, 1] = [len(day) for day in days]
        ends = sizes.cumsum().reshape(sizes.shape)
        data = np.frombuffer(
            b"".join(part for pair in zip(heads, days, strict=True) for part in pair), np.uint8
        )
        done = 0
        while done < len(numbers):
            done, problem = transfer.load_many(self.arrays, numbers, data, ends, done)
            if problem == transfer.FULL_HEAP:
                self.grow_heap()
            elif problem >= 0:
                size = int(data[problem]) | int(data[problem + 1]) << 8
                name = data[problem + 2 : problem + 2 + size].tobytes()
                self.topic(name.decode("utf-8", "surrogatepass"))
