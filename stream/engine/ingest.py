"""From consumed records to the columns that compiled code folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from schemas.attempt import AttemptEvent
from stream.engine.day import CORRECT, HINT, NO_RESPONSE_TIME
from stream.engine.kernel.fold import ACCEPTED, OPERATION
from stream.engine.store import Store
from stream.errors import RecordError
from stream.records import KafkaRecord, parse_many

if TYPE_CHECKING:
    from stream.engine.kernel.layout import I4, I8, U1

__all__ = ["Columns", "columns_of"]


@dataclass(slots=True)
class Columns:
    """Valid events of some records, and those that are refused.

    Attributes
    ----------
    events
        The events (n,).
    places
        Place of each event's record; None: all records are events.
    refused
        Place and reason of the other records.
    learner, attempt, item, topic, completed_ms, response, flags, outcome, lag_ms
        As :func:`stream.engine.kernel.fold.fold` takes them, (n,).
    """

    events: list[AttemptEvent]
    places: list[int] | None
    refused: list[tuple[int, RecordError]]
    learner: I4
    attempt: I8
    item: I4
    topic: I4
    completed_ms: I8
    response: I4
    flags: U1
    outcome: U1
    lag_ms: I8


def columns_of(records: Sequence[KafkaRecord], store: Store) -> Columns:
    """Validate records and number what they name; new ids are entered in the store."""
    events, times, places, refused = parse_many(records)
    n = len(events)
    users, topics, items = store.users, store.topics, store.items
    learner = [users.get(event.user_id, -1) for event in events]
    if -1 in learner:
        learner = [store.user(event.user_id) for event in events]
    item = [items.get(event.item_id, -1) for event in events]
    if -1 in item:
        item = [store.item(event.item_id) for event in events]
    topic = [topics.get(event.topic_id, -1) for event in events]  # type: ignore[arg-type]
    if -1 in topic:
        topic = [-1 if event.topic_id is None else store.topic(event.topic_id) for event in events]
    hashes = b"".join(
        [blake2b(event.attempt_id.encode(), digest_size=8).digest() for event in events]
    )
    return Columns(
        events=events,
        places=places,
        refused=refused,
        learner=np.array(learner, np.int32),
        attempt=np.frombuffer(hashes, np.int64),
        item=np.array(item, np.int32),
        topic=np.array(topic, np.int32),
        completed_ms=np.array(times, np.int64),
        response=np.array(
            [
                NO_RESPONSE_TIME if event.response_time_ms is None else event.response_time_ms
                for event in events
            ],
            np.int32,
        ),
        flags=np.array(
            [
                (CORRECT if event.correct else 0) | (HINT if event.hint_used else 0)
                for event in events
            ],
            np.uint8,
        ),
        outcome=np.array(
            [ACCEPTED if event.op == "attempt" else OPERATION for event in events], np.uint8
        ),
        lag_ms=np.zeros(n, np.int64),
    )
