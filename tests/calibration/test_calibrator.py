"""The calibrator on a real broker: from responses to parameters in force, through trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.calibration import (
    MANIFEST_KEY,
    BatchAbility,
    CalibratedItem,
    CalibrationRequest,
    ItemParamsRecord,
)
from schemas.codec import decode, decode_any, encode
from stream.app import new_app
from stream.calibration.agents import register
from stream.calibration.ask import ask
from stream.calibration.calibrator import Calibrator
from stream.calibration.observations import Observations
from stream.calibration.run import Fit, Fitter
from stream.domain.irt import ItemParams
from stream.errors import CalibrationError, CalibrationUnavailableError
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.settings import Settings
from tests.calibration.log import (
    DEADLINE_S,
    ITEMS,
    LEARNERS,
    NOW_MS,
    difficulty,
    manifests,
    respond,
    result_types,
    results,
    wait_for,
    whole,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Topics are there; a calibration is due with 500 responses; no database."""
    create_topics(settings)
    return replace(
        settings,
        trigger_responses=500,
        trigger_cooldown_secs=0.0,
        provisional_secs=0.2,
        database_url="postgresql://127.0.0.1:1/none",
        state_dir=str(tmp_path),
    )


class FakeService:
    """A calibration service that knows the truth, or fails as often as it is told to."""

    def __init__(self, failures: int = 0, *, shift: float = 0.0) -> None:
        self.failures = failures
        self.shift = shift
        self.calls: list[int] = []
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def __call__(
        self, observations: Observations, model: str, anchors: Mapping[str, ItemParams]
    ) -> Fit:
        self.calls.append(len(observations))
        await self.hangs.wait()
        if self.failures:
            self.failures -= 1
            raise CalibrationUnavailableError("the service does not answer")
        return Fit(
            [
                CalibratedItem(i, 1.0, difficulty(int(i[1:])) + self.shift, 0.0, 0.1, 0.1)
                for i in observations.items
            ],
            [(u, 0.25 + self.shift, 0.3) for u in observations.learners],
            {"run_id": "theirs", "metrics": {"converged": True}},
        )


@asynccontextmanager
async def calibrator(settings: Settings, fit: Fitter) -> AsyncIterator[Calibrator]:
    """Run the role as its process would."""
    app = new_app("calibrator", settings)
    found = register(app, fit)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await app.start()
        yield found
    finally:
        await app.stop()


def repeat(settings: Settings, request: CalibrationRequest, times: int = 1) -> None:
    producer = new_producer(settings)
    for _ in range(times):
        producer.produce(settings.topic("calibration-requests"), encode(request), b"irt")
    producer.flush(DEADLINE_S)


async def test_responses_become_parameters_in_force_and_abilities(settings: Settings) -> None:
    respond(settings)
    service = FakeService()
    async with calibrator(settings, service) as found:
        await wait_for(lambda: found.known.params.calibrated_version != "none")
    assert service.calls == [LEARNERS * ITEMS]
    assert result_types(settings) == ["abilities", "result", "outcome"]
    outcome = results(settings)[-1]
    assert outcome["status"] == "applied"
    assert (outcome["slope"], outcome["intercept"], outcome["method"]) == (1.0, 0.0, "reference")
    assert "PostgreSQL was away" in outcome["warnings"][0]
    records = whole(settings, "item-params")
    calibrated = [
        decode(r.value() or b"", ItemParamsRecord)
        for r in records
        if r.key() != MANIFEST_KEY and not decode_any(r.value() or b"")["provisional"]
    ]
    assert {r.item_id: r.b for r in calibrated} == {f"i{n}": difficulty(n) for n in range(ITEMS)}
    assert {r.n for r in calibrated} == {LEARNERS}
    last = manifests(settings)[-1]
    assert (last.kind, last.version) == ("calibrated", calibrated[0].version)
    assert records[-1].key() == MANIFEST_KEY
    abilities = [decode(r.value() or b"", BatchAbility) for r in whole(settings, "batch-abilities")]
    assert len(abilities) == LEARNERS
    assert {(a.theta, a.se, a.cut_time) for a in abilities} == {(0.25, 0.3, NOW_MS)}


async def test_a_service_that_fails_leaves_one_failed_result_and_old_parameters(
    settings: Settings,
) -> None:
    settings = replace(settings, trigger_cooldown_secs=3600.0)
    respond(settings)
    async with calibrator(settings, FakeService(failures=1)) as found:
        await wait_for(lambda: len(results(settings)) > 0)
        await asyncio.sleep(2.5)
        assert found.known.params.calibrated_version == "none"
    (result,) = results(settings)
    assert (result["status"], result["error"]) == ("failed", "the service does not answer")
    assert {m.kind for m in manifests(settings)} <= {"provisional"}
    assert whole(settings, "batch-abilities") == []


async def test_a_result_that_fails_a_gate_is_refused_with_an_alert(settings: Settings) -> None:
    settings = replace(settings, gate_min_responses=601, trigger_cooldown_secs=3600.0)
    respond(settings)
    async with calibrator(settings, FakeService()) as found:
        await wait_for(lambda: "alert" in result_types(settings))
        assert found.known.params.calibrated_version == "none"
    assert result_types(settings) == ["abilities", "result", "outcome", "alert"]
    *_, outcome, alert = results(settings)
    assert outcome["status"] == "refused"
    assert "THETASTREAM_GATE_MIN_RESPONSES asks for 601" in outcome["reasons"][0]
    assert alert["detail"].endswith("The old parameters stay in force.")


