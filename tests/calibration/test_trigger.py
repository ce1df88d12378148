"""When a calibration is asked for, and when not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.calibration import (
    MANIFEST_KEY,
    CalibrationOutcome,
    CalibrationRequest,
    CalibrationResult,
    ItemParamsRecord,
    ParamsManifest,
)
from schemas.codec import encode
from schemas.outputs import ItemPartial
from stream.calibration.state import CalibratorState
from stream.calibration.trigger import Reason, decide, lease_ms, new_request, parse_schedule
from stream.errors import SettingsError
from stream.settings import Settings

HOUR_MS = 3_600_000
NOON_MS = 20_000 * 24 * HOUR_MS + 12 * HOUR_MS
SETTINGS = Settings(trigger_cooldown_secs=300.0)


def _state(**responses: int) -> CalibratorState:
    state = CalibratorState()
    _respond(state, **responses)
    return state


def _respond(state: CalibratorState, **responses: int) -> None:
    for item, n in responses.items():
        offset = state.totals.responses + n - state.totals.n.get(item, 0) - 1
        state.totals.add(ItemPartial(item, 0, n, n // 2, 0.0, 0.0, offset))


def _calibrated(state: CalibratorState, *items: str) -> None:
    sequence = state.params.sequence + 1
    version = f"irt-{sequence}-x"
    for item in items:
        record = ItemParamsRecord(item, 1.0, 0.0, 0.0, 0.1, version)
        state.params.add(item.encode(), encode(record))
    manifest = ParamsManifest(version, sequence, "calibrated", "r", 1, 1.0, 0.0, "reference", 0)
    state.params.add(MANIFEST_KEY, encode(manifest))


def _answer(
    state: CalibratorState,
    request: CalibrationRequest,
    at_ms: int,
    *,
    status: str = "succeeded",
    outcome: str | None = "applied",
    used: int = 0,
) -> None:
    run = state.runs.by_request[request.request_id]
    run.offset = max(run.offset, 0)
    result = CalibrationResult(
        run_id=f"run-{at_ms}",
        request_id=request.request_id,
        kind="irt",
        status=status,  # type: ignore[arg-type]
        reason=request.reason,
        cut_time=0,
        cut_offsets={},
        finished_at=at_ms,
        n_observations=used,
        request_offset=run.offset,
    )
    state.runs.add_result_record(encode(result))
    if outcome is not None and status == "succeeded":
        decided = CalibrationOutcome(
            run_id=result.run_id,
            request_id=result.request_id,
            kind="irt",
            status=outcome,  # type: ignore[arg-type]
            reasons=[],
            warnings=[],
            version="",
            sequence=0,
            slope=1.0,
            intercept=0.0,
            se_slope=None,
            se_intercept=None,
            method="",
            n_common=0,
            dropped=[],
            n_items=0,
            n_abilities=0,
            cut_time=0,
            decided_at=at_ms,
        )
        state.runs.add_result_record(encode(decided))


def _asked(
    state: CalibratorState, now_ms: int = NOON_MS, settings: Settings = SETTINGS
) -> CalibrationRequest:
    request = decide(state, settings, now_ms)
    assert request is not None
    state.runs.add_request(request)
    return request


def test_the_first_calibration_comes_with_5000_responses() -> None:
    state = _state(a=4000, b=999)
    assert decide(state, SETTINGS, NOON_MS) is None
    _respond(state, b=1000)
    request = _asked(state)
    assert (request.reason, request.responses) == ("responses", 5000)
    assert request.detail == "5000 new responses, 5000 are enough"
    assert request.cut_offsets == {"0": 5000}
    assert request.base_version == "none"


def test_a_new_item_waits_for_the_first_calibration() -> None:
    assert decide(_state(a=100), SETTINGS, NOON_MS) is None


def test_the_next_one_waits_for_new_responses_and_the_cool_down() -> None:
    state = _state(a=5000)
    first = _asked(state)
    _calibrated(state, "a")
    _answer(state, first, NOON_MS, used=5000)
    _respond(state, a=9999)
    assert decide(state, SETTINGS, NOON_MS + HOUR_MS) is None
    _respond(state, a=10_000)
    assert decide(state, SETTINGS, NOON_MS + 299_999) is None
    assert _asked(state, NOON_MS + 300_000).reason == "responses"


def test_a_large_fit_waits_for_its_share_of_new_responses() -> None:
    state = _state(a=100_000)
    first = _asked(state)
    _calibrated(state, "a")
    _answer(state, first, NOON_MS, used=100_000)
    _respond(state, a=119_999)
    assert decide(state, SETTINGS, NOON_MS + HOUR_MS) is None
    _respond(state, a=120_000)
    assert _asked(state, NOON_MS + HOUR_MS).reason == "responses"


def test_one_is_in_flight_until_its_lease_expires() -> None:
    state = _state(a=5000)
    first = _asked(state)
    _respond(state, a=50_000)
    lease = lease_ms(SETTINGS)
    assert lease == 1000 * (3 * 300 + 5 + 10 + 15 + 120)
    assert decide(state, SETTINGS, NOON_MS + lease - 1) is None
    second = _asked(state, NOON_MS + lease)
    assert second.request_id != first.request_id


def test_a_result_that_is_not_decided_yet_is_in_flight() -> None:
    state = _state(a=5000)
    _answer(state, _asked(state), NOON_MS, outcome=None)
    _respond(state, a=50_000)
    assert decide(state, SETTINGS, NOON_MS + 400_000) is None


def test_an_item_that_reaches_30_responses_asks_once() -> None:
    state = _state(a=5000)
    first = _asked(state)
    _calibrated(state, "a")
    _answer(state, first, NOON_MS, used=5000)
    _respond(state, new=29)
    assert decide(state, SETTINGS, NOON_MS + HOUR_MS) is None
    _respond(state, new=30)
    second = _asked(state, NOON_MS + HOUR_MS)
    assert second.reason == "new_item"
    assert second.waiting_items == {"new": 30}
    assert "new" in second.detail
    # The fit could not use it: none of its responses were in the window.
    _answer(state, second, NOON_MS + HOUR_MS, used=5000)
    _respond(state, new=59)
    assert decide(state, SETTINGS, NOON_MS + 3 * HOUR_MS) is None
    _respond(state, new=60)
    assert _asked(state, NOON_MS + 3 * HOUR_MS).reason == "new_item"


def test_the_cool_down_doubles_while_runs_come_to_nothing() -> None:
    state = _state(a=5000)
    at_ms, waits = NOON_MS, []
    for n in range(1, 7):
        request = _asked(state, at_ms)
        ended_at = at_ms
        _answer(state, request, ended_at, status="failed")
        _respond(state, a=5000 + n)
        while decide(state, SETTINGS, at_ms) is None:
            at_ms += 10_000
        waits.append((at_ms - ended_at) // 1000)
    assert waits == [600, 1200, 2400, 3600, 3600, 3600]


def test_a_refused_result_counts_as_nothing_too() -> None:
    state = _state(a=5000)
    _answer(state, _asked(state), NOON_MS, outcome="refused")
    _respond(state, a=20_000)
    assert decide(state, SETTINGS, NOON_MS + 599_000) is None
    assert _asked(state, NOON_MS + 600_000).reason == "responses"


def test_the_same_data_are_not_asked_for_again_after_they_gave_a_result() -> None:
    settings = replace(SETTINGS, calibration_schedule="03:00")
    state = _state(a=5000)
    _answer(state, _asked(state, settings=settings), NOON_MS)
    assert decide(state, settings, NOON_MS + 48 * HOUR_MS) is None


def test_after_a_failure_the_same_data_are_asked_for_again() -> None:
    state = _state(a=5000)
    first = _asked(state)
    _answer(state, first, NOON_MS, status="failed")
    assert _asked(state, NOON_MS + HOUR_MS).request_id == first.request_id


def test_the_schedule_asks_once_a_day_and_not_without_new_responses() -> None:
    settings = replace(SETTINGS, calibration_schedule="13:00")
    state = _state(a=5000)
    _answer(state, _asked(state, settings=settings), NOON_MS)
    _respond(state, a=5001)
    assert decide(state, settings, NOON_MS + HOUR_MS - 1) is None
    scheduled = _asked(state, NOON_MS + HOUR_MS, settings)
    assert (scheduled.reason, scheduled.detail) == ("schedule", "daily at 13:00 UTC")
    _answer(state, scheduled, NOON_MS + HOUR_MS)
    _respond(state, a=5002)
    assert decide(state, settings, NOON_MS + 24 * HOUR_MS) is None
    assert _asked(state, NOON_MS + 25 * HOUR_MS, settings).reason == "schedule"


def test_drift_asks_with_what_it_found() -> None:
    state = _state(a=5000)
    _answer(state, _asked(state), NOON_MS)
    _calibrated(state, "a")
    _respond(state, a=5001)
    request = decide(state, SETTINGS, NOON_MS + HOUR_MS, drift=lambda _state: "a is easier")
    assert request is not None
    assert (request.reason, request.detail) == ("drift", "a is easier")


def test_the_request_id_depends_on_what_is_fitted_alone() -> None:
    state = _state(a=5000)

    def request_id(now_ms: int = 0, settings: Settings = SETTINGS) -> str:
        return new_request(state, settings, now_ms, Reason("manual", "")).request_id

    first = request_id()
    assert request_id(now_ms=5) == first
    assert request_id(settings=replace(SETTINGS, mirt_model="1PL")) != first
    _respond(state, a=5001)
    assert request_id() != first


def test_reading_begins_before_anything_of_the_window_can_have_arrived() -> None:
    state = _state(a=5000)
    state.stream_week = 20_000
    request = new_request(state, replace(SETTINGS, mirt_lookback_days=30), 0, Reason("manual", ""))
    assert request.since == (20_000 - 31) * 24 * HOUR_MS


@pytest.mark.parametrize("text", ["3 o'clock", "25:00", "03:00:00"])
def test_a_schedule_that_is_no_time_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(SettingsError, match="HH:MM"):
        parse_schedule(text)
