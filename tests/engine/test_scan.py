"""Reading plain attempts natively: the same as the schema's reader, or not at all."""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import Any

import numpy as np
import orjson
import pytest

from schemas.attempt import MAX_RECORD_BYTES
from stream.engine.day import attempt_hash
from stream.engine.ingest import columns_of
from stream.engine.kernel.blake2b import blake2b_64
from stream.engine.kernel.fold import ACCEPTED, OPERATION, REFUSED
from stream.engine.store import Store
from stream.errors import RecordError
from stream.kafka.packed_records import PackedRecords
from stream.records import parse
from tests.engine.events import INGEST_MS, FakeRecord

PLAIN: dict[str, Any] = {
    "attempt_id": "a-1",
    "user_id": "u1",
    "item_id": "i1",
    "topic_id": "t1",
    "correct": True,
    "response_time_ms": 1234,
    "hint_used": True,
    "attempt_no": 2,
    "completed_at": INGEST_MS - 5,
    "session_id": "s",
    "schema_version": 1,
}

ODD: list[bytes] = [
    b"",
    b"{}",
    b"null",
    b"[]",
    b'{"attempt_id":"a"',
    orjson.dumps(PLAIN) + b" ",
    orjson.dumps(PLAIN) + b"{}",
    b"\xef\xbb\xbf" + orjson.dumps(PLAIN),
    orjson.dumps(PLAIN, option=orjson.OPT_INDENT_2),
    *(
        orjson.dumps(PLAIN | changed)
        for changed in (
            {"attempt_id": ""},
            {"attempt_id": "x" * 128},
            {"attempt_id": "x" * 129},
            {"attempt_id": "größe"},
            {"attempt_id": 'with "quotes"'},
            {"user_id": "u2"},
            {"user_id": None},
            {"item_id": "tab\t"},
            {"item_id": 5},
            {"topic_id": None},
            {"topic_id": ""},
            {"correct": 1},
            {"correct": None},
            {"response_time_ms": None},
            {"response_time_ms": 0},
            {"response_time_ms": 86_400_000},
            {"response_time_ms": 86_400_001},
            {"response_time_ms": -1},
            {"response_time_ms": 1.5},
            {"hint_used": None},
            {"hint_used": False},
            {"attempt_no": -1},
            {"attempt_no": None},
            {"completed_at": "2024-01-01T00:00:00Z"},
            {"completed_at": 10**15},
            {"completed_at": 10**18},
            {"completed_at": INGEST_MS + 86_400_000},
            {"completed_at": INGEST_MS + 86_400_001},
            {"completed_at": None},
            {"schema_version": 2},
            {"schema_version": 0},
            {"schema_version": None},
            {"session_id": None},
            {"session_id": ""},
            {"tenant_id": "t"},
            {"op": "attempt"},
            {"op": "void"},
            {"op": "void", "supersedes": "b"},
            {"op": None},
            {"supersedes": None},
            {"supersedes": "b"},
            {"started_at": None},
            {"started_at": 5},
            {"started_at": "2024-01-01T00:00:00Z"},
            {"extra": [1, {"deep": "x"}]},
            {"extra": "x"},
        )
    ),
    *(
        orjson.dumps({name: value for name, value in PLAIN.items() if name != missing})
        for missing in PLAIN
    ),
    orjson.dumps(PLAIN).replace(b":true", b":truex", 1),
    orjson.dumps(PLAIN).replace(b":1234", b":01234"),
    orjson.dumps(PLAIN).replace(b":1234", b":1234e0"),
    orjson.dumps(PLAIN).replace(b":1234", b":12 34"),
    orjson.dumps(PLAIN).replace(b'"a-1"', b'"a-1\\u0000"'),
    orjson.dumps(PLAIN).replace(b'"a-1"', b'"a-\\u0031"'),
    orjson.dumps(PLAIN).replace(b'"a-1"', b'"a-1\n"'),
    orjson.dumps(PLAIN).replace(b"{", b'{"correct":false,', 1),
    orjson.dumps(PLAIN).replace(b",", b" , ").replace(b":", b" :\t"),
    orjson.dumps(PLAIN).replace(b'"topic_id"', b'"topic_ie"'),
    b" " * MAX_RECORD_BYTES + orjson.dumps(PLAIN),
]


def read(value: bytes) -> tuple[object, ...]:
    """Return what the engine makes of a record."""
    store = Store(7)
    columns, operations, refused = columns_of(
        PackedRecords.of([FakeRecord(b"u1", value, 0)]), store
    )
    if columns.outcome[0] == REFUSED:
        return ("refused", refused[0].reason)
    if columns.outcome[0] == OPERATION:
        return (operations[0].op, operations[0].supersedes)
    topic = int(columns.topic[0])
    return (
        store.user_ids[columns.learner[0]],
        int(columns.attempt[0]).to_bytes(8, "little", signed=True),
        store.item_ids[columns.item[0]],
        None if topic < 0 else store.topic_ids[topic],
        int(columns.completed_ms[0]),
        int(columns.response[0]),
        int(columns.flags[0]),
    )


def expected(value: bytes) -> tuple[object, ...]:
    """Return the same by the schema's reader alone."""
    try:
        event, completed_ms = parse(value, b"u1", INGEST_MS)
    except RecordError as error:
        return ("refused", error.reason)
    if event.op != "attempt":
        return (event.op, event.supersedes)
    return (
        event.user_id,
        attempt_hash(event.attempt_id),
        event.item_id,
        event.topic_id,
        completed_ms,
        -1 if event.response_time_ms is None else event.response_time_ms,
        event.correct + 2 * event.hint_used,
    )


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_an_odd_record_is_read_as_the_schema_says(value: bytes) -> None:
    assert read(value) == expected(value)


def test_what_is_mangled_at_random_is_read_as_the_schema_says() -> None:
    rng = random.Random(7)
    plain = orjson.dumps(PLAIN)
    alphabet = b'{}[]",:\\u0123456789abtrfnse \n\t.-+eE\x00\xff'
    taken = 0
    for _ in range(4000):
        value = bytearray(plain)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            at = rng.randrange(len(value))
            change = rng.randrange(3)
            if change == 0:
                value[at] = rng.choice(alphabet)
            elif change == 1:
                del value[at]
            else:
                value.insert(at, rng.choice(alphabet))
        got = read(bytes(value))
        assert got == expected(bytes(value)), bytes(value)
        taken += got[0] == "u1"
    assert 200 < taken < 3800


def test_records_of_a_batch_do_not_run_into_each_other() -> None:
    one = orjson.dumps(PLAIN)
    values = [one, b"{}", one[:50], one[50:], orjson.dumps(PLAIN | {"topic_id": None}), one]
    records = [FakeRecord(b"u1", value, k) for k, value in enumerate(values)]
    columns, _, refused = columns_of(PackedRecords.of(records), Store(7))
    assert columns.outcome.tolist() == [ACCEPTED, REFUSED, REFUSED, REFUSED, ACCEPTED, ACCEPTED]
    assert sorted(refused) == [1, 2, 3]
    assert columns.topic.tolist()[4] == -1


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 64, 65, 127, 128])
def test_the_hash_is_blake2b(size: int) -> None:
    data = bytes((31 * k + size) % 256 for k in range(size))
    digest = int.from_bytes(blake2b(data, digest_size=8).digest(), "little", signed=True)
    padded = np.frombuffer(b"xy" + data + b"z", np.uint8)
    assert blake2b_64(padded, 2, size, np.empty(16, np.uint64)) == digest
