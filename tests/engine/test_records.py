from __future__ import annotations

import orjson
import pytest

from stream.domain.window import DAY_MS
from stream.errors import RecordError
from stream.records import parse
from tests.engine.events import INGEST_MS, event


def test_a_valid_record_gives_the_event_and_its_time() -> None:
    parsed, at_ms = parse(orjson.dumps(event("a")), b"u1", INGEST_MS)
    assert parsed.attempt_id == "a"
    assert at_ms == event("a")["completed_at"]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2024-09-30T00:00:00Z", 1_727_654_400_000),
        ("2024-09-30T02:00:00.123999+02:00", 1_727_654_400_123),
    ],
)
def test_an_rfc_3339_time_is_read_to_the_millisecond(text: str, ms: int) -> None:
    _, at_ms = parse(orjson.dumps({**event("a"), "completed_at": text}), b"u1", INGEST_MS)
    assert at_ms == ms


def test_unknown_fields_are_ignored() -> None:
    parsed, _ = parse(orjson.dumps({**event("a"), "campus": "north"}), b"u1", INGEST_MS)
    assert parsed.item_id == "i1"


BAD = {
    "not json": (b"{", "not_json"),
    "a list": (b"[]", "invalid"),
    "empty": (b"", "not_json"),
    "no value": (None, "invalid"),
    "invalid utf-8": (b'{"attempt_id": "\xff"}', "not_utf8"),
    "wrong type": (orjson.dumps({**event("a"), "correct": "yes"}), "invalid"),
    "missing field": (orjson.dumps({"attempt_id": "a"}), "invalid"),
    "empty id": (orjson.dumps({**event("a"), "item_id": ""}), "invalid"),
    "long id": (orjson.dumps({**event("a"), "item_id": "x" * 129}), "invalid"),
    "negative response time": (orjson.dumps({**event("a"), "response_time_ms": -1}), "invalid"),
    "no zone": (orjson.dumps({**event("a"), "completed_at": "2024-09-30T00:00:00"}), "invalid"),
    "not a time": (orjson.dumps({**event("a"), "completed_at": "soon"}), "invalid"),
    "before 1970": (orjson.dumps({**event("a"), "completed_at": -1}), "invalid"),
    "NUL": (orjson.dumps({**event("a"), "item_id": "i\0"}), "invalid"),
    "void of nothing": (orjson.dumps({**event("a"), "op": "void"}), "invalid"),
    "supersedes in an attempt": (orjson.dumps({**event("a"), "supersedes": "b"}), "invalid"),
    "unknown version": (orjson.dumps({**event("a"), "schema_version": 2}), "unknown_version"),
    "unknown version, other fields": (b'{"schema_version": 3}', "unknown_version"),
    "another key": (orjson.dumps(event("a", "u2")), "key_mismatch"),
    "2099": (orjson.dumps({**event("a"), "completed_at": "2099-01-01T00:00:00Z"}), "too_early"),
    "1 MiB": (b"x" * 1024 * 1024, "too_large"),
}


@pytest.mark.parametrize(("value", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_record_has_its_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse(value, b"u1", INGEST_MS)
    assert caught.value.reason == reason


def test_a_record_without_a_key_does_not_match_its_learner() -> None:
    with pytest.raises(RecordError, match="key_mismatch"):
        parse(orjson.dumps(event("a")), None, INGEST_MS)


def test_exactly_a_day_ahead_is_not_too_early() -> None:
    value = orjson.dumps({**event("a"), "completed_at": INGEST_MS + DAY_MS})
    assert parse(value, b"u1", INGEST_MS)[1] == INGEST_MS + DAY_MS
