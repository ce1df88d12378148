"""Drift between calibrations: from totals to an alert and a request, once, through restarts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from schemas.calibration import MANIFEST_KEY, CalibrationAlert, ItemParamsRecord, ParamsManifest
from schemas.codec import decode, encode
from schemas.outputs import ItemPartial
from stream.calibration.drift import alerts, drifted_items, fresh_drift
from stream.calibration.state import CalibratorState
from stream.calibration.trigger import decide
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.settings import Settings
from tests.calibration.log import DEADLINE_S, LEARNERS, respond, results, wait_for
from tests.calibration.test_calibrator import FakeService, calibrator
from tests.calibration.test_trigger import HOUR_MS, NOON_MS, SETTINGS, _answer

BASELINE = (600, 300, 290.0, 140.0)


def state(
    *, correct: int = 480, n: int = 1100, provisional: bool = False, version: str = "irt-1-x"
) -> CalibratorState:
    """An item with 250 expected of 500 answers since its parameters, in two partitions."""
    known = CalibratorState()
    calibrate(known, version, provisional=provisional)
    answer(known, n, 300 + correct)
    return known


def calibrate(
    known: CalibratorState,
    version: str,
    baseline: tuple[int, int, float, float] | None = BASELINE,
    *,
    provisional: bool = False,
) -> None:
    record = ItemParamsRecord("i", 1.0, 0.0, 0.0, 0.1, version, provisional, baseline=baseline)
    known.params.add(b"i", encode(record))
    manifest = ParamsManifest(version, 1, "calibrated", "r", 1, 1.0, 0.0, "reference", 0)
    known.params.add(MANIFEST_KEY, encode(manifest))


def answer(known: CalibratorState, n: int, correct: int, expected: float = 540.0) -> None:
    for partition in (0, 1):
        row = ItemPartial(
            "i", partition, n // 2, correct // 2, expected / 2, (140.0 + 125.0) / 2, n
        )
        known.add_partial(encode(row))


def look(known: CalibratorState) -> list[CalibrationAlert]:
    """Look for drift as the calibrator does, and know at once what was published."""
    known.drifted = drifted_items(known)
    found = alerts(known, 77)
    for message in found:
        known.add_result(message.value)
    return [decode(message.value or b"", CalibrationAlert) for message in found]


def test_only_what_was_answered_since_the_calibration_counts() -> None:
    found = drifted_items(state())["i"]
    assert (found.n, found.observed, found.expected) == (500, 0.96, 0.5)
    assert drifted_items(state(correct=250)) == {}


def test_provisional_items_and_those_without_a_baseline_are_not_watched() -> None:
    assert drifted_items(state(provisional=True)) == {}
    known = state()
    calibrate(known, "irt-2-x", baseline=None)
    assert drifted_items(known) == {}


def test_an_alert_comes_once_an_item_and_version() -> None:
    known = state()
    (alert,) = look(known)
    assert (alert.kind, alert.item_id, alert.version) == ("item_drift", "i", "irt-1-x")
    assert alert.detail.startswith(
        "Of 500 responses since its calibration 0.960 are right, 0.500 were expected: against the "
        "other items it is 1.84 logits easier"
    )
    assert alert.metrics["shift"] == pytest.approx(1.84)
    assert look(known) == []
    calibrate(known, "irt-2-x", baseline=None)
    assert look(known) == []
    calibrate(known, "irt-3-x")
    assert [alert.version for alert in look(known)] == ["irt-3-x"]


def test_drift_asks_for_a_calibration_that_names_the_items() -> None:
    known = state()
    assert decide(known, SETTINGS, NOON_MS, drift=fresh_drift) is None
    look(known)
    request = decide(known, SETTINGS, NOON_MS, drift=fresh_drift)
    assert request is not None
    assert (request.reason, request.drifted_items) == ("drift", {"i": 500})
    assert request.detail == (
        "1 items are easier (+) or harder (-) than calibrated, logits: i (+1.84)"
    )


def test_an_item_that_a_calibration_did_not_put_right_asks_again_with_twice_the_responses() -> None:
    known = state()
    look(known)
    request = decide(known, SETTINGS, NOON_MS, drift=fresh_drift)
    assert request is not None
    known.runs.add_request(request)
    _answer(known, request, NOON_MS + 1, outcome="refused")
    for n, asked in ((1500, False), (1600, True)):
        answer(known, n, n - 20, expected=790.0)
        look(known)
        found = decide(known, SETTINGS, NOON_MS + HOUR_MS, drift=fresh_drift)
        assert (found is not None) is asked


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Topics are there; a first calibration is due with 500 responses; no database."""
    create_topics(settings)
    return replace(
        settings,
        trigger_responses=500,
        trigger_cooldown_secs=0.0,
        database_url="postgresql://127.0.0.1:1/none",
        state_dir=str(tmp_path),
    )


@pytest.mark.integration
async def test_a_next_leader_sees_drift_from_where_the_last_one_calibrated(
    settings: Settings,
) -> None:
    respond(settings)
    async with calibrator(settings, FakeService()) as found:
        await wait_for(lambda: found.known.params.calibrated_version != "none")
        assert found.known.params.items["i3"].baseline is not None
        before = found.known.totals.sums()["i3"]
    assert before.n == LEARNERS
    producer = new_producer(settings)
    partial = ItemPartial("i3", 7, 300, 30, 150.0, 75.0, 0)  # of another attempts partition
    producer.produce(settings.topic("item-partials"), encode(partial), b"7|i3")
    producer.flush(DEADLINE_S)
    async with calibrator(settings, FakeService()) as found:
        await wait_for(lambda: found.leading)
        await found.look_for_drift()
        await found.look_for_drift()
        (alert,) = [r for r in results(settings) if r["type"] == "alert"]
        assert (alert["item_id"], alert["metrics"]["n"]) == ("i3", 300)
        await wait_for(lambda: len(found.known.runs.by_request) == 2)
        asked = list(found.known.runs.by_request.values())[-1].request
        assert (asked.reason, asked.drifted_items) == ("drift", {"i3": 300})
        await wait_for(lambda: found.known.params.items["i3"].version.startswith("irt-2"))
        assert drifted_items(found.known) == {}
