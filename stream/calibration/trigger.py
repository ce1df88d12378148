"""When to calibrate: plain decisions on counts, with the clock as an argument."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from schemas.calibration import CalibrationRequest
from schemas.codec import encode
from schemas.models import ModelRequest, ModelResult
from stream.calibration.state import CalibratorState
from stream.errors import SettingsError
from stream.models import request as models
from stream.models.registry import KINDS
from stream.settings import Settings

__all__ = [
    "DriftCheck",
    "Reason",
    "decide",
    "decide_model",
    "lease_ms",
    "new_model_request",
    "new_request",
    "parse_schedule",
]

LONGEST_COOLDOWN_MS = 3_600_000
"""The cool-down doubles with every run in a row that came to nothing, up to this (ms)."""

LEASE_ALLOWANCE_S = 120.0
"""Seconds a run may take beside the service's tries: reading the log, publishing the result."""


class Reason(NamedTuple):
    """Why a calibration is asked for."""

    code: str
    """``responses``, ``new_item``, ``drift``, ``schedule`` or ``manual``."""
    detail: str
    """The figures, for a person."""


DriftCheck = Callable[[CalibratorState], str | None]
"""Says which items have drifted, or None."""


def decide(
    state: CalibratorState,
    settings: Settings,
    now_ms: int,
    kind: str = "irt",
    drift: DriftCheck | None = None,
) -> CalibrationRequest | None:
    """Return the calibration request that is due now, or None.

    Parameters
    ----------
    state
        Counts, parameters and runs.
    settings
        Thresholds.
    now_ms
        Wall clock, epoch ms.
    kind
        Calibration kind.
    drift
        Looks at the item statistics for drift; by default nobody does.
    """
    if _held_back(state, settings, now_ms, kind, lease_ms(settings)):
        return None
    reason = _reason(state, settings, now_ms, kind, drift)
    if reason is None:
        return None
    request = new_request(state, settings, now_ms, reason, kind)
    return None if _answered(state, request.request_id) else request


def decide_model(
    state: CalibratorState, settings: Settings, now_ms: int, kind: str
) -> ModelRequest | None:
    """Return the model request that is due now, or None.

    One is due when none as of this week was asked for since the schedule's latest time, or those
    that were failed for a reason that may pass. Parameters as `decide`.
    """
    if not state.stream_week or _held_back(
        state, settings, now_ms, kind, models.lease_ms(settings)
    ):
        return None
    due = models.scheduled_since(KINDS[kind], settings, now_ms)
    if due is None:
        return None
    since_ms, schedule = due
    # As of the time it was due at, however late it is asked for.
    as_of = models.newest_as_of(_known(state), since_ms)
    reason = Reason("schedule", schedule)
    request = new_model_request(state, settings, now_ms, reason, kind, as_of)
    for run in state.runs.of_kind(kind):
        asked = run.request
        passing = isinstance(run.result, ModelResult) and run.failed and run.result.retriable
        if (
            isinstance(asked, ModelRequest)
            and asked.as_of == request.as_of
            and asked.requested_at >= since_ms
            and not passing
        ):
            return None
    return None if _answered(state, request.request_id) else request


def new_model_request(
    state: CalibratorState,
    settings: Settings,
    now_ms: int,
    reason: Reason,
    kind: str,
    as_of: date | None = None,
) -> ModelRequest:
    """Make a request for a model of what has been folded so far, up to a day."""
    return models.new_request(
        kind, settings, _known(state), now_ms, reason.code, reason.detail, as_of
    )


def new_request(
    state: CalibratorState, settings: Settings, now_ms: int, reason: Reason, kind: str = "irt"
) -> CalibrationRequest:
    """Make a request for what the engines have folded so far.

    Its id depends on what would be fitted alone, so that a repeat is recognised.
    """
    cut = {str(p): offset for p, offset in sorted(state.totals.folded.items())}
    base = state.params.calibrated_version
    identity = [kind, base, cut, settings.mirt_model, settings.mirt_lookback_days]
    return CalibrationRequest(
        request_id=hashlib.sha256(encode(identity)).hexdigest()[:20],
        kind=kind,
        reason=reason.code,
        base_version=base,
        cut_offsets=cut,
        model=settings.mirt_model,
        lookback_days=settings.mirt_lookback_days,
        requested_at=now_ms,
        detail=reason.detail,
        since=state.window_since_ms(settings.mirt_lookback_days),
        responses=state.totals.responses,
        waiting_items=_waiting_items(state, settings),
        drifted_items={item: drift.n for item, drift in state.drifted.items()},
    )


