"""Voids and regrades: an earlier attempt of a learner is taken back or rescored."""

from __future__ import annotations

from typing import NamedTuple

from schemas.attempt import AttemptEvent
from stream.domain import ability, correction
from stream.domain.ability import FilterConfig
from stream.domain.window import DAY_MS
from stream.engine.day import (
    CORRECT,
    NO_RESPONSE_TIME,
    NO_TOPIC,
    OPERATION,
    VOIDED,
    Day,
    attempt_hash,
)
from stream.engine.learner import Learner
from stream.engine.params import ItemInForce
from stream.errors import RecordError

__all__ = ["Revision", "is_retained", "revise"]


class Revision(NamedTuple):
    """What a void or regrade changed beyond the learner's own rows.

    Attributes
    ----------
    day
        Number of the changed day.
    topic_id
        Topic of the attempt, or None.
    attempts, correct, learners
        Change of the totals: of item and topic; learners of the topic alone.
    """

    day: int
    topic_id: str | None
    attempts: int
    correct: int
    learners: int


def is_retained(learner: Learner, attempt: bytes, retained_days: int) -> bool:
    """Whether an attempt, void or regrade lies in the retained days."""
    oldest = learner.latest_ms // DAY_MS - retained_days
    return any(number >= oldest and day.find(attempt) >= 0 for number, day in learner.days.items())


def revise(
    learner: Learner | None,
    event: AttemptEvent,
    item_hash: int,
    params: ItemInForce,
    retained_days: int,
    config: FilterConfig,
) -> Revision:
    """Apply a void or regrade to a decoded learner.

    Parameters
    ----------
    learner
        Changed in place; None for an unknown one.
    event
        With op ``void`` or ``regrade``, not a duplicate.
    item_hash, params
        Of the event's item.
    retained_days
        Days before the latest within which an attempt can be corrected.
    config
        Constants of the filter in force.

    Raises
    ------
    RecordError
        It names no attempt that can be corrected; nothing was changed.
    """
    target = attempt_hash(event.supersedes or "")
    day, index = _find(learner, target, retained_days) if learner else (None, -1)
    if learner is None or day is None:
        raise RecordError("supersedes_unknown", f"no retained attempt {event.supersedes!r}")
    _, _, item, topic_index, flags = day.row(index)
    if item != item_hash:
        raise RecordError("supersedes_mismatch", f"{event.supersedes!r} is of another item")
    if flags & VOIDED:
        raise RecordError("supersedes_voided", f"{event.supersedes!r} is void already")
    was_correct = bool(flags & CORRECT)
    topic = learner.topics[topic_index] if topic_index != NO_TOPIC else None
    if event.op == "void":
        day.void(index)
        learner.memory.forget(item, was_correct)
        _revise_ability(learner, topic_index, params, was_correct, config, void=True)
        attempts, correct = -1, -int(was_correct)
    else:
        day.regrade(index, event.correct)
        attempts, correct = 0, event.correct - was_correct
        if correct:
            learner.memory.rescore(item, event.correct)
            _revise_ability(learner, topic_index, params, event.correct, config, void=False)
    learner.attempts += attempts
    learner.correct += correct
    gone = False
    if topic is not None:
        topic.attempts += attempts
        topic.correct += correct
        gone = attempts < 0 and topic.attempts == 0
    day.append(attempt_hash(event.attempt_id), 0, NO_RESPONSE_TIME, 0, NO_TOPIC, OPERATION)
    if day.day == learner.latest_ms // DAY_MS:
        _snapshot(learner, day, topic_index)
    return Revision(day.day, topic.topic_id if topic else None, attempts, correct, -int(gone))


def _revise_ability(
    learner: Learner,
    topic_index: int,
    params: ItemInForce,
    correct: bool,
    config: FilterConfig,
    *,
    void: bool,
) -> None:
    """Take an answer out of the abilities (``correct`` as it was), or rescore it (as it is)."""
    a, b, c, b_variance, _ = params
    if topic_index == NO_TOPIC:
        revise_global = correction.unfold_global if void else correction.rescore_global
        learner.g, learner.vg = revise_global(
            learner.g, learner.vg, a, b, c, correct, b_variance, config
        )
        return
    t = learner.topics[topic_index]
    revise_topic = correction.unfold if void else correction.rescore
    learner.g, learner.vg, t.d0, t.s, t.r = revise_topic(
        learner.g, learner.vg, t.d0, t.s, t.r, a, b, c, correct, b_variance, config
    )


def _snapshot(learner: Learner, day: Day, topic_index: int) -> None:
    day.snapshot(learner.g - learner.shift, learner.vg)
    if topic_index != NO_TOPIC:
        t = learner.topics[topic_index]
        theta, variance = ability.topic_ability(learner.g, learner.vg, t.d0, t.s, t.r)
        day.snapshot_topic(topic_index, theta - learner.shift, variance)


def _find(learner: Learner, attempt: bytes, retained: int) -> tuple[Day | None, int]:
    """Return the retained day and row of an attempt (not of a void's or regrade's own id)."""
    oldest = learner.latest_ms // DAY_MS - retained
    for number, day in learner.days.items():
        index = day.find(attempt) if number >= oldest else -1
        if index >= 0 and not day.row(index)[4] & OPERATION:
            return day, index
    return None, -1
