"""From a Kafka record to an attempt that may be counted, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from schemas.attempt import MAX_RECORD_BYTES, SCHEMA_VERSION, AttemptEvent, to_epoch_ms
from stream.errors import RecordError

__all__ = ["TOO_EARLY_MS", "KafkaRecord", "parse", "parse_many"]

TOO_EARLY_MS = 86_400_000
"""How far (ms) an event time may lie after the record's own timestamp: clocks differ."""

_decoder = msgspec.json.Decoder(AttemptEvent)
_decode, _decode_lines = _decoder.decode, _decoder.decode_lines

Parsed = tuple[AttemptEvent, int]
"""An event and its ``completed_at`` in epoch ms."""


class KafkaRecord(Protocol):
    """What is needed of a consumed record."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int


def parse_many(
    records: Sequence[KafkaRecord],
) -> tuple[list[AttemptEvent], list[int], list[int] | None, list[tuple[int, RecordError]]]:
    """Validate records as :func:`parse` does, together where they are all plain attempts.

    Returns
    -------
    tuple
        The events that may be counted; their times in epoch ms; the places of their records
        (None: all of them, in order); and the others' places with the reason why not.
    """
    together = _parse_together(records)
    if together is not None:
        return *together, None, []
    events: list[AttemptEvent] = []
    times: list[int] = []
    places: list[int] = []
    refused: list[tuple[int, RecordError]] = []
    for place, record in enumerate(records):
        try:
            event, completed_ms = parse(record.value, record.key, record.timestamp)
        except RecordError as error:
            refused.append((place, error))
        else:
            events.append(event)
            times.append(completed_ms)
            places.append(place)
    return events, times, places, refused


def _parse_together(
    records: Sequence[KafkaRecord],
) -> tuple[list[AttemptEvent], list[int]] | None:
    """Decode all values in one call; None where a record needs a look of its own.

    Between a ``}`` that ends a line and a ``{`` that begins the next, no JSON value can go on:
    when each value begins and ends so and as many events come out as there are records, each
    record was one event.
    """
    values = [record.value for record in records]
    for value in values:
        if value is None or value[:1] != b"{" or value[-1:] != b"}":
            return None
    lines = b"\n".join(values)  # type: ignore[arg-type]
    if len(lines) > MAX_RECORD_BYTES and max(map(len, values)) > MAX_RECORD_BYTES:  # type: ignore[arg-type]
        return None
    if b"\\u0000" in lines:
        return None
    try:
        events = _decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    n = len(records)
    if (
        len(events) != n
        or [event.schema_version for event in events].count(SCHEMA_VERSION) != n
        or [event.supersedes for event in events].count(None) != n
        or [event.op for event in events].count("attempt") != n
        or [event.started_at for event in events].count(None) != n
        or [event.user_id.encode() for event in events] != [record.key for record in records]
    ):
        return None
    try:
        times = [to_epoch_ms(event.completed_at) for event in events]
    except ValueError:
        return None
    for record, completed_ms in zip(records, times, strict=True):
        if completed_ms > record.timestamp + TOO_EARLY_MS:
            return None
    return events, times


def parse(value: bytes | None, key: bytes | None, timestamp_ms: int) -> tuple[AttemptEvent, int]:
    """Validate one record.

    Parameters
    ----------
    value, key
        As they came.
    timestamp_ms
        The record's own (ingest) timestamp, epoch ms.

    Returns
    -------
    tuple
        The event and its ``completed_at`` in epoch ms.

    Raises
    ------
    RecordError
        It cannot be counted; ``reason`` is one of :data:`schemas.attempt.REASONS`.
    """
    if value is None:
        raise RecordError("invalid", "the record has no value")
    if len(value) > MAX_RECORD_BYTES:
        raise RecordError("too_large", f"{len(value)} bytes; {MAX_RECORD_BYTES} are allowed")
    try:
        event = _decode(value)
        completed_ms = to_epoch_ms(event.completed_at)
        if event.started_at is not None:
            to_epoch_ms(event.started_at)
    except (msgspec.DecodeError, ValueError, UnicodeDecodeError) as error:
        raise _classify(value, error) from None
    if event.schema_version != SCHEMA_VERSION:
        raise RecordError("unknown_version", f"schema_version {event.schema_version}")
    if (event.op == "attempt") != (event.supersedes is None):
        raise RecordError("invalid", "supersedes goes with op void or regrade, and only with them")
    # PostgreSQL's text cannot hold it.
    if b"\\u0000" in value:
        raise RecordError("invalid", "a text contains the character U+0000")
    if key is None or key != event.user_id.encode("utf-8", "surrogatepass"):
        raise RecordError("key_mismatch", f"key {key!r}, user_id {event.user_id!r}")
    if completed_ms > timestamp_ms + TOO_EARLY_MS:
        raise RecordError(
            "too_early",
            f"completed_at is {completed_ms - timestamp_ms} ms after the record arrived",
        )
    return event, completed_ms


def _classify(value: bytes, error: Exception) -> RecordError:
    """Say why a value could not be decoded."""
    try:
        value.decode()
    except UnicodeDecodeError as bad:
        return RecordError("not_utf8", str(bad))
    try:
        loose: Any = msgspec.json.decode(value)
    except msgspec.DecodeError as bad:
        return RecordError("not_json", str(bad))
    # A later major version may have other fields: its number decides, not their absence.
    version = loose.get("schema_version") if isinstance(loose, dict) else None
    if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA_VERSION:
        return RecordError("unknown_version", f"schema_version {version}")
    return RecordError("invalid", str(error))
