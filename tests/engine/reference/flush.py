"""What one flush writes: changed rows, all outputs and the offset row, as one transaction.

The learner's row decides what is a duplicate, the partial rows count it, the outputs tell of it:
they become visible together or not at all, so a replay from the offset row repeats nothing and
misses nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import sqrt
from zlib import crc32

from schemas.codec import encode
from schemas.outputs import (
    FeatureUpdate,
    ItemPartial,
    KpiRow,
    KpiUpdate,
    ThetaUpdate,
    TopicPartial,
    Watermark,
)
from stream.domain.window import KPI_WEEKS_AFTER_LAST, day_of, week_of
from stream.engine.flush import Indicators
from stream.engine.outputs import topic_thetas
from stream.engine.rows import POSITION_KEY, item_key, topic_key
from stream.kafka.transaction import Outgoing
from tests.engine.reference.learner import Learner
from tests.engine.reference.outputs import (
    changed_feature_rows,
    changed_weeks,
    kpi_row,
)
from tests.engine.reference.rows import day_key, learner_key
from tests.engine.reference.state import PartitionState
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

__all__ = ["Flush"]


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
        self.messages: list[Outgoing] = []
        self.outcomes: Counter[str] = Counter()
        self._state = state
        self._indicators = indicators
        self._stream_week = max(stream_week, state.position.stream_week)
        self._computed_at = computed_at_ms
        self._published_watermark = published_watermark
        self._partition = state.partition

    def build(self) -> Iterator[None]:
        """Fill ``messages``; yields often, so that the caller can let others run.

        Nothing may be folded into the state meanwhile.
        """
        state = self._state
        for learner in state.changed.values():
            self._learner(learner, changed_weeks(learner, self._stream_week))
            yield
        yield from self._sweep()
        state.changed = {}
        self._totals()
        yield
        for dead in state.dead_letters:
            headers: list[tuple[str, str | bytes | None]] = [
                ("reason", dead.reason),
                ("detail", dead.detail[:1000].encode("utf-8", "replace")),
                ("source_partition", str(self._partition)),
                ("source_offset", str(dead.record.offset)),
                ("source_timestamp", str(dead.record.timestamp)),
            ]
            record = dead.record
            self._send(dead_letters_topic.name, record.key, record.value, headers)
        state.dead_letters = []
        if state.has_newer_params:
            # After the rows, which tell the version they were made with.
            state.take_params()
        self._position()

    def _send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, str | bytes | None]] | None = None,
    ) -> None:
        """Add a record to the partition with the state's own number."""
        self.messages.append(Outgoing(topic, key, value, self._partition, headers))

    def _learner(self, learner: Learner, weeks: list[int]) -> None:
        """Add a changed learner: rows, abilities, daily and weekly rows; mark it as flushed."""
        position = self._state.position
        user_id = learner.user_id
        key = user_id.encode("utf-8", "surrogatepass")
        daily = changed_feature_rows(learner, self._indicators)
        weekly = [kpi_row(learner, week, self._indicators) for week in weeks]
        for number in sorted(learner.changed_days):
            day = learner.days[number]
            self._send(engine_state_topic.name, day_key(user_id, number), day.pack())
        for number in self._state.expired_days(learner):
            del learner.days[number]
            self._send(engine_state_topic.name, day_key(user_id, number), None)
        self._send(engine_state_topic.name, learner_key(user_id), learner.pack_head())
        theta = ThetaUpdate(
            user_id=user_id,
            theta=learner.g,
            se=sqrt(learner.vg),
            n=learner.attempts,
            correct=learner.correct,
            last_attempt_at=learner.latest_ms,
            params_version=position.params_version,
            topics=topic_thetas(learner),
            source_partition=self._partition,
            source_offset=position.attempts,
            computed_at=self._computed_at,
        )
        self._send(theta_updates_topic.name, key, encode(theta))
        if daily:
            features = FeatureUpdate(
                user_id,
                daily,
                position.params_version,
                self._partition,
                position.attempts,
                self._computed_at,
            )
            self._send(feature_updates_topic.name, key, encode(features))
        self._weekly(user_id, weekly)
        learner.changed_days.clear()
        learner.published_latest_ms = learner.latest_ms

    def _weekly(self, user_id: str, rows: list[KpiRow]) -> None:
        if not rows:
            return
        position = self._state.position
        update = KpiUpdate(
            user_id,
            rows,
            position.params_version,
            self._partition,
            position.attempts,
            self._computed_at,
        )
        key = user_id.encode("utf-8", "surrogatepass")
        self._send(kpi_updates_topic.name, key, encode(update))

    def _sweep(self) -> Iterator[None]:
        """Add the rows of weeks that have begun since the last flush, for idle learners too."""
        state, position = self._state, self._state.position
        if self._stream_week <= position.weeks_published:
            return
        for user_id, learner in state.learners.items():
            latest = week_of(day_of(learner.latest_ms))
            end = min(latest + 7 * KPI_WEEKS_AFTER_LAST, self._stream_week)
            weeks = range(max(position.weeks_published, latest) + 7, end + 1, 7)
            if weeks and user_id not in state.changed:
                self._weekly(user_id, [kpi_row(learner, week, self._indicators) for week in weeks])
            yield
        position.weeks_published = self._stream_week

    def _totals(self) -> None:
        """Add the changed totals, for the state and for whoever sums them over partitions."""
        state, offset = self._state, self._state.position.attempts
        for topic_id in state.changed_topics:
            topic = state.topics[topic_id]
            value = encode(
                TopicPartial(
                    topic_id,
                    self._partition,
                    topic.attempts,
                    topic.correct,
                    topic.learners,
                    offset,
                )
            )
            self._send(engine_state_topic.name, topic_key(topic_id), value)
            self._partial(topic_partials_topic, topic_id, value)
        for item_id in state.changed_items:
            item = state.items[item_id]
            value = encode(
                ItemPartial(
                    item_id,
                    self._partition,
                    item.attempts,
                    item.correct,
                    item.expected,
                    item.variance,
                    offset,
                )
            )
            self._send(engine_state_topic.name, item_key(item_id), value)
            self._partial(item_partials_topic, item_id, value)
        state.changed_topics = set()
        state.changed_items = set()

    def _partial(self, topic: TopicSpec, name: str, value: bytes) -> None:
        """Send all partitions' rows of one id to the same place, where they can be added up."""
        assert isinstance(topic.partitions, int)
        id_bytes = name.encode("utf-8", "surrogatepass")
        key = b"%d|%b" % (self._partition, id_bytes)
        self.messages.append(Outgoing(topic.name, key, value, crc32(id_bytes) % topic.partitions))

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
