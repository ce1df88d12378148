"""Asking for a fit: as of which day, when it is due, and the request's id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from schemas.codec import encode
from schemas.models import ModelRequest
from stream.errors import SettingsError
from stream.models.kind import ModelKind
from stream.models.registry import KINDS
from stream.models.tables import monday
from stream.settings import Settings

__all__ = [
    "Known",
    "enabled_kinds",
    "lease_ms",
    "new_request",
    "newest_as_of",
    "parse_weekly",
    "scheduled_since",
]

LEASE_ALLOWANCE_S = 600.0
"""Seconds a run may take beside the service's tries: reading the tables, publishing the result."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Known(NamedTuple):
    """What has been folded when a fit is asked for.

    Attributes
    ----------
    base_version
        Item-parameter version in force.
    cut_offsets
        Attempts partition -> first offset not folded yet.
    stream_week
        Monday of the latest week with an attempt, days since 1970-01-01; 0 without any.
    """

    base_version: str
    cut_offsets: Mapping[int, int]
    stream_week: int


def enabled_kinds(settings: Settings) -> list[ModelKind]:
    """Return the kinds whose service's address is set."""
    return [kind for kind in KINDS.values() if kind.base_url(settings)]


def new_request(
    kind: str,
    settings: Settings,
    known: Known,
    now_ms: int,
    reason: str,
    detail: str = "",
    as_of: date | None = None,
) -> ModelRequest:
    """Make a request.

    Its id depends on what would be fitted alone, so that a repeat is recognised.

    Parameters
    ----------
    kind
        Name of a model kind.
    settings
        What else decides a fit.
    known
        What has been folded.
    now_ms
        Wall clock, epoch ms.
    reason, detail
        Why, for the event.
    as_of
        What happened before this day counts; by default `newest_as_of`.
    """
    day = as_of or newest_as_of(known, now_ms)
    cut = {str(p): offset for p, offset in sorted(known.cut_offsets.items())}
    identity = ["model", kind, day.isoformat(), known.base_version, cut, _options(settings)]
    return ModelRequest(
        request_id=hashlib.sha256(encode(identity)).hexdigest()[:20],
        kind=kind,
        reason=reason,
        as_of=day.isoformat(),
        base_version=known.base_version,
        cut_offsets=cut,
        requested_at=now_ms,
        detail=detail,
    )


def newest_as_of(known: Known, now_ms: int) -> date:
    """Return the Monday up to which weeks are whole, by the clock and by the stream.

    This week's Monday; where the stream ended earlier (a replay of an old log), the Monday after
    its latest week, so that learners are not taken to have stopped when the log did.
    """
    by_clock = monday(datetime.fromtimestamp(now_ms / 1000, UTC).date())
    by_stream = date(1970, 1, 1) + timedelta(days=known.stream_week + 7)
    return min(by_clock, by_stream)


def lease_ms(settings: Settings) -> int:
    """Return for how long a request counts as in flight: all tries, all waits, some allowance."""
    tries = settings.mirt_max_retries
    waits_s = settings.mirt_retry_delay_secs * tries * (tries + 1) / 2
    return int(1000 * (tries * settings.model_timeout_secs + waits_s + LEASE_ALLOWANCE_S))


def scheduled_since(kind: ModelKind, settings: Settings, now_ms: int) -> tuple[int, str] | None:
    """Return the latest time at which a kind was due (epoch ms), and its schedule in words.

    None without a schedule.
    """
    text: str = getattr(settings, kind.schedule)
    offset = parse_weekly(text, _name_of(kind.schedule))
    if offset is None:
        return None
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    midnight = datetime.combine(monday(now.date()), datetime.min.time(), UTC)
    due = midnight + offset
    if due > now:
        due -= timedelta(weeks=1)
    return int(due.timestamp() * 1000), f"weekly, {text} UTC"


def parse_weekly(text: str, name: str) -> timedelta | None:
    """Read a weekly time: since Monday 00:00 UTC, or None for no schedule.

    Raises
    ------
    SettingsError
        Not a day and HH:MM.

    Examples
    --------
    >>> parse_weekly("Tue 03:30", "THETASTREAM_MODEL_SCHEDULE")
    datetime.timedelta(days=1, seconds=12600)
    """
    if not text:
        return None
    day, _, time = text.partition(" ")
    try:
        at = datetime.strptime(time.strip(), "%H:%M").replace(tzinfo=UTC)
        return timedelta(days=_DAYS.index(day.lower()), hours=at.hour, minutes=at.minute)
    except ValueError:
        raise SettingsError(
            f"{name}={text!r} is not allowed: give a day and a time in UTC, such as 'Mon 03:30', "
            "or nothing."
        ) from None


def _options(settings: Settings) -> list[int | float]:
    return [
        *(settings.glmm_lookback_weeks, settings.glmm_min_observations),
        *(settings.model_max_rows, settings.growth_max_rows),
        *(settings.forecast_min_weeks, settings.forecast_z, settings.segments_k),
    ]


def _name_of(field: str) -> str:
    name: str = Settings.__dataclass_fields__[field].metadata["env"]
    return name
