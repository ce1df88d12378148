"""From a Kafka record to an attempt that may be counted, or the reason why not."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from schemas.attempt import MAX_RECORD_BYTES, SCHEMA_VERSION, AttemptEvent, to_epoch_ms
from stream.errors import RecordError

__all__ = ["TOO_EARLY_MS", "KafkaRecord", "parse"]

TOO_EARLY_MS = 86_400_000
"""How far (ms) an event time may lie after the record's own timestamp: clocks differ."""

_decode = msgspec.json.Decoder(AttemptEvent).decode


class KafkaRecord(Protocol):
    """What is needed of a consumed record."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value; None is a tombstone."""

    @property
    def offset(self) -> int:
        """Its offset in the partition."""

    @property
    def timestamp(self) -> int:
        """When it was written, epoch ms."""


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
