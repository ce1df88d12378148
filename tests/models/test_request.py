"""When models are asked for, and as of which day."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from schemas.codec import encode
from schemas.models import ModelRequest, ModelResult
from schemas.outputs import Watermark
from stream.calibration.state import CalibratorState
from stream.calibration.trigger import Reason, decide_model, new_model_request
from stream.errors import SettingsError
from stream.models.registry import KINDS
from stream.models.request import (
    Known,
    enabled_kinds,
    lease_ms,
    newest_as_of,
    parse_weekly,
    scheduled_since,
)
from stream.settings import Settings

SETTINGS = replace(Settings(), r_glmm_base_url="http://127.0.0.1:1")
MONDAY = date(2024, 3, 18)
HOUR_MS = 3_600_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def state(week: date = MONDAY) -> CalibratorState:
    found = CalibratorState()
    days = (week - date(1970, 1, 1)).days
    found.add_watermark(encode(Watermark(0, days)))
    return found


def asked(found: CalibratorState, now_ms: int) -> ModelRequest:
    request = decide_model(found, SETTINGS, now_ms, "glmm")
    assert request is not None
    found.runs.add_request(request)
    return request


def answer(
    found: CalibratorState, request: ModelRequest, now_ms: int, status: str, **more: bool
) -> None:
    found.add_result(
        encode(
            ModelResult(
                "run", request.request_id, "glmm", status, "schedule", request.as_of, "none",
                now_ms, 0, **more,
            )  # type: ignore[arg-type]
        )
    )  # fmt: skip


def test_whole_weeks_are_those_before_this_monday_and_within_the_stream() -> None:
    days = (MONDAY - date(1970, 1, 1)).days
    for now, stream_week, wanted in (
        ("2024-03-18T03:30", days, MONDAY),  # attempts since midnight already
        ("2024-03-18T03:30", days - 7, MONDAY),  # none yet
        ("2024-03-24T23:59", days, MONDAY),
        ("2024-03-25T00:00", days, MONDAY + timedelta(days=7)),
        ("2026-01-01T00:00", days, MONDAY + timedelta(days=7)),  # an old log, replayed
    ):
        assert newest_as_of(Known("none", {}, stream_week), at(now)) == wanted


def test_a_model_is_due_once_a_week_from_its_time_on() -> None:
    found = state()
    # The process was not there on Monday: it makes up for it.
    request = asked(found, at("2024-03-20T12:00"))
    assert (request.reason, request.as_of) == ("schedule", "2024-03-18")
    assert request.detail == "weekly, Mon 03:30 UTC"
    answer(found, request, at("2024-03-20T12:01"), "succeeded")
    found = with_more(found)
    assert decide_model(found, SETTINGS, at("2024-03-25T03:29"), "glmm") is None
    assert asked(found, at("2024-03-25T03:30")).as_of == "2024-03-25"


def with_more(found: CalibratorState) -> CalibratorState:
    """Return the state a week later."""
    days = (MONDAY - date(1970, 1, 1)).days
    found.add_watermark(encode(Watermark(0, days + 7)))
    return found


def test_before_the_first_attempt_nothing_is_due() -> None:
    assert decide_model(CalibratorState(), SETTINGS, at("2024-03-20T12:00"), "glmm") is None


def test_without_a_schedule_nothing_is_due() -> None:
    settings = replace(SETTINGS, glmm_schedule="")
    assert decide_model(state(), settings, at("2024-03-20T12:00"), "glmm") is None


def test_one_is_in_flight_until_its_lease_expires() -> None:
    found, now = state(), at("2024-03-20T12:00")
    asked(found, now)
    lease = lease_ms(SETTINGS)
    assert lease == 1000 * (3 * 1200 + 5 + 10 + 15 + 600)
    assert decide_model(found, SETTINGS, now + lease - 1, "glmm") is None


def test_a_failure_that_may_pass_is_asked_again_after_the_cool_down() -> None:
    found, now = state(), at("2024-03-20T12:00")
    answer(found, asked(found, now), now, "failed", retriable=True)
    assert decide_model(found, SETTINGS, now + 2 * 300_000 - 1, "glmm") is None
    assert decide_model(found, SETTINGS, now + 2 * 300_000, "glmm") is not None


def test_a_failure_that_stays_is_not_asked_again_before_next_week() -> None:
    found, now = state(), at("2024-03-20T12:00")
    answer(found, asked(found, now), now, "failed")
    assert decide_model(found, SETTINGS, now + 48 * HOUR_MS, "glmm") is None
    with_more(found)
    assert decide_model(found, SETTINGS, at("2024-03-25T04:00"), "glmm") is not None


def test_a_fit_of_an_old_date_does_not_stand_for_this_weeks() -> None:
    found, now = state(), at("2024-03-20T12:00")
    reason = Reason("manual", "")
    old = new_model_request(found, SETTINGS, now, reason, "glmm", date(2024, 1, 1))
    found.runs.add_request(old)
    answer(found, old, now, "succeeded")
    assert decide_model(found, SETTINGS, now + HOUR_MS, "glmm") is not None


def test_the_request_id_says_what_would_be_fitted() -> None:
    found, now = state(), at("2024-03-20T12:00")
    reason = Reason("manual", "")

    def made(settings: Settings = SETTINGS, kind: str = "glmm", day: date | None = None) -> str:
        return new_model_request(found, settings, now, reason, kind, day).request_id

    same = made()
    assert made() == same
    others = [
        made(kind="growth"),
        made(day=date(2024, 3, 11)),
        made(replace(SETTINGS, glmm_lookback_weeks=5)),
    ]
    found.totals.folded[0] = 9
    others.append(made())
    assert len({same, *others}) == 5


def test_models_requests_wait_each_for_themselves() -> None:
    found = state()
    reason = Reason("manual", "")
    days = [date(2024, 1, 1) + timedelta(weeks=n) for n in range(3)]
    requests = [new_model_request(found, SETTINGS, 0, reason, "glmm", day) for day in days]
    for offset, request in enumerate(requests):
        found.add_request(encode(request), offset)
    answer(found, requests[2], 0, "succeeded")
    found.add_result(
        encode(ModelResult("r", requests[2].request_id, "glmm", "succeeded", "", "", "", 0, 2))
    )
    waiting = [run.request.request_id for run in found.runs.unanswered("glmm")]
    assert waiting == [requests[0].request_id, requests[1].request_id]


@pytest.mark.parametrize("text", ["03:30", "Mon", "Mon 25:00", "Someday 03:30", "Mon 3"])
def test_a_bad_schedule_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(SettingsError, match="THETASTREAM_GLMM_SCHEDULE"):
        scheduled_since(KINDS["glmm"], replace(SETTINGS, glmm_schedule=text), 0)


def test_a_schedule_may_be_on_any_day() -> None:
    assert parse_weekly("sun 23:59", "x") == timedelta(days=6, hours=23, minutes=59)


def test_a_kind_is_on_when_its_address_is_set() -> None:
    assert [kind.name for kind in enabled_kinds(Settings())] == []
    assert [kind.name for kind in enabled_kinds(SETTINGS)] == ["glmm"]
