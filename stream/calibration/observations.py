"""The responses that enter a fit, read from the ``attempts`` log itself.

The rules are those of ``docs/counting-rules.md``: the same records count here and in the live
counts. Columns, not objects: a million attempts take about 40 MB while they are read.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.attempt import AttemptEvent
from schemas.calibration import CalibrationRequest
from stream.domain.attempt_log import AttemptLog
from stream.domain.window import DAY_MS, retained_days
from stream.errors import RecordError
from stream.kafka.reader import Record, read_whole
from stream.records import parse
from stream.settings import Settings
from topics.catalogue import attempts_topic

__all__ = ["ObservationReader", "Observations", "read_observations"]

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_ATTEMPT, _VOID, _REGRADE = 0, 1, 2
_OPS = {"attempt": _ATTEMPT, "void": _VOID, "regrade": _REGRADE}

_GOLDEN = 0x9E3779B97F4A7C15
"""An odd number near 2^64 / golden ratio: spreads learner numbers over 64 bits."""


@dataclass(frozen=True, slots=True)
class Observations:
    """Responses of one calibration window, ordered by learner, item and time.

    Attributes
    ----------
    learners, items
        Names in alphabetical order; all have a response.
    learner, item
        (n,) indices into them.
    correct, responded_at
        (n,) whether right; event time, epoch ms.
    cut_time
        Latest event time of an accepted attempt before the cut, epoch ms; 0 without any.
    responses
        ``first`` attempt in the window of each learner at each item, or ``all``.
    skipped
        What was left out, by reason.
    log
        All attempts of these learners at these items in the window, repeats included, in order:
        what practice and memory are fitted on.
    """

    learners: list[str]
    items: list[str]
    learner: Ints
    item: Ints
    correct: Bools
    responded_at: Ints
    cut_time: int
    responses: str
    skipped: dict[str, int]
    log: AttemptLog | None = None

    def __len__(self) -> int:
        return len(self.learner)

    def item_counts(self) -> dict[str, int]:
        """Return how many responses each item has."""
        counts = np.bincount(self.item, minlength=len(self.items))
        return dict(zip(self.items, counts.tolist(), strict=True))


class _Correction(NamedTuple):
    row: int
    """Records before it are rows below this."""
    target: int
    """Key of the attempt it names."""
    oldest_ms: int
    """The attempt must not be older: its day would not be retained."""


class ObservationReader:
    """Collects records of ``attempts`` and turns them into observations.

    Parameters
    ----------
    lateness_days
        Days an attempt may be older than its learner's latest.
    """

    def __init__(self, lateness_days: int) -> None:
        self._lateness_ms = lateness_days * DAY_MS
        self._retained_days = retained_days(lateness_days)
        self._learners: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._latest: list[int] = []
        self._learner = array("q")
        self._item = array("q")
        self._op = array("b")
        self._correct = array("b")
        self._at = array("q")
        self._topics: dict[str, int] = {}
        self._topic = array("q")
        self._response_time = array("q")
        self._key = array("Q")
        self._corrections: list[_Correction] = []
        self._skipped: Counter[str] = Counter()

    def take(self, records: list[Record]) -> None:
        """Add records; those of a partition in offset order. What cannot count is skipped."""
        for record in records:
            try:
                event, at = parse(record.value(), record.key(), record.timestamp()[1])
            except RecordError:
                self._skipped["invalid"] += 1
            else:
                self._add(event, at)

    def _add(self, event: AttemptEvent, at: int) -> None:
        learner = self._learners.setdefault(event.user_id, len(self._learners))
        if learner == len(self._latest):
            self._latest.append(0)
        op = _OPS[event.op]
        if op == _ATTEMPT:
            latest = self._latest[learner]
            if at < latest - self._lateness_ms:
                self._skipped["too_late"] += 1
                return
            if at > latest:
                self._latest[learner] = at
        else:
            oldest_ms = (self._latest[learner] // DAY_MS - self._retained_days) * DAY_MS
            target = _key(learner, event.supersedes or "")
            self._corrections.append(_Correction(len(self._op), target, oldest_ms))
        self._learner.append(learner)
        self._item.append(self._items.setdefault(event.item_id, len(self._items)))
        self._op.append(op)
        self._correct.append(event.correct)
        self._at.append(at)
        topic = event.topic_id
        self._topic.append(
            -1 if topic is None else self._topics.setdefault(topic, len(self._topics))
        )
        self._response_time.append(event.response_time_ms or 0)
        self._key.append(_key(learner, event.attempt_id))

    def observations(
        self, lookback_days: int, responses: str, max_obs: int = 0, seed: str = ""
    ) -> Observations:
        """Return the window's observations.

        Parameters
        ----------
        lookback_days
            Length of the window, which ends with the latest accepted attempt.
        responses
            ``first``: a learner's earliest attempt at an item in the window; ``all``.
        max_obs
            Most observations, kept by leaving out whole learners at random; 0: no cap.
        seed
            Makes that choice repeatable.
        """
        learner, item = np.array(self._learner), np.array(self._item)
        op, at = np.array(self._op), np.array(self._at)
        correct = np.array(self._correct, dtype=bool)
        skipped = dict(self._skipped)
        counts = self._first_copies()
        skipped["duplicate"] = int((~counts).sum())
        accepted = counts & (op == _ATTEMPT)
        cut_time = int(at[accepted].max(initial=0))
        self._correct_rows(counts, item, op, at, correct)
        skipped["void"] = int((accepted & ~counts).sum())
        in_window = at >= cut_time - lookback_days * DAY_MS
        skipped["outside_window"] = int((accepted & counts & ~in_window).sum())
        rows = np.flatnonzero(accepted & counts & in_window)
        window = rows
        learners = _ranks(list(self._learners), learner[rows])
        items = _ranks(list(self._items), item[rows])
        # Arrival decides between equal times; rows are in the order of arrival.
        order = np.lexsort((rows, at[rows], items.rank, learners.rank))
        if responses == "first":
            pair = learners.rank[order] * len(self._items) + items.rank[order]
            first = np.ones(len(order), dtype=bool)
            first[1:] = pair[1:] != pair[:-1]
            skipped["repeats"] = int((~first).sum())
            order = order[first]
        if max_obs and len(order) > max_obs:
            kept = _whole_learners(learners.rank[order], max_obs, seed)
            skipped["over_cap"] = int((~kept).sum())
            order = order[kept]
        chosen = rows[order]
        learners = _ranks(list(self._learners), learner[chosen])
        items = _ranks(list(self._items), item[chosen])
        return Observations(
            learners=learners.names,
            items=items.names,
            learner=learners.rank,
            item=items.rank,
            correct=correct[chosen],
            responded_at=at[chosen],
            cut_time=cut_time,
            responses=responses,
            skipped={reason: n for reason, n in skipped.items() if n},
            log=self._log(window, learners, items, learner, item, correct, at),
        )

    def _log(
        self,
        rows: Ints,
        learners: _Ranked,
        items: _Ranked,
        learner: Ints,
        item: Ints,
        correct: Bools,
        at: Ints,
    ) -> AttemptLog:
        """Return the attempts in ``rows`` of the chosen learners at the chosen items."""
        learner_number = _numbers(self._learners, learners.names)[learner[rows]]
        item_number = _numbers(self._items, items.names)[item[rows]]
        kept = np.flatnonzero((learner_number >= 0) & (item_number >= 0))
        kept = kept[np.lexsort((rows[kept], at[rows[kept]], learner_number[kept]))]
        chosen = rows[kept]
        end_s = at[chosen] / 1000.0
        return AttemptLog(
            learner=learner_number[kept],
            item=item_number[kept],
            topic=np.array(self._topic)[chosen],
            correct=correct[chosen],
            start_s=end_s - np.array(self._response_time)[chosen] / 1000.0,
            end_s=end_s,
            n_learners=len(learners.names),
            n_items=len(items.names),
            n_topics=len(self._topics),
        )

    def _first_copies(self) -> Bools:
        """Mark the first record of each attempt_id of a learner."""
        counts = np.zeros(len(self._key), dtype=bool)
        counts[np.unique(np.array(self._key), return_index=True)[1]] = True
        return counts

    def _correct_rows(self, counts: Bools, item: Ints, op: Ints, at: Ints, correct: Bools) -> None:
        """Apply voids and regrades in the order of arrival, in place."""
        keys = np.array(self._key)
        wanted = np.array([c.target for c in self._corrections], dtype=np.uint64)
        found = np.flatnonzero(counts & (op == _ATTEMPT) & np.isin(keys, wanted))
        row_of = dict(zip(keys[found].tolist(), found.tolist(), strict=True))
        for correction in self._corrections:
            row = row_of.get(correction.target)
            if (
                not counts[correction.row]
                or row is None
                or row > correction.row
                or item[row] != item[correction.row]
                or at[row] < correction.oldest_ms
                or not counts[row]
            ):
                continue
            if op[correction.row] == _VOID:
                counts[row] = False
            else:
                correct[row] = correct[correction.row]


def read_observations(
    settings: Settings, request: CalibrationRequest, cancelled: threading.Event | None = None
) -> Observations:
    """Read what a request asks to be fitted; blocks, so call it in a thread.

    Raises
    ------
    BrokerUnavailableError
        Kafka does not answer.
    """
    reader = ObservationReader(settings.lateness_days)
    read_whole(
        settings,
        {attempts_topic.name: reader.take},
        since_ms=request.since,
        until={int(p): offset for p, offset in request.cut_offsets.items()},
        cancelled=cancelled,
    )
    return reader.observations(
        request.lookback_days,
        settings.calibration_responses,
        settings.mirt_max_obs,
        seed=request.request_id,
    )


def _key(learner: int, attempt_id: str) -> int:
    return (hash(attempt_id) ^ (learner * _GOLDEN)) & 0xFFFF_FFFF_FFFF_FFFF


def _numbers(known: dict[str, int], names: list[str]) -> Ints:
    """Return, by the number a name was read under, its place in ``names``, or -1."""
    numbers = np.full(len(known), -1, dtype=np.int64)
    numbers[[known[name] for name in names]] = np.arange(len(names))
    return numbers


class _Ranked(NamedTuple):
    names: list[str]
    rank: Ints


def _ranks(names: list[str], index: Ints) -> _Ranked:
    """Give numbers to the names that occur in alphabetical order: equal for equal data."""
    used = sorted(np.unique(index).tolist(), key=names.__getitem__)
    rank = np.zeros(len(names), dtype=np.int64)
    rank[used] = np.arange(len(used))
    return _Ranked([names[i] for i in used], rank[index])


def _whole_learners(learner: Ints, max_obs: int, seed: str) -> Bools:
    """Choose learners at random until the cap is reached; return which rows are theirs."""
    counts = np.bincount(learner)
    order = np.random.default_rng(list(seed.encode())).permutation(len(counts))
    chosen = np.zeros(len(counts), dtype=bool)
    chosen[order] = np.cumsum(counts[order]) <= max_obs
    kept: Bools = chosen[learner]
    return kept
