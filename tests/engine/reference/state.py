"""The state of one attempts partition, and the fold of one record into it.

The plain form of what ``stream.engine`` does in compiled code: one Python object a learner. Nothing
here does I/O or knows the time of day: what a record does to the state depends on the
state and the record alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from schemas.attempt import AttemptEvent
from schemas.calibration import BatchAbility
from schemas.codec import decode
from stream.domain import ability, correction
from stream.domain.practice import NO_WEIGHTS, advantage, next_form, plug_in
from stream.domain.window import DAY_MS, day_of, retained_days, storage_days, week_of
from stream.engine.day import (
    CORRECT,
    HINT,
    NO_RESPONSE_TIME,
    NO_TOPIC,
    OPERATION,
    VOIDED,
    Day,
    attempt_hash,
    item_hash,
)
from stream.engine.params import ItemInForce, ParamsStore
from stream.engine.state import DeadLetter, Position
from stream.errors import RecordError
from stream.records import KafkaRecord, parse
from tests.engine.reference.learner import Learner, Topic

UNKNOWN_ITEM = ItemInForce(1.0, 0.0, 0.0, 1.0)

__all__ = ["Item", "PartitionState", "TopicTotals"]


@dataclass(slots=True)
class TopicTotals:
    """One partition's totals of a topic: valid attempts, correct, learners with one or more."""

    attempts: int = 0
    correct: int = 0
    learners: int = 0


@dataclass(slots=True)
class Item:
    """An item as a partition sees it.

    Attributes
    ----------
    hash
        Stands for the item in the days' rows.
    params
        In force in this partition.
    attempts, correct
        The partition's totals of valid attempts.
    expected, variance
        Sums of P and P (1 - P) over the folded attempts.
    """

    hash: int
    params: ItemInForce
    attempts: int = 0
    correct: int = 0
    expected: float = 0.0
    variance: float = 0.0


