"""What one flush writes: changed rows, all outputs and the offset row, as one transaction.

The learner's row decides what is a duplicate, the partial rows count it, the outputs tell of it:
they become visible together or not at all, so a replay from the offset row repeats nothing and
misses nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from schemas.codec import encode
from schemas.outputs import ItemPartial, TopicPartial, Watermark
from stream.engine.kernel import outputs as kernel
from stream.engine.kernel.layout import N_CHANGED
from stream.engine.learner import STATE_VERSION
from stream.engine.rows import POSITION_KEY, item_key, topic_key
from stream.engine.state import PartitionState
from stream.kafka.packed import PackedMessages, pack
from stream.kafka.transaction import Outgoing
from topics.catalogue import (
    TopicSpec,
    dead_letters_topic,
    engine_state_topic,
    feature_updates_topic,
    item_partials_topic,
    kpi_updates_topic,
    theta_updates_topic,
    topic_partials_topic,
    watermarks_topic,
)

__all__ = ["Flush", "Indicators"]

_TOPICS = {
    kernel.STATE: engine_state_topic.name,
    kernel.THETA: theta_updates_topic.name,
    kernel.FEATURES: feature_updates_topic.name,
    kernel.KPIS: kpi_updates_topic.name,
}
_Records = list[tuple[bytes, bytes | None]]
"""Keys and values."""

_SLICE_BYTES = 1 << 18
_SLICE_MESSAGES = 1024
"""What compiled code writes in one call: half a millisecond's work."""
_SLICE_TOTALS = 64
"""Totals encoded before others on the event loop get their turn."""


@dataclass(frozen=True, slots=True)
class Indicators:
    """The settings that the indicators depend on."""

    use_theta: bool = True
    include_theta: bool = True
    target: float = 0.0


