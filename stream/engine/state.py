"""The state of one attempts partition, and the fold of records into it.

Learners live packed in a :class:`~stream.engine.store.Store` and are folded by compiled code;
what is rare (voids, regrades) is done on a decoded learner. Nothing here does I/O or knows the
time of day: what a record does to the state depends on the state and the record alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from schemas.attempt import AttemptEvent
from schemas.calibration import BatchAbility
from schemas.codec import decode
from stream.domain.window import day_of, retained_days
from stream.engine.corrections import is_retained, revise
from stream.engine.day import attempt_hash
from stream.engine.ingest import columns_of
from stream.engine.kernel import fold as kernel
from stream.engine.learner import STATE_VERSION, Learner
from stream.engine.params import ItemInForce, ParamsStore
from stream.engine.store import Store
from stream.errors import RecordError
from stream.kafka.packed_records import PackedRecords
from stream.records import KafkaRecord

__all__ = ["DeadLetter", "PartitionState", "Position"]


@dataclass(slots=True)
class DeadLetter:
    """A record that cannot be counted, and why."""

    record: KafkaRecord
    reason: str
    detail: str


class Position(msgspec.Struct):
    """How far a partition was folded, and what must be known to go on: its offset row.

    Attributes
    ----------
    attempts, abilities
        Offset of the last folded record of ``attempts`` and ``batch-abilities``; -1 before any.
    params_version
        Item parameters in force since this row was written.
    stream_week
        Latest week (a Monday's day number) with an accepted attempt; 0 before any.
    weeks_published
        Latest week for which every learner's weekly row was published.
    counts
        Records by outcome since the first: accepted, duplicate, void, regrade and every reason
        of a dead letter.
    """

    attempts: int = -1
    abilities: int = -1
    params_version: str = "none"
    stream_week: int = 0
    weeks_published: int = 0
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    state_version: int = STATE_VERSION


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
    store
        The learners, and the totals of topics and items.
    dead_letters, counts
        Records refused, and records by outcome, since the last flush.
    """

    def __init__(self, partition: int, lateness_days: int, params: ParamsStore) -> None:
        self.partition = partition
        self.position = Position()
        self.store = Store(lateness_days)
        self.dead_letters: list[DeadLetter] = []
        self.counts: Counter[str] = Counter()
        self._params = params
        self._filter = params.filter
        self._retained_days = retained_days(lateness_days)
        self.take_params()

    # -- looking up --------------------------------------------------------------------------

    def learner(self, user_id: str) -> Learner | None:
        """Return a learner, decoded, or None if unknown. A copy: changes to it change nothing."""
        return self.store.read(user_id)

    def __len__(self) -> int:
        return len(self.store)

    @property
    def n_changed(self) -> int:
        """Learners with changes since the last flush."""
        return self.store.n_changed

    @property
    def has_changes(self) -> bool:
        """Whether a flush would write anything."""
        return bool(self.store.n_changed or self.dead_letters or self.counts)

    @property
    def has_newer_params(self) -> bool:
        """Whether a newer whole parameter version waits to be put in force."""
        return self.position.params_version != self._params.version

    def take_params(self) -> None:
        """Put the newest whole parameter version in force.

        Called when the state was loaded and at a flush only: the version is part of the offset
        row, so that a replay folds the same attempts with the same parameters.
        """
        self.position.params_version = self._params.version
        self.store.set_params(self._params.version, self._params.items, self._params.unknown_item)
        self.store.set_weights(self._params.weights)
        self._filter = self._params.filter
        self.store.set_filter(self._filter)

    # -- folding -----------------------------------------------------------------------------

    def fold(self, records: Sequence[KafkaRecord]) -> None:
        """Fold records of ``attempts``, in order; those at or below the position change nothing."""
        packed = PackedRecords.of(records).after(self.position.attempts)
        n = len(packed)
        if not n:
            return
        columns, operations, refused = columns_of(packed, self.store)
        at = 0
        while (at := kernel.fold(self.store.arrays, at, n, *columns)) < n:
            if columns.outcome[at] == kernel.FULL:
                self.store.grow_heap()
                columns.outcome[at] = kernel.ACCEPTED
                continue
            try:
                self.counts[self._correct(operations[at])] += 1
            except RecordError as error:
                refused[at] = error
            at += 1
        for outcome, name in ((kernel.ACCEPTED, "accepted"), (kernel.DUPLICATE, "duplicate")):
            if count := int(np.count_nonzero(columns.outcome == outcome)):
                self.counts[name] += count
        for place in (columns.outcome == kernel.TOO_LATE).nonzero()[0].tolist():
            detail = f"{columns.lag_ms[place]} ms before the learner's latest attempt"
            refused[place] = RecordError("too_late", detail)
        for place, why in sorted(refused.items()):
            self.dead_letters.append(DeadLetter(packed[place], why.reason, why.detail))
            self.counts[why.reason] += 1
        self.position.attempts = packed[-1].offset
        self.position.stream_week = self.store.stream_week

    def _correct(self, event: AttemptEvent) -> str:
        """Apply a void or regrade; return its outcome."""
        learner = self.store.read(event.user_id)
        attempt = attempt_hash(event.attempt_id)
        if learner is not None and is_retained(learner, attempt, self._retained_days):
            return "duplicate"
        store = self.store
        number = store.item(event.item_id)
        item_hash = int(store.arrays.item_hash[number]) & 0xFFFF_FFFF
        params = ItemInForce(*store.arrays.item_params[number].tolist())
        revision = revise(learner, event, item_hash, params, self._retained_days, self._filter)
        assert learner is not None
        store.write(learner, revision.day)
        arrays = store.arrays
        arrays.item_counts[number] += (revision.attempts, revision.correct)
        arrays.item_changed[number] = 1
        if revision.topic_id is not None:
            topic = store.topic(revision.topic_id)
            arrays.topic_counts[topic] += (
                revision.attempts,
                revision.correct,
                revision.learners,
            )
            arrays.topic_changed[topic] = 1
        return event.op

    # -- calibrations ------------------------------------------------------------------------

    def fold_abilities(self, records: Sequence[KafkaRecord]) -> None:
        """Rebase learners on their abilities in an applied calibration.

        The global ability and all snapshots move by the batch ability less the snapshot at the
        fit's cut, so that what was learned since stays.
        """
        for record in records:
            if record.offset <= self.position.abilities:
                continue
            self.position.abilities = record.offset
            self.counts["batch_ability"] += 1
            if record.value is None:
                continue
            batch = decode(record.value, BatchAbility)
            number = self.store.find_user(batch.user_id)
            if number >= 0:
                cut = day_of(batch.cut_time)
                kernel.rebase(self.store.arrays, number, batch.theta, cut)
