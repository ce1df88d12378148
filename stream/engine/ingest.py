"""From consumed records to the columns that compiled code folds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from schemas.attempt import AttemptEvent
from stream.engine.day import CORRECT, HINT, NO_RESPONSE_TIME, attempt_hash
from stream.engine.kernel import scan as kernel
from stream.engine.kernel.blake2b import BLOCK_WORDS
from stream.engine.kernel.fold import ACCEPTED, OPERATION, REFUSED
from stream.engine.store import Store
from stream.errors import RecordError
from stream.kafka.packed_records import PackedRecords
from stream.records import parse

if TYPE_CHECKING:
    from stream.engine.kernel.layout import I4, I8, U1

__all__ = ["Columns", "columns_of"]


class Columns(NamedTuple):
    """Records as :func:`stream.engine.kernel.fold.fold` takes them, (n,) each.

    ``outcome`` is REFUSED for a record that is no event, OPERATION for a void or regrade.
    """

    learner: I4
    attempt: I8
    item: I4
    topic: I4
    completed_ms: I8
    response: I4
    flags: U1
    outcome: U1
    lag_ms: I8


def columns_of(
    records: PackedRecords, store: Store
) -> tuple[Columns, dict[int, AttemptEvent], dict[int, RecordError]]:
    """Validate records and number what they name; new ids are entered in the store.

    Returns
    -------
    tuple
        The columns; the voids and regrades by place; and why others are refused, by place.
    """
    n = len(records)
    columns = Columns(
        np.zeros(n, np.int32),
        np.zeros(n, np.int64),
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.zeros(n, np.int64),
        np.zeros(n, np.int32),
        np.zeros(n, np.uint8),
        np.full(n, ACCEPTED, np.uint8),
        np.zeros(n, np.int64),
    )
    unread = _scan(records, store, columns)
    operations: dict[int, AttemptEvent] = {}
    refused: dict[int, RecordError] = {}
    for place in unread.nonzero()[0].tolist():
        record = records[place]
        try:
            event, completed_ms = parse(record.value, record.key, record.timestamp)
        except RecordError as error:
            refused[place] = error
            columns.outcome[place] = REFUSED
            continue
        if event.op != "attempt":
            operations[place] = event
            columns.outcome[place] = OPERATION
            continue
        columns.learner[place] = store.users([event.user_id.encode()])[0]
        columns.item[place] = store.item(event.item_id)
        columns.topic[place] = -1 if event.topic_id is None else store.topic(event.topic_id)
        attempt = attempt_hash(event.attempt_id)
        columns.attempt[place] = int.from_bytes(attempt, "little", signed=True)
        columns.completed_ms[place] = completed_ms
        response = event.response_time_ms
        columns.response[place] = NO_RESPONSE_TIME if response is None else response
        columns.flags[place] = (CORRECT if event.correct else 0) | (HINT if event.hint_used else 0)
    return columns, operations, refused


def _scan(records: PackedRecords, store: Store, columns: Columns) -> U1:
    """Read the plain attempts into columns; return what is left unread, (n,)."""
    data, places, n = records.data, records.places, len(records)
    unread = np.zeros(n, np.uint8)
    fields = np.empty((kernel.N_FIELDS, 2), np.int64)
    block = np.empty(BLOCK_WORDS, np.uint64)
    at = 0
    while True:
        at, missing, start, size = kernel.scan(
            store.arrays,
            at,
            data,
            places,
            fields,
            block,
            *columns[:7],
            unread,
        )
        if at == n:
            return unread
        if missing == kernel.NO_ROOM:
            store.make_room(size)
            continue
        name = data[start : start + size].tobytes().decode()
        if missing == kernel.NEW_TOPIC:
            store.topic(name)
        else:
            store.item(name)