class Flush:
    """The records of one flush of a partition.

    Parameters
    ----------
    state
        Its changes are taken over: after :meth:`build` has ended the state counts as flushed.
    indicators
        Settings of the indicators.
    stream_week
        Latest week of the whole stream, all partitions together.
    computed_at_ms
        Time of writing, for the rows' ``computed_at``.

    Attributes
    ----------
    messages
        What to publish.
    outcomes
        Records by outcome that it covers.
    """

    def __init__(
        self,
        state: PartitionState,
        indicators: Indicators,
        stream_week: int,
        computed_at_ms: int,
        *,
        published_watermark: int,
    ) -> None:
        self.messages: list[Outgoing | PackedMessages] = []
        self.outcomes: Counter[str] = Counter()
        self._state = state
        self._indicators = indicators
        self._stream_week = max(stream_week, state.position.stream_week)
        self._published_watermark = published_watermark
        self._partition = state.partition
        self._context = np.array(
            [
                state.partition,
                state.position.attempts,
                computed_at_ms,
                self._stream_week,
                indicators.use_theta,
                indicators.include_theta,
            ],
            np.int64,
        )
        self._version = np.frombuffer(state.position.params_version.encode(), np.uint8)
        self._scratch = np.empty(1 << 14, np.int64)
        self._out = np.empty(_SLICE_BYTES, np.uint8)
        self._meta = np.empty((_SLICE_MESSAGES, kernel.META_COLUMNS), np.int64)

    @property
    def n_messages(self) -> int:
        """How many records it publishes."""
        return sum(
            len(message.places) if isinstance(message, PackedMessages) else 1
            for message in self.messages
        )

    def build(self) -> Iterator[None]:
        """Fill ``messages``; yields often, so that the caller can let others run.

        Nothing may be folded into the state meanwhile.
        """
        state, store = self._state, self._state.store
        # Before the changed learners lose their mark.
        if self._stream_week > state.position.weeks_published:
            yield from self._in_parts(self._write_idle_weeks, store.n_users)
            state.position.weeks_published = self._stream_week
        yield from self._in_parts(self._write_changed, store.n_changed)
        store.arrays.control[N_CHANGED] = 0
        yield from self._totals()
        self._dead_letters()
        if state.has_newer_params:
            # After the rows, which tell the version they were made with.
            state.take_params()
        self._position()

    def _in_parts(
        self, write: Callable[[int, int], tuple[int, int, int]], end: int
    ) -> Iterator[None]:
        """Write from 0 to ``end``, as much at a time as the buffers hold."""
        at = 0
        while at < end:
            at, count, size = write(at, end)
            if count:
                self.messages.append(
                    PackedMessages(
                        _TOPICS,
                        self._partition,
                        self._out[:size].tobytes(),
                        self._meta[:count].copy(),
                    )
                )
            elif at < end:
                self._make_room(size)
            yield

    def _make_room(self, size: int) -> None:
        """Replace the buffer that is too small for one learner; see ``write_changed``."""
        if size < 0:
            self._scratch = np.empty(-2 * size, np.int64)
        elif size > len(self._out):
            self._out = np.empty(2 * size, np.uint8)
        else:
            shape = (2 * len(self._meta), kernel.META_COLUMNS)
            self._meta = np.empty(shape, np.int64)

    def _write_changed(self, start: int, end: int) -> tuple[int, int, int]:
        store = self._state.store
        return kernel.write_changed(
            store.arrays,
            start,
            end,
            STATE_VERSION,
            store.longest_topic,
            self._context,
            self._indicators.target,
            self._version,
            self._scratch,
            self._out,
            self._meta,
        )

    def _write_idle_weeks(self, start: int, end: int) -> tuple[int, int, int]:
        return kernel.write_idle_weeks(
            self._state.store.arrays,
            start,
            end,
            self._state.position.weeks_published,
            self._context,
            self._indicators.target,
            self._version,
            self._scratch,
            self._out,
            self._meta,
        )

    def _send(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Add a record to the partition with the state's own number."""
        self.messages.append(Outgoing(topic, key, value, self._partition))

    def _dead_letters(self) -> None:
        """Add the records that cannot be counted, as they came."""
        for dead in self._state.dead_letters:
            record = dead.record
            headers: list[tuple[str, str | bytes | None]] = [
                ("reason", dead.reason),
                ("detail", dead.detail[:1000].encode("utf-8", "replace")),
                ("source_partition", str(self._partition)),
                ("source_offset", str(record.offset)),
                ("source_timestamp", str(record.timestamp)),
            ]
            self.messages.append(
                Outgoing(
                    dead_letters_topic.name, record.key, record.value, self._partition, headers
                )
            )
        self._state.dead_letters = []

    def _totals(self) -> Iterator[None]:
        """Add the changed totals, for the state and for whoever sums them over partitions."""
        store, offset = self._state.store, self._state.position.attempts
        arrays = store.arrays
        state: _Records = []
        sums: dict[tuple[str, int], _Records] = {}
        for number in arrays.topic_changed.nonzero()[0].tolist():
            if len(state) % _SLICE_TOTALS == 0:
                yield
            name = store.topic_ids[number]
            attempts, correct, learners = arrays.topic_counts[number].tolist()
            value = encode(TopicPartial(name, self._partition, attempts, correct, learners, offset))
            state.append((topic_key(name), value))
            self._partial(sums, topic_partials_topic, name, value)
        for number in arrays.item_changed.nonzero()[0].tolist():
            if len(state) % _SLICE_TOTALS == 0:
                yield
            name = store.item_ids[number]
            attempts, correct = arrays.item_counts[number].tolist()
            expected, variance = arrays.item_sums[number].tolist()
            value = encode(
                ItemPartial(name, self._partition, attempts, correct, expected, variance, offset)
            )
            state.append((item_key(name), value))
            self._partial(sums, item_partials_topic, name, value)
        arrays.topic_changed[:] = 0
        arrays.item_changed[:] = 0
        if state:
            self.messages.append(pack(engine_state_topic.name, self._partition, state))
        for (topic, partition), records in sums.items():
            yield
            self.messages.append(pack(topic, partition, records))

    def _partial(
        self, sums: dict[tuple[str, int], _Records], topic: TopicSpec, name: str, value: bytes
    ) -> None:
        """Add a row to those that go where all partitions' rows of its id can be added up."""
        assert isinstance(topic.partitions, int)
        id_bytes = name.encode("utf-8", "surrogatepass")
        key = b"%d|%b" % (self._partition, id_bytes)
        place = topic.name, crc32(id_bytes) % topic.partitions
        sums.setdefault(place, []).append((key, value))

    def _position(self) -> None:
        """Add the offset row, last."""
        state, position = self._state, self._state.position
        position.counts = dict(Counter(position.counts) + state.counts)
        self.outcomes, state.counts = state.counts, Counter()
        if position.stream_week > self._published_watermark:
            watermark = Watermark(self._partition, position.stream_week)
            key = str(self._partition).encode()
            self.messages.append(Outgoing(watermarks_topic.name, key, encode(watermark), 0))
        self._send(engine_state_topic.name, POSITION_KEY, encode(position))
