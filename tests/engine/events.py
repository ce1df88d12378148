"""Building records for the engine's tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from stream.domain.window import DAY_MS
from stream.engine.flush import Flush, Indicators
from stream.engine.params import ParamsStore
from stream.engine.rows import StateLoader
from stream.engine.state import PartitionState
from stream.kafka.packed import PackedMessages
from stream.kafka.packed_records import PackedRecord, PackedRecords
from stream.kafka.transaction import Outgoing

MONDAY = 20_000 - (20_000 + 3) % 7
"""Day number of a Monday in 2024."""

INGEST_MS = (MONDAY + 400) * DAY_MS

Rows = list[tuple[bytes, bytes | None]]
"""Keys and values of ``engine-state``."""


@dataclass
class FakeRecord:
    """A consumed record."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = INGEST_MS


def event(attempt_id: str, user_id: str = "u1", day: float = 0.0, **fields: Any) -> dict[str, Any]:
    """Return an attempt; ``day`` counts from :data:`MONDAY`."""
    return {
        "attempt_id": attempt_id,
        "user_id": user_id,
        "item_id": "i1",
        "topic_id": "t1",
        "correct": True,
        "completed_at": int((MONDAY + day) * DAY_MS),
        **fields,
    }


def records(events: Iterable[dict[str, Any]]) -> list[FakeRecord]:
    """Return records of one partition, offsets ascending."""
    return [
        FakeRecord(e["user_id"].encode(), orjson.dumps(e), offset)
        for offset, e in enumerate(events)
    ]


def new_state(lateness_days: int = 7, params: ParamsStore | None = None) -> PartitionState:
    """Return an empty partition state."""
    return PartitionState(0, lateness_days, params or ParamsStore())


def folded(events: Iterable[dict[str, Any]], **options: Any) -> PartitionState:
    """Return a state that has folded events."""
    state = new_state(**options)
    for record in records(events):
        state.fold([record])
    return state


def packed_rows(rows: Iterable[tuple[bytes, bytes | None]]) -> PackedRecords:
    """Return rows of ``engine-state`` as they are read."""
    return PackedRecords.of([PackedRecord(0, 0, key, value) for key, value in rows])


def loaded(rows: Rows, params: ParamsStore | None = None) -> PartitionState:
    """Return the state that rows of ``engine-state`` give, taken one by one."""
    state = new_state(params=params)
    loader = StateLoader(state)
    for key, value in rows:
        loader.add(packed_rows([(key, value)]))
    loader.finish()
    return state


def topic_totals(state: PartitionState, topic_id: str) -> tuple[int, int, int]:
    """Return a topic's attempts, correct ones and learners."""
    store = state.store
    attempts, correct, learners = store.arrays.topic_counts[store.topics[topic_id]].tolist()
    return attempts, correct, learners


def item_totals(state: PartitionState) -> dict[str, tuple[int, int]]:
    """Return each item's attempts and correct ones."""
    store = state.store
    return {
        item_id: (counts[0], counts[1])
        for item_id, counts in zip(store.item_ids, store.arrays.item_counts.tolist(), strict=False)
    }


def unpacked(messages: Iterable[Outgoing | PackedMessages]) -> list[Outgoing]:
    """Return messages one by one."""
    plain: list[Outgoing] = []
    for message in messages:
        if isinstance(message, Outgoing):
            plain.append(message)
            continue
        for kind, k, k_size, v, v_size in message.places.tolist():
            value = message.data[v : v + v_size] if v_size >= 0 else None
            key = message.data[k : k + k_size]
            plain.append(Outgoing(message.topics[kind], key, value, message.partition))
    return plain


def flushed(state: PartitionState, stream_week: int = 0, **indicators: Any) -> Flush:
    """Build a flush of a state."""
    flush = Flush(
        state,
        Indicators(**indicators),
        stream_week,
        computed_at_ms=INGEST_MS,
        published_watermark=0,
    )
    for _ in flush.build():
        pass
    return flush
