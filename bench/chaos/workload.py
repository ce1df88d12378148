"""What is sent: a simulated school's records with rubbish in between, the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from stream.sources.simulate import School, SchoolConfig, simulate

__all__ = ["Sent", "Workload"]

RUBBISH_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Sent:
    """One record as it is produced.

    Attributes
    ----------
    partition
        Given for records without a key; others are placed by their key.
    reason
        Of a rubbish record, the dead letter's; None: what becomes of it the rules decide.
    """

    key: bytes | None
    value: bytes | None
    partition: int | None = None
    reason: str | None = None


class Workload:
    """Records in the order of arrival.

    Parameters
    ----------
    records
        How many, rubbish included.
    seed
        Same seed, same records.
    learners, items
        Of the school.
    """

    def __init__(self, records: int, seed: int, *, learners: int = 800, items: int = 80) -> None:
        config = SchoolConfig(
            learners=learners,
            items=items,
            topics=8,
            attempts=records,
            days=84,
            share_duplicates=0.05,
            share_late=0.03,
            share_void=0.005,
            share_regrade=0.005,
            seed=seed,
        )
        self.school: School = simulate(config)
        rng = random.Random(seed)
        rubbish = _rubbish(rng)
        good = self.school.attempts()
        self.records = [
            next(rubbish) if rng.random() < RUBBISH_SHARE else _record(next(good))
            for _ in range(records)
        ]

    def item_params(self) -> list[tuple[str, float, float]]:
        """Return (item_id, a, b) of every item: the school's own."""
        return [(item["item_id"], item["a"], item["b"]) for item in self.school.truth()["items"]]

    def write_good(self, path: Path) -> list[int]:
        """Write the records that are not rubbish as JSON lines.

        Returns
        -------
        list of int
            Index in ``records`` of each line.
        """
        indices = [n for n, record in enumerate(self.records) if record.reason is None]
        with path.open("wb") as out:
            for n in indices:
                out.write((self.records[n].value or b"") + b"\n")
        return indices


def _record(event: dict[str, Any]) -> Sent:
    # A copy has the size it needs; what orjson returns keeps a buffer of some KiB alive.
    return Sent(event["user_id"].encode(), bytes(bytearray(orjson.dumps(event))))


def _rubbish(rng: random.Random) -> Iterator[Sent]:
    """Give records that cannot be counted, each of its own bytes, keyed as real learners are."""
    serial = 0
    while True:
        kinds = list(range(len(_KINDS)))
        rng.shuffle(kinds)
        for kind in kinds:
            serial += 1
            user = f"u{rng.randrange(1, 800):05d}"
            event = {
                "attempt_id": f"rubbish{serial:06d}",
                "user_id": user,
                "item_id": "i0001",
                "topic_id": "t01",
                "correct": True,
                "completed_at": 1_740_000_000_000,
            }
            reason, make = _KINDS[kind]
            yield make(user, event, serial, reason)


def _changed(**fields: Any) -> Any:
    """Return a maker of a record whose event has other fields; ... leaves one out."""

    def make(user: str, event: dict[str, Any], _serial: int, reason: str) -> Sent:
        event = {k: v for k, v in {**event, **fields}.items() if v is not ...}
        return Sent(user.encode(), orjson.dumps(event), reason=reason)

    return make


def _bytes(template: bytes) -> Any:
    def make(user: str, _event: dict[str, Any], serial: int, reason: str) -> Sent:
        return Sent(user.encode(), template % serial, reason=reason)

    return make


def _other_key(_user: str, event: dict[str, Any], _serial: int, reason: str) -> Sent:
    return Sent(b"someone-else", orjson.dumps(event), reason=reason)


def _no_key(_user: str, event: dict[str, Any], _serial: int, reason: str) -> Sent:
    return Sent(None, orjson.dumps(event), partition=0, reason=reason)


def _no_value(user: str, _event: dict[str, Any], _serial: int, reason: str) -> Sent:
    return Sent(user.encode(), None, reason=reason)


def _padded(user: str, event: dict[str, Any], _serial: int, reason: str) -> Sent:
    return Sent(user.encode(), orjson.dumps({**event, "session_id": "x" * 66_000}), reason=reason)


_KINDS: tuple[tuple[str, Any], ...] = (
    ("not_json", _bytes(b"{not json %d")),
    ("not_json", _bytes(b'{"attempt_id": "cut off %d')),
    ("not_utf8", _bytes(b'{"attempt_id": "\xff\xfe%d"}')),
    ("invalid", _bytes(b"[%d]")),
    ("invalid", _no_value),
    ("invalid", _changed(correct="yes")),
    ("invalid", _changed(completed_at=...)),
    ("invalid", _changed(item_id="")),
    ("invalid", _changed(response_time_ms=-5)),
    ("invalid", _changed(op="void")),
    ("invalid", _changed(topic_id="t\0")),
    ("unknown_version", _changed(schema_version=9)),
    ("too_early", _changed(completed_at="2099-01-01T00:00:00Z")),
    ("key_mismatch", _other_key),
    ("key_mismatch", _no_key),
    ("too_large", _padded),
)
"""Reason and maker of every kind of rubbish."""
