"""The attempt event: what a learner's answer looks like on the ``attempts`` topic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "LATEST_MS",
    "MAX_RECORD_BYTES",
    "REASONS",
    "SCHEMA_VERSION",
    "AttemptEvent",
    "to_epoch_ms",
]

SCHEMA_VERSION = 1
"""Newest major version of the attempt schema that this release reads."""

MAX_RECORD_BYTES = 64 * 1024
"""Largest value of a record, in bytes; an attempt takes about 300."""

REASONS = {
    "too_large": f"the value is larger than {MAX_RECORD_BYTES} bytes",
    "not_utf8": "the value is not UTF-8",
    "not_json": "the value is not JSON",
    "invalid": "a field is missing, of a wrong type or out of range",
    "unknown_version": "schema_version is newer than this release reads",
    "key_mismatch": "the record's key differs from user_id",
    "too_early": "completed_at is more than 24 h after the record arrived",
    "too_late": "completed_at is more than the allowed lateness before the learner's latest",
    "supersedes_unknown": "supersedes names no attempt of this learner in the retained days",
    "supersedes_mismatch": "supersedes names an attempt of another item",
    "supersedes_voided": "supersedes names an attempt that is already void",
}
"""Reason codes of the dead-letter topic, and what each means."""

_Id = Annotated[str, Meta(min_length=1, max_length=128)]


class AttemptEvent(msgspec.Struct, gc=False):
    """One answered item, or a correction of one (JSON, UTF-8, keyed by ``user_id``).

    Attributes
    ----------
    attempt_id
        Unique; the de-duplication key.
    correct
        Whether the answer was right; for a regrade, whether it is now.
    completed_at
        Event time: RFC 3339 with a zone, or milliseconds since the epoch.
    topic_id
        Curriculum topic; None counts for the learner alone.
    response_time_ms
        Milliseconds, 0..86,400,000.
    op, supersedes
        ``void`` and ``regrade`` take back or rescore the attempt that ``supersedes`` names.
    """

    attempt_id: _Id
    user_id: _Id
    item_id: _Id
    correct: bool
    completed_at: int | str
    topic_id: _Id | None = None
    response_time_ms: Annotated[int, Meta(ge=0, le=86_400_000)] | None = None
    hint_used: bool = False
    attempt_no: Annotated[int, Meta(ge=0)] | None = None
    op: Literal["attempt", "void", "regrade"] = "attempt"
    supersedes: _Id | None = None
    tenant_id: _Id | None = None
    session_id: _Id | None = None
    started_at: int | str | None = None
    schema_version: Annotated[int, Meta(ge=1)] = SCHEMA_VERSION


_EARLIEST_MS = 0
LATEST_MS = 65_536 * 86_400_000 - 1
"""2149-06-06T23:59:59.999Z: a day's number has 16 bits in the state."""


def to_epoch_ms(value: int | str) -> int:
    """Read an event time.

    Parameters
    ----------
    value
        RFC 3339 text with a zone, or milliseconds since the epoch.

    Returns
    -------
    int
        Milliseconds since the epoch, UTC; finer fractions are cut off.

    Raises
    ------
    ValueError
        Not a time, without a zone, or outside 1970-01-01 to 2149-06-06.
    """
    if isinstance(value, int):
        ms = value
    else:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError(f"the time {value!r} has no zone")
        delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
        ms = (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
    if not _EARLIEST_MS <= ms <= LATEST_MS:
        raise ValueError(f"the time {value!r} lies outside 1970-01-01 to 2149-06-06")
    return ms
