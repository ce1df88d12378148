"""Reading the dead-letter topic, and putting repaired records back."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import Producer

from stream.kafka.reader import Record, read_whole
from stream.settings import Settings
from topics.catalogue import attempts_topic, dead_letters_topic

__all__ = ["DeadLetterRecord", "from_json", "put_back", "read_dead_letters"]


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A record that was not counted.

    Attributes
    ----------
    partition, offset
        Where it is in the dead-letter topic.
    source_partition, source_offset
        Where it was in attempts.
    reason, detail
        Why it was not counted.
    key, value
        As they came.
    """

    partition: int
    offset: int
    source_partition: int
    source_offset: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None

    def to_json(self) -> dict[str, Any]:
        """Return it for a JSON file; bytes that are not UTF-8 go as base64."""
        return {
            "partition": self.partition,
            "offset": self.offset,
            "source_partition": self.source_partition,
            "source_offset": self.source_offset,
            "reason": self.reason,
            "detail": self.detail,
            **_text_or_base64("key", self.key),
            **_text_or_base64("value", self.value),
        }


def read_dead_letters(settings: Settings, reason: str | None = None) -> list[DeadLetterRecord]:
    """Read the whole dead-letter topic, committed records only.

    Parameters
    ----------
    settings
        Where the broker is.
    reason
        Only those with this code.
    """
    found: list[DeadLetterRecord] = []

    def take(records: list[Record]) -> None:
        for record in records:
            headers = {name: _text(value) for name, value in record.headers() or []}
            found.append(
                DeadLetterRecord(
                    partition=_number(record.partition()),
                    offset=_number(record.offset()),
                    source_partition=int(headers.get("source_partition", "-1")),
                    source_offset=int(headers.get("source_offset", "-1")),
                    reason=headers.get("reason", "unknown"),
                    detail=headers.get("detail", ""),
                    key=record.key(),
                    value=record.value(),
                )
            )

    read_whole(settings, {dead_letters_topic.name: take})
    chosen = (letter for letter in found if reason in (None, letter.reason))
    return sorted(chosen, key=lambda letter: (letter.source_partition, letter.source_offset))


def from_json(row: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    """Return key and value of a line that :meth:`DeadLetterRecord.to_json` wrote, repaired or not.

    The value may be text, base64, or an object: the attempt itself. Without a key the attempt's
    own ``user_id`` becomes the key.
    """
    value: bytes | None
    if isinstance(row.get("value"), dict):
        value = msgspec.json.encode(row["value"])
    else:
        value = _bytes(row, "value")
    key = _bytes(row, "key")
    if isinstance(row.get("value"), dict) and "user_id" in row["value"]:
        key = str(row["value"]["user_id"]).encode()
    return key, value


def put_back(
    settings: Settings, producer: Producer, records: Iterable[tuple[bytes | None, bytes | None]]
) -> int:
    """Send records to attempts again; return how many.

    Repeating it is harmless: an attempt already counted is recognised by its attempt_id, and what
    is still wrong returns to the dead-letter topic.
    """
    topic = settings.topic(attempts_topic.name)
    sent = 0
    for key, value in records:
        producer.produce(topic, value, key, headers=[("replayed", "dead-letter")])
        sent += 1
        producer.poll(0)
    producer.flush()
    return sent


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def _number(value: int | None) -> int:
    assert value is not None
    return value


def _text_or_base64(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _bytes(row: dict[str, Any], name: str) -> bytes | None:
    if f"{name}_base64" in row:
        return base64.b64decode(row[f"{name}_base64"])
    text = row.get(name)
    return text.encode() if isinstance(text, str) else None