class PartitionState:
    """Learners, partial totals and position of one partition.

    Parameters
    ----------
    partition
        Its number.
    lateness_days
        Days an attempt may be older than its learner's latest.
    params
        Where the item parameters are.

    Attributes
    ----------
    learners
        user_id -> learner.
    changed
        Learners with changes since the last flush.
    """

    def __init__(self, partition: int, lateness_days: int, params: ParamsStore) -> None:
        self.partition = partition
        self.position = Position()
        self.learners: dict[str, Learner] = {}
        self.changed: dict[str, Learner] = {}
        self.topics: dict[str, TopicTotals] = {}
        self.items: dict[str, Item] = {}
        self.changed_topics: set[str] = set()
        self.changed_items: set[str] = set()
        self.dead_letters: list[DeadLetter] = []
        self.counts: Counter[str] = Counter()
        self._params = params
        self._item_params: dict[str, ItemInForce] = {}
        self._weights = NO_WEIGHTS
        self._lateness_ms = lateness_days * DAY_MS
        self._retained_days = retained_days(lateness_days)
        self._storage_days = storage_days(lateness_days)
        self.take_params()

    # -- looking up --------------------------------------------------------------------------

    def learner(self, user_id: str) -> Learner | None:
        """Return a learner, or None if unknown."""
        return self.learners.get(user_id)

    def __len__(self) -> int:
        return len(self.learners)

    @property
    def has_changes(self) -> bool:
        """Whether a flush would write anything."""
        return bool(self.changed or self.dead_letters or self.counts)

    @property
    def has_newer_params(self) -> bool:
        """Whether a newer whole parameter version waits to be put in force."""
        return self.position.params_version != self._params.version

    def take_params(self) -> None:
        """Put the newest whole parameter version in force.

        Called when the state was loaded and at a flush only: the version is part of the offset
        row, so that a replay folds the same attempts with the same parameters.
        """
        self._item_params = self._params.items
        self._weights = self._params.weights
        self.position.params_version = self._params.version
        for item_id, item in self.items.items():
            item.params = self._item_params.get(item_id, UNKNOWN_ITEM)

    # -- folding -----------------------------------------------------------------------------

    def fold(self, record: KafkaRecord) -> None:
        """Fold one record of ``attempts``; one at or below the position changes nothing."""
        if record.offset <= self.position.attempts:
            return
        try:
            event, completed_ms = parse(record.value, record.key, record.timestamp)
            self.counts[self._fold_event(event, completed_ms)] += 1
        except RecordError as error:
            self.dead_letters.append(DeadLetter(record, error.reason, error.detail))
            self.counts[error.reason] += 1
        self.position.attempts = record.offset

    def _fold_event(self, event: AttemptEvent, completed_ms: int) -> str:
        """Count a valid event; return its outcome."""
        learner = self.learner(event.user_id)
        attempt = attempt_hash(event.attempt_id)
        is_attempt = event.op == "attempt"
        if learner is not None:
            if attempt in learner.known_attempts() and self._is_retained(learner, attempt):
                return "duplicate"
            if is_attempt and completed_ms < learner.latest_ms - self._lateness_ms:
                raise RecordError(
                    "too_late",
                    f"{learner.latest_ms - completed_ms} ms before the learner's latest attempt",
                )
        if not is_attempt:
            return self._correct(learner, event, attempt)
        if learner is None:
            learner = self.learners[event.user_id] = Learner(event.user_id)
        self._fold_attempt(learner, event, attempt, completed_ms)
        self.changed[event.user_id] = learner
        return "accepted"

    def _is_retained(self, learner: Learner, attempt: bytes) -> bool:
        """Whether an attempt, void or regrade lies in the retained days."""
        oldest = learner.latest_ms // DAY_MS - self._retained_days
        return any(
            number >= oldest and day.find(attempt) >= 0 for number, day in learner.days.items()
        )

    def _fold_attempt(
        self, learner: Learner, event: AttemptEvent, attempt: bytes, completed_ms: int
    ) -> None:
        number, time_ms = divmod(completed_ms, DAY_MS)
        day = learner.days.get(number)
        in_order = number >= learner.latest_ms // DAY_MS
        if day is None:
            day = learner.days[number] = _new_day(learner, number)
        correct = event.correct
        item = self._item(event.item_id)
        a, b, c, b_variance, _ = item.params
        topic_index = NO_TOPIC
        response_time = event.response_time_ms
        gain = 0.0
        if event.topic_id is None:
            theta = learner.g
            if self._weights is not NO_WEIGHTS:
                gain = self._advantage(learner, item, None, completed_ms - (response_time or 0))
            learner.g, learner.vg = ability.fold_global(
                learner.g, learner.vg, a, b - gain / a, c, correct, learner.folded, b_variance
            )
        else:
            topic_index = learner.topic(event.topic_id)
            topic = learner.topics[topic_index]
            theta = learner.g * (1.0 + topic.s) + topic.d0
            if self._weights is not NO_WEIGHTS:
                gain = self._advantage(learner, item, topic, completed_ms - (response_time or 0))
            learner.g, learner.vg, topic.d0, topic.s, topic.r = ability.fold(
                learner.g,
                learner.vg,
                topic.d0,
                topic.s,
                topic.r,
                a,
                b - gain / a,
                c,
                correct,
                learner.folded,
                topic.folded,
                b_variance,
            )
            self._count_topic(event.topic_id, 1, correct, int(topic.attempts == 0))
            topic.folded += 1
            topic.attempts += 1
            topic.correct += correct
            topic.latest_ms = max(topic.latest_ms, completed_ms)
            if in_order or topic_index not in day.topics:
                topic_theta, variance = ability.topic_ability(
                    learner.g, learner.vg, topic.d0, topic.s, topic.r
                )
                day.snapshot_topic(topic_index, topic_theta - learner.shift, variance)
        if in_order:
            # A late attempt leaves earlier snapshots as they were seen.
            day.snapshot(learner.g - learner.shift, learner.vg)
        day.append(
            attempt,
            time_ms,
            NO_RESPONSE_TIME if response_time is None else response_time,
            item.hash,
            topic_index,
            (CORRECT if correct else 0) | (HINT if event.hint_used else 0),
        )
        learner.known_attempts().add(attempt)
        expected = plug_in(theta, a, b, c, gain)
        learner.form = next_form(learner.form, expected, correct)
        learner.memory.remember(item.hash, learner.folded, completed_ms // 1000, correct)
        learner.folded += 1
        learner.attempts += 1
        learner.correct += correct
        learner.changed_days.add(number)
        if number < learner.first_day:
            learner.first_day = number
        if completed_ms > learner.latest_ms:
            learner.latest_ms = completed_ms
            if number > self.position.stream_week + 6:
                self.position.stream_week = week_of(number)
        item.attempts += 1
        item.correct += correct
        self.changed_items.add(event.item_id)
        item.expected += expected
        item.variance += expected * (1.0 - expected)

    def _advantage(self, learner: Learner, item: Item, topic: Topic | None, start_ms: int) -> float:
        """Return by how many logits an answer is easier than a first one."""
        return advantage(
            self._weights,
            topic.correct if topic else 0,
            topic.attempts - topic.correct if topic else 0,
            topic.latest_ms / 1000 if topic else 0.0,
            learner.form,
            learner.memory.recall(item.hash),
            learner.folded,
            start_ms / 1000,
            item.params.recall,
        )

    def _correct(self, learner: Learner | None, event: AttemptEvent, attempt: bytes) -> str:
        """Apply a void or regrade; return its outcome."""
        target = attempt_hash(event.supersedes or "")
        day, index = _find(learner, target, self._retained_days) if learner else (None, -1)
        if learner is None or day is None:
            raise RecordError("supersedes_unknown", f"no retained attempt {event.supersedes!r}")
        _, _, item, topic_index, flags = day.row(index)
        entry = self._item(event.item_id)
        if item != entry.hash:
            raise RecordError("supersedes_mismatch", f"{event.supersedes!r} is of another item")
        if flags & VOIDED:
            raise RecordError("supersedes_voided", f"{event.supersedes!r} is void already")
        was_correct = bool(flags & CORRECT)
        topic = learner.topics[topic_index] if topic_index != NO_TOPIC else None
        if event.op == "void":
            day.void(index)
            learner.memory.forget(item, was_correct)
            self._revise(learner, topic_index, event.item_id, was_correct, void=True)
            attempts, correct = -1, -int(was_correct)
        else:
            day.regrade(index, event.correct)
            attempts, correct = 0, event.correct - was_correct
            if correct:
                learner.memory.rescore(item, event.correct)
                self._revise(learner, topic_index, event.item_id, event.correct, void=False)
        learner.attempts += attempts
        learner.correct += correct
        if topic is not None:
            topic.attempts += attempts
            topic.correct += correct
            gone = attempts < 0 and topic.attempts == 0
            self._count_topic(topic.topic_id, attempts, correct, -int(gone))
        entry.attempts += attempts
        entry.correct += correct
        self.changed_items.add(event.item_id)
        learner.known_attempts().add(attempt)
        day.append(attempt, 0, NO_RESPONSE_TIME, 0, NO_TOPIC, OPERATION)
        if day.day == learner.latest_ms // DAY_MS:
            self._snapshot(learner, day, topic_index)
        learner.changed_days.add(day.day)
        self.changed[learner.user_id] = learner
        return event.op

    def _revise(
        self, learner: Learner, topic_index: int, item_id: str, correct: bool, *, void: bool
    ) -> None:
        """Take an answer out of the abilities (``correct`` as it was), or rescore it (as it is)."""
        a, b, c, b_variance, _ = self._item_params.get(item_id, UNKNOWN_ITEM)
        if topic_index == NO_TOPIC:
            revise_global = correction.unfold_global if void else correction.rescore_global
            learner.g, learner.vg = revise_global(
                learner.g, learner.vg, a, b, c, correct, b_variance
            )
            return
        t = learner.topics[topic_index]
        revise = correction.unfold if void else correction.rescore
        learner.g, learner.vg, t.d0, t.s, t.r = revise(
            learner.g, learner.vg, t.d0, t.s, t.r, a, b, c, correct, b_variance
        )

    def _snapshot(self, learner: Learner, day: Day, topic_index: int) -> None:
        day.snapshot(learner.g - learner.shift, learner.vg)
        if topic_index != NO_TOPIC:
            t = learner.topics[topic_index]
            theta, variance = ability.topic_ability(learner.g, learner.vg, t.d0, t.s, t.r)
            day.snapshot_topic(topic_index, theta - learner.shift, variance)

    def _count_topic(self, topic_id: str, attempts: int, correct: int, learners: int) -> None:
        totals = self.topics.get(topic_id)
        if totals is None:
            totals = self.topics[topic_id] = TopicTotals()
        totals.attempts += attempts
        totals.correct += correct
        totals.learners += learners
        self.changed_topics.add(topic_id)

    def _item(self, item_id: str) -> Item:
        """Return what is known of an item, making an entry for a new one."""
        item = self.items.get(item_id)
        if item is None:
            params = self._item_params.get(item_id, UNKNOWN_ITEM)
            item = self.items[item_id] = Item(item_hash(item_id), params)
        return item

    # -- calibrations ------------------------------------------------------------------------

    def fold_ability(self, record: KafkaRecord) -> None:
        """Rebase a learner on its ability in an applied calibration.

        The global ability and all snapshots move by the batch ability less the snapshot at the
        fit's cut, so that what was learned since stays.
        """
        if record.offset <= self.position.abilities:
            return
        self.position.abilities = record.offset
        self.counts["batch_ability"] += 1
        if record.value is None:
            return
        batch = decode(record.value, BatchAbility)
        learner = self.learner(batch.user_id)
        if learner is None:
            return
        snapshot = learner.snapshot_at(day_of(batch.cut_time))
        if snapshot is None:
            return
        learner.rebase(batch.theta - snapshot)
        self.changed[batch.user_id] = learner

    # -- after a flush -----------------------------------------------------------------------

    def expired_days(self, learner: Learner) -> list[int]:
        """Return the stored days that no row can depend on any more."""
        oldest = learner.latest_ms // DAY_MS - self._storage_days
        return [number for number in learner.days if number < oldest]


def _new_day(learner: Learner, number: int) -> Day:
    """Return an empty day; a past one starts from the snapshot nearest before it, else after."""
    if not learner.days:
        return Day(number, learner.g - learner.shift, learner.vg)
    earlier = [n for n in learner.days if n < number]
    nearest = learner.days[max(earlier) if earlier else min(learner.days)]
    return Day(number, nearest.theta, nearest.variance)


def _find(learner: Learner, attempt: bytes, retained: int) -> tuple[Day | None, int]:
    """Return the retained day and row of an attempt (not of a void's or regrade's own id)."""
    oldest = learner.latest_ms // DAY_MS - retained
    for number, day in learner.days.items():
        index = day.find(attempt) if number >= oldest else -1
        if index >= 0 and not day.row(index)[4] & OPERATION:
            return day, index
    return None, -1