def lease_ms(settings: Settings) -> int:
    """Return for how long a request counts as in flight: all tries, all waits, some allowance."""
    tries = settings.mirt_max_retries
    waits_s = settings.mirt_retry_delay_secs * tries * (tries + 1) / 2
    return int(1000 * (tries * settings.r_irt_timeout_secs + waits_s + LEASE_ALLOWANCE_S))


def parse_schedule(text: str) -> timedelta | None:
    """Read THETASTREAM_CALIBRATION_SCHEDULE: time since midnight UTC, or None for no schedule.

    Raises
    ------
    SettingsError
        Not HH:MM.
    """
    if not text:
        return None
    try:
        time = datetime.strptime(text, "%H:%M").replace(tzinfo=UTC)
    except ValueError:
        raise SettingsError(
            f"THETASTREAM_CALIBRATION_SCHEDULE={text!r} is not allowed: give a time of day in UTC "
            "as HH:MM, such as 03:00, or nothing."
        ) from None
    return timedelta(hours=time.hour, minutes=time.minute)


def _held_back(
    state: CalibratorState, settings: Settings, now_ms: int, kind: str, lease: int
) -> bool:
    """Tell whether a run of the kind is in flight, or the last one was just now."""
    in_flight = any(
        not run.decided and now_ms < run.request.requested_at + lease
        for run in state.runs.of_kind(kind)
    )
    return in_flight or now_ms < _cool_until(state, settings, kind)


def _known(state: CalibratorState) -> models.Known:
    return models.Known(state.params.calibrated_version, state.totals.folded, state.stream_week)


def _answered(state: CalibratorState, request_id: str) -> bool:
    """Tell whether the same data gave its answer already: asking again would only repeat it."""
    known = state.runs.by_request.get(request_id)
    return known is not None and known.result is not None and known.result.status == "succeeded"


def _cool_until(state: CalibratorState, settings: Settings, kind: str) -> int:
    """Return when the next triggered run may be asked for (wall clock, ms)."""
    ended = [run for run in state.runs.of_kind(kind) if run.ended]
    if not ended:
        return 0
    fruitless = 0
    for run in reversed(ended):
        if run.fruitful:
            break
        fruitless += 1
    first_ms = settings.trigger_cooldown_secs * 1000
    longest_ms = max(first_ms, LONGEST_COOLDOWN_MS)
    cooldown_ms = min(longest_ms, first_ms * 2.0 ** min(fruitless, 32))
    return int(max(run.result.finished_at for run in ended if run.result) + cooldown_ms)


def _reason(
    state: CalibratorState,
    settings: Settings,
    now_ms: int,
    kind: str,
    drift: DriftCheck | None,
) -> Reason | None:
    last = state.runs.last_calibration(kind)
    new = state.totals.responses - (last[0].responses if last else 0)
    if new <= 0:
        return None
    used = last[1].n_observations if last else 0
    enough = max(settings.trigger_responses, int(settings.trigger_share * used))
    if new >= enough:
        return Reason("responses", f"{new} new responses, {enough} are enough")
    asked_before = last[0].waiting_items if last else {}
    # An item the last fit could not use (none of its responses in the window) asks again only
    # when it has twice as many.
    fresh = [
        item
        for item, n in _waiting_items(state, settings).items()
        if n >= 2 * asked_before.get(item, 0)
    ]
    if fresh:
        named = ", ".join(sorted(fresh)[:5]) + (", ..." if len(fresh) > 5 else "")
        return Reason(
            "new_item",
            f"{len(fresh)} uncalibrated items with {settings.trigger_item_responses} responses "
            f"or more: {named}",
        )
    if drift is not None and (found := drift(state)):
        return Reason("drift", found)
    return _scheduled(state, settings, now_ms, kind)


def _waiting_items(state: CalibratorState, settings: Settings) -> dict[str, int]:
    calibrated = state.params.calibrated()
    if not calibrated:
        # All items wait for the first calibration, which comes with enough responses.
        return {}
    return {
        item: n
        for item, n in state.totals.n.items()
        if n >= settings.trigger_item_responses and item not in calibrated
    }


def _scheduled(state: CalibratorState, settings: Settings, now_ms: int, kind: str) -> Reason | None:
    """Return a reason if no run was asked for since the schedule's latest time."""
    offset = parse_schedule(settings.calibration_schedule)
    if offset is None:
        return None
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    due = now.replace(hour=0, minute=0, second=0, microsecond=0) + offset
    if due > now:
        due -= timedelta(days=1)
    if any(r.request.requested_at >= due.timestamp() * 1000 for r in state.runs.of_kind(kind)):
        return None
    return Reason("schedule", f"daily at {settings.calibration_schedule} UTC")
