"""A partition's learners, topics and items in arrays, and what compiled code does with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.domain.ability import DEFAULT_FILTER, FilterConfig
from stream.domain.practice import NO_WEIGHTS, Weights
from stream.domain.window import DAY_MS, retained_days, storage_days
from stream.engine.day import item_hash
from stream.engine.kernel import fold as folding
from stream.engine.kernel import transfer
from stream.engine.kernel.changing import begin_change, end_change
from stream.engine.kernel.heap import CLASSES, compact
from stream.engine.kernel.layout import (
    CHANGING,
    EVERYBODY,
    FREE_WORDS,
    HEAP_END,
    I4,
    LATENESS_MS,
    N_CHANGED,
    N_DAYS,
    N_USERS,
    NAMES_END,
    NOBODY,
    PUBLISHED_MS,
    RETAINED_DAYS,
    STORAGE_DAYS,
    STREAM_WEEK,
    WEIGHTED,
    Arrays,
)
from stream.engine.kernel.names import enter, find, number_users
from stream.engine.learner import STATE_VERSION, Learner, day_key, head_key
from stream.engine.params import ItemInForce
from stream.engine.segment import SHARED, Segment
from stream.kafka.packed_records import PackedRecord, PackedRecords

__all__ = ["Store"]

_FIRST_WORDS = 1 << 14
_HEAP_GROWTH = 1.125
"""The heap grows by this factor: what is reserved beyond what is used stays small."""

_RESERVE_WORDS = 1 << 12
_WASTE = 0.1
"""Share of the heap in blocks left behind from which on it is compacted rather than grown."""

_PER_LEARNER = ("at", "changed", "queue", "user_at", "user_len")
_PER_TOPIC = ("topic_at", "topic_len", "topic_counts", "topic_changed")
_PER_ITEM = (
    "item_at",
    "item_len",
    "item_hash",
    "item_params",
    "item_counts",
    "item_sums",
    "item_changed",
)


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
    segment
        The memory in which lie those that lookups read.
    topics, items
        Id -> number.
    topic_ids, item_ids
        Number -> id.
    """

    def __init__(self, lateness_days: int) -> None:
        self.topics: dict[str, int] = {}
        self.items: dict[str, int] = {}
        self.topic_ids: list[str] = []
        self.item_ids: list[str] = []
        self.longest_topic = 0
        learners, few = 1024, 64
        self.segment = Segment()
        control = self.segment.control
        words = self.segment.array("i8", _FIRST_WORDS)
        control[LATENESS_MS] = lateness_days * DAY_MS
        control[RETAINED_DAYS] = retained_days(lateness_days)
        control[STORAGE_DAYS] = storage_days(lateness_days)
        control[CHANGING] = NOBODY
        self.arrays = Arrays(
            i8=words,
            f8=words.view(np.float64),
            i4=words.view(np.int32),
            f4=words.view(np.float32),
            free=np.full(CLASSES, -1, np.int64),
            control=control,
            at=self.segment.array("at", learners),
            changed=np.zeros(learners, np.uint8),
            queue=np.zeros(learners, np.int32),
            names=self.segment.array("names", 4096),
            user_at=self.segment.array("user_at", learners),
            user_len=self.segment.array("user_len", learners),
            user_slots=self.segment.array("user_slots", 2 * learners),
            topic_at=self.segment.array("topic_at", few),
            topic_len=self.segment.array("topic_len", few),
            topic_slots=np.full(2 * few, -1, np.int32),
            item_at=np.zeros(few, np.int64),
            item_len=np.zeros(few, np.int32),
            item_slots=np.full(2 * few, -1, np.int32),
            item_hash=np.zeros(few, np.int32),
            item_params=np.zeros((few, len(ItemInForce._fields))),
            item_counts=np.zeros((few, 2), np.int64),
            item_sums=np.zeros((few, 2)),
            item_changed=np.zeros(few, np.uint8),
            topic_counts=np.zeros((few, 3), np.int64),
            topic_changed=np.zeros(few, np.uint8),
            weights=np.zeros(len(NO_WEIGHTS)),
            filter=np.zeros(7),
        )
        self.arrays.at[:] = self.arrays.user_slots[:] = -1
        self._replace(**{name: getattr(self.arrays, name) for name in SHARED})
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

    def set_params(
        self, version: str, params: dict[str, ItemInForce], unknown: ItemInForce
    ) -> None:
        """Put item parameters in force, for items known and for those to come."""
        with self._changing(EVERYBODY):
            self.segment.tell_version(version)
        self._params, self._unknown = params, unknown
        table = self.arrays.item_params
        for number, item_id in enumerate(self.item_ids):
            table[number] = params.get(item_id, unknown)

    # -- ids ---------------------------------------------------------------------------------

    @property
    def n_users(self) -> int:
        """Learners with a number; some may have no accepted attempt."""
        return int(self.arrays.control[N_USERS])

    @property
    def user_ids(self) -> list[str]:
        """Ids of all learners, by number."""
        s = self.arrays
        places = zip(s.user_at[: self.n_users].tolist(), s.user_len.tolist(), strict=False)
        return [
            s.names[at : at + size].tobytes().decode("utf-8", "surrogatepass")
            for at, size in places
        ]

    def find_user(self, user_id: str) -> int:
        """Return a learner's number, -1 without any accepted attempt."""
        s, data = self.arrays, _bytes_of(user_id)
        number = find(s.user_slots, s.user_at, s.user_len, s.names, data, 0, len(data))
        return int(number) if number >= 0 and s.at[number] >= 0 else -1

    def users(self, user_ids: list[bytes]) -> I4:
        """Return learners' numbers, giving one to each new id."""
        numbers = np.empty(len(user_ids), np.int32)
        ends = np.cumsum([len(one) for one in user_ids])
        data = np.frombuffer(b"".join(user_ids), np.uint8)
        done = 0
        while (done := number_users(self.arrays, data, ends, done, numbers)) < len(user_ids):
            self.make_room(len(data))
        return numbers

    def make_room(self, size: int) -> None:
        """Make room for another learner, whose id has ``size`` bytes."""
        if self.n_users >= len(self.arrays.at):
            self._widen(_PER_LEARNER, self.n_users + 1, at=-1)
            self._enter_names("user", self.n_users)
        self._fit_name(size)

    def topic(self, topic_id: str) -> int:
        """Return a topic's number, giving one to a new id."""
        number = self.topics.get(topic_id)
        if number is None:
            number = self.topics[topic_id] = len(self.topic_ids)
            self.topic_ids.append(topic_id)
            if number >= len(self.arrays.topic_at):
                self._widen(_PER_TOPIC, number + 1)
                self._enter_names("topic", number)
            self._name("topic", topic_id, number)
            self.longest_topic = max(self.longest_topic, int(self.arrays.topic_len[number]))
        return number

    def item(self, item_id: str) -> int:
        """Return an item's number, giving one to a new id and putting its parameters in force."""
        number = self.items.get(item_id)
        if number is None:
            number = self.items[item_id] = len(self.item_ids)
            self.item_ids.append(item_id)
            if number >= len(self.arrays.item_at):
                self._widen(_PER_ITEM, number + 1)
                self._enter_names("item", number)
            self._name("item", item_id, number)
            self.arrays.item_hash[number] = np.uint32(item_hash(item_id)).astype(np.int32)
            self.arrays.item_params[number] = self._params.get(item_id, self._unknown)
        return number

    def _name(self, kind: str, value: str, number: int) -> None:
        """Note the id of a topic or item, and enter it in its table."""
        data = _bytes_of(value)
        self._fit_name(len(data))
        s = self.arrays
        at = int(s.control[NAMES_END])
        s.names[at : at + len(data)] = data
        s.control[NAMES_END] = at + len(data)
        places, sizes = getattr(s, f"{kind}_at"), getattr(s, f"{kind}_len")
        places[number], sizes[number] = at, len(data)
        enter(getattr(s, f"{kind}_slots"), places, sizes, s.names, number, number + 1)

    def _fit_name(self, size: int) -> None:
        end = int(self.arrays.control[NAMES_END]) + size
        if end > len(self.arrays.names):
            self._widen(("names",), end)

    def _enter_names(self, kind: str, count: int) -> None:
        """Make a table of names anew, at most half full, after its arrays were widened."""
        s = self.arrays
        places, sizes = getattr(s, f"{kind}_at"), getattr(s, f"{kind}_len")
        name, size = f"{kind}_slots", 1 << (2 * len(places) - 1).bit_length()
        if name in SHARED:
            slots = self.segment.array(name, size, anew=True)
        else:
            slots = np.empty(size, np.int32)
        slots[:] = -1
        enter(slots, places, sizes, s.names, 0, count)
        self._replace(**{name: slots})

    def _widen(self, names: tuple[str, ...], least: int, **fill: int) -> None:
        """Give arrays at least twice the room."""
        wider: dict[str, npt.NDArray[Any]] = {}
        for name in names:
            old = getattr(self.arrays, name)
            shape = (max(2 * len(old), least), *old.shape[1:])
            if name in SHARED:
                new = self.segment.array(name, shape[0])
            else:
                new = np.zeros(shape, old.dtype)
                new[: len(old)] = old
            if name in fill:
                new[len(old) :] = fill[name]
            wider[name] = new
        self._replace(**wider)

    def _replace(self, **arrays: npt.NDArray[Any]) -> None:
        """Put arrays in the place of others, and tell readers where they are now."""
        changed: dict[str, Any] = dict(arrays)
        self.arrays = self.arrays._replace(**changed)
        if not arrays.keys() & SHARED.keys():
            return
        with self._changing(EVERYBODY):
            self.segment.tell({name: getattr(self.arrays, name) for name in SHARED})
        # Unmapping what was large takes some milliseconds: nobody need wait for it.
        self.segment.give_back()

    @contextmanager
    def _changing(self, who: int) -> Iterator[None]:
        """Keep readers from a learner, or from all, for the length of a block."""
        control = self.segment.control
        before = int(control[CHANGING]) & NOBODY
        begin_change(control, who)
        yield  # After an exception readers stay away: what is there may be torn.
        if before == NOBODY:
            end_change(control)
        else:
            begin_change(control, before)

    @property
    def short_of_room(self) -> bool:
        """Whether the heap should grow soon: a slice may take what is left."""
        left = len(self.arrays.i8) - int(self.arrays.control[HEAP_END])
        return left < _RESERVE_WORDS + len(self.arrays.i8) // 64

    def grow_heap(self) -> None:
        """Give the heap more room: what blocks left behind, or if that is little, more memory.

        Nothing may be folded meanwhile. Compacting takes a while and may run in a thread.
        """
        s = self.arrays
        if s.control[FREE_WORDS] > _WASTE * s.control[HEAP_END]:
            self.compact_heap()
        else:
            words = int(len(s.i8) * _HEAP_GROWTH) + _FIRST_WORDS
            self._take_heap(self.segment.array("i8", words), s.at)

    def compact_heap(self) -> None:
        """Leave out what blocks left behind: always into a new heap."""
        s = self.arrays
        in_use = int(s.control[HEAP_END] - s.control[FREE_WORDS])
        heap = self.segment.array("i8", int(in_use * _HEAP_GROWTH) + _FIRST_WORDS, anew=True)
        at = self.segment.array("at", len(s.at), anew=True)
        at[:] = s.at
        compact(s, heap, heap.view(np.int32), at)
        self._take_heap(heap, at)

    def _take_heap(self, heap: npt.NDArray[Any], at: npt.NDArray[Any]) -> None:
        self._replace(
            i8=heap,
            f8=heap.view(np.float64),
            i4=heap.view(np.int32),
            f4=heap.view(np.float32),
            at=at,
        )

    # -- learners ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(np.count_nonzero(self.arrays.at[: self.n_users] >= 0))

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
        number = self.find_user(user_id)
        if number < 0:
            return None
        out = np.empty(transfer.export_size(self.arrays, number), np.uint8)
        head = transfer.export_head(self.arrays, number, STATE_VERSION, out, 0)
        counts = np.empty(2 * int(self.arrays.i4[2 * self.arrays.at[number] + N_DAYS]), np.int64)
        end = transfer.export_days(self.arrays, number, counts, out, head)
        return Learner.from_rows(user_id, out[:head].tobytes(), out[head:end].tobytes())

    def write(self, learner: Learner, changed_day: int) -> None:
        """Put a decoded learner in place of what was read; only one day of it was changed."""
        number = self.find_user(learner.user_id)
        published = int(self.arrays.i8[int(self.arrays.at[number]) + PUBLISHED_MS])
        user = learner.user_id.encode("utf-8", "surrogatepass")
        head = PackedRecord(0, 0, head_key(user), learner.pack_head())
        day = PackedRecord(0, 0, day_key(user, changed_day), learner.days[changed_day].pack())
        with self._changing(number):
            self.put_rows(PackedRecords.of([head, day]))
        self.arrays.i8[int(self.arrays.at[number]) + PUBLISHED_MS] = published
        transfer.change_day(self.arrays, number, changed_day)
        folding.mark(self.arrays, number)

    def put_rows(self, rows: PackedRecords) -> npt.NDArray[np.uint8]:
        """Put rows of ``engine-state`` in place, in order: the newest of a key wins.

        Returns
        -------
        numpy.ndarray
            What became of each row (n,), see :mod:`stream.engine.kernel.transfer`: TAKEN, OTHER
            (neither a learner's head nor a day) or UNREADABLE.
        """
        data, places = rows.data, rows.places
        fate = np.zeros(len(rows), np.uint8)
        at = 0
        while True:
            at, problem, detail = transfer.put_rows(
                self.arrays, at, data, places, STATE_VERSION, fate
            )
            if problem == transfer.DONE:
                return fate
            if problem == transfer.FULL_HEAP:
                self.grow_heap()
            elif problem == transfer.FULL_NAMES:
                self.make_room(detail)
            else:
                size = int(data[detail]) | int(data[detail + 1]) << 8
                name = data[detail + 2 : detail + 2 + size].tobytes()
                self.topic(name.decode("utf-8", "surrogatepass"))


def _bytes_of(value: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(value.encode("utf-8", "surrogatepass"), np.uint8)