async def test_a_dry_run_reports_and_applies_nothing(settings: Settings) -> None:
    respond(settings)
    async with calibrator(replace(settings, dry_run=True), FakeService()):
        await wait_for(lambda: "outcome" in result_types(settings))
        await asyncio.sleep(2.5)
    assert [r["status"] for r in results(settings) if r["type"] == "outcome"] == ["dry_run"]
    assert {m.kind for m in manifests(settings)} <= {"provisional"}


async def test_a_repeat_of_a_request_is_harmless(settings: Settings) -> None:
    respond(settings)
    service = FakeService()
    async with calibrator(settings, service) as found:
        await wait_for(lambda: found.known.params.calibrated_version != "none")
        request = next(iter(found.known.runs.by_request.values())).request
        repeat(settings, request, times=3)
        await wait_for(lambda: next(iter(found.known.runs.by_request.values())).offset >= 4)
        await asyncio.sleep(1.0)
    async with calibrator(settings, service) as found:
        await wait_for(lambda: found.leading)
        await asyncio.sleep(1.0)
    assert len(service.calls) == 1
    assert result_types(settings) == ["abilities", "result", "outcome"]


async def test_a_calibrator_that_ends_within_a_fit_is_followed_by_one_that_finishes_it(
    settings: Settings,
) -> None:
    respond(settings)
    stuck = FakeService()
    stuck.hangs.clear()
    async with calibrator(settings, stuck):
        await wait_for(lambda: bool(stuck.calls))
    assert results(settings) == []
    service = FakeService()
    async with calibrator(settings, service) as found:
        await wait_for(lambda: found.known.params.calibrated_version != "none")
    assert service.calls == [LEARNERS * ITEMS]
    assert result_types(settings) == ["abilities", "result", "outcome"]
    assert len(whole(settings, "calibration-requests")) == 1


async def test_a_result_left_undecided_is_applied_by_the_next_calibrator(
    settings: Settings,
) -> None:
    respond(settings)
    async with calibrator(settings, FakeService()) as found, found._publishing:
        await wait_for(lambda: bool(found.known.runs.undecided()))
        await found.stand_by()
    assert result_types(settings) == ["abilities", "result"]
    service = FakeService()
    async with calibrator(settings, service) as found:
        await wait_for(lambda: found.known.params.calibrated_version != "none")
    assert service.calls == []
    assert result_types(settings) == ["abilities", "result", "outcome"]


async def test_rubbish_among_the_requests_is_skipped(settings: Settings) -> None:
    respond(settings)
    producer = new_producer(settings)
    for value in (b"{", b"[]", None):
        producer.produce(settings.topic("calibration-requests"), value, b"irt", 0)
        producer.produce(settings.topic("calibration-results"), value, b"irt", 0)
        producer.produce(settings.topic("item-partials"), value, b"0|x", 0)
    producer.flush(DEADLINE_S)
    async with calibrator(settings, FakeService()) as found:
        await wait_for(lambda: found.known.params.calibrated_version != "none")


async def test_the_next_calibration_is_linked_to_the_first(settings: Settings) -> None:
    respond(settings)
    service = FakeService()
    async with calibrator(settings, service) as found:
        await wait_for(lambda: found.known.params.calibrated_version != "none")
        first = found.known.params.calibrated_version
        service.shift = 0.5
        await asyncio.to_thread(respond, settings, 1)
        await wait_for(lambda: found.known.params.calibrated_version != first)
        difficulties = {name: item.b for name, item in found.known.params.items.items()}
    outcome = [r for r in results(settings) if r["type"] == "outcome"][-1]
    assert outcome["method"] == "stocking_lord"
    assert outcome["slope"] == pytest.approx(1.0, abs=1e-4)
    assert outcome["intercept"] == pytest.approx(-0.5, abs=1e-4)
    assert outcome["n_common"] == ITEMS
    assert difficulties == pytest.approx({f"i{n}": difficulty(n) for n in range(ITEMS)}, abs=1e-3)
    thetas = [decode(r.value() or b"", BatchAbility) for r in whole(settings, "batch-abilities")]
    assert thetas[-1].theta == pytest.approx(0.25, abs=1e-3)


async def test_a_person_is_told_what_came_of_asking(settings: Settings) -> None:
    settings = replace(settings, trigger_responses=10**9)
    with pytest.raises(CalibrationError, match="No attempt has been folded yet"):
        await ask(settings)
    respond(settings)
    with pytest.raises(CalibrationError, match="not decided within 0 s"):
        await ask(settings, wait_s=0.3)
    service = FakeService()
    async with calibrator(settings, service):
        run = await ask(settings, wait_s=DEADLINE_S)
        assert run.outcome is not None
        assert (run.outcome.status, run.request.reason) == ("applied", "manual")
        # A version is in force now, so this asks for a fit on its base; and the same once more.
        service.failures = 1
        failed = await ask(settings, wait_s=DEADLINE_S)
        assert failed.failed
        again = await ask(settings, wait_s=DEADLINE_S)
        assert again.request.request_id == failed.request.request_id
        assert again.outcome is not None
        assert again.outcome.status == "applied"
    assert len(service.calls) == 3
