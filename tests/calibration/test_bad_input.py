"""Bad input through the real service code, gates and link.

Each ends in a clear refusal or in a documented, finite estimate; and what was in force stays in
force wherever nothing better was found.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import isfinite

import httpx
import numpy as np
import pytest

from stream.domain.irt import ItemParams, item_params
from tests.calibration.school import School, answers, embedded, observations

N_ITEMS = 16
NAMES = [f"i{n:02}" for n in range(N_ITEMS)]
A = np.tile([0.8, 1.0, 1.2, 1.5], 4)
B = np.linspace(-1.8, 1.8, N_ITEMS)


def drawn(seed: int, n_learners: int = 500) -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng, answers(rng, rng.normal(size=n_learners), A, B)


async def school() -> School:
    """A school with a first calibration in force."""
    found = School()
    _, right = drawn(1)
    assert await found.calibrate(observations(right, NAMES)) == "applied"
    return found


def anchors(a: np.ndarray, b: np.ndarray) -> dict[str, ItemParams]:
    """Every other item, tagged with these parameters."""
    return {NAMES[i]: ItemParams(float(a[i]), float(b[i])) for i in range(0, N_ITEMS, 2)}


def in_force(found: School) -> dict[str, tuple[float, float, str]]:
    return {name: (i.a, i.b, i.version) for name, i in found.params.items.items()}


def all_finite(found: School) -> bool:
    return all(
        item_params(i.a, i.b, i.c) and isfinite(i.se_b) for i in found.params.items.values()
    ) and all(isfinite(theta) and se > 0.0 for _, theta, se in found.abilities)


@pytest.mark.parametrize("right", [True, False])
async def test_an_item_answered_all_alike_gets_a_finite_place_and_is_flagged(right: bool) -> None:
    found = School()
    _, given = drawn(2)
    given[:, 5] = right
    assert await found.calibrate(observations(given, NAMES)) == "applied"
    assert all_finite(found)
    flag = "all_right" if right else "all_wrong"
    assert flag in found.result.fit_meta["flagged_items"]["i05"]
    # It lies outside all the others, on its side, and as provisional: an uncertain difficulty.
    item = found.params.items["i05"]
    assert item.provisional
    others = [i.b for name, i in found.params.items.items() if name != "i05"]
    assert item.b < min(others) if right else item.b > max(others)
    # The others come out as they do without it.
    assert np.abs(np.array(others) - np.delete(B, 5)).max() < 0.4


async def test_an_item_answered_all_alike_keeps_the_parameters_it_had() -> None:
    found = await school()
    before = in_force(found)
    _, given = drawn(3)
    given[:, 5] = True
    assert await found.calibrate(observations(given, NAMES)) == "applied"
    assert in_force(found)["i05"] == before["i05"]
    assert in_force(found)["i06"] != before["i06"]


async def test_an_item_with_3_responses_is_provisional_or_keeps_what_it_had() -> None:
    asked = np.ones((500, N_ITEMS), np.bool_)
    asked[3:, 5] = False
    found = School()
    assert await found.calibrate(observations(drawn(4)[1], NAMES, asked)) == "applied"
    assert all_finite(found)
    item = found.params.items["i05"]
    assert (item.provisional, item.n) == (True, 3)
    assert abs(item.b) < 3.0
    assert item.se_b > 0.7
    assert "few_responses" in found.result.fit_meta["flagged_items"]["i05"]

    found = await school()
    before = in_force(found)
    assert await found.calibrate(observations(drawn(4)[1], NAMES, asked)) == "applied"
    assert in_force(found)["i05"] == before["i05"]


async def test_one_learner_calibrates_nothing() -> None:
    found = await school()
    before = in_force(found)
    assert await found.calibrate(observations(drawn(5, 1)[1], NAMES)) == "failed"
    assert "one learner alone cannot calibrate items" in found.result.error
    assert in_force(found) == before


@pytest.mark.parametrize("right", [True, False])
async def test_constant_responses_calibrate_nothing(right: bool) -> None:
    found = await school()
    before = in_force(found)
    given = np.full((500, N_ITEMS), right)
    assert await found.calibrate(observations(given, NAMES)) == "failed"
    said = f"all 8000 responses are {'right' if right else 'wrong'}"
    assert said in found.result.error
    assert in_force(found) == before


async def test_learners_who_answer_all_alike_get_finite_abilities() -> None:
    found = School()
    _, given = drawn(6)
    given[:20], given[20:40] = True, False
    assert await found.calibrate(observations(given, NAMES)) == "applied"
    assert all_finite(found)
    theta = np.array([theta for _, theta, _ in found.abilities])
    assert theta[:20].min() >= theta[40:].max()
    assert theta[20:40].max() <= theta[40:].min()
    assert np.abs(theta).max() < 3.5


async def test_no_items_in_common_is_refused() -> None:
    found = await school()
    before = in_force(found)
    others = [f"j{n:02}" for n in range(N_ITEMS)]
    assert await found.calibrate(observations(drawn(7)[1], others)) == "refused"
    assert found.outcome is not None
    assert "have 0 usable items in common; at least 2 are needed" in found.outcome.reasons[0]
    assert found.alerts[0].detail.endswith("The old parameters stay in force.")
    assert in_force(found) == before


async def test_items_that_contradict_each_other_are_refused() -> None:
    found = await school()
    before = in_force(found)
    rng, given = drawn(8)
    # Every item is another one now, as after a mix-up of ids.
    assert await found.calibrate(observations(given[:, rng.permutation(N_ITEMS)], NAMES)) == (
        "refused"
    )
    assert found.outcome is not None
    assert "cannot be linked to the reference scale" in found.outcome.reasons[0]
    assert in_force(found) == before


async def test_tagged_anchors_that_contradict_each_other_give_way_to_all_common_items() -> None:
    found = await school()
    tagged = {name: ItemParams(1.0, 0.0) for name in NAMES[:6]}
    _, given = drawn(9)
    given[:, :6] = given[:, 5::-1]
    assert await found.calibrate(observations(given, NAMES), tagged=tagged) == "applied"
    assert found.outcome is not None
    assert "Tagged anchors were not used" in found.outcome.warnings[0]
    assert found.outcome.n_common >= 10
    undisturbed = await school()
    assert await undisturbed.calibrate(observations(drawn(9)[1], NAMES)) == "applied"
    assert undisturbed.outcome is not None
    assert found.outcome.slope == pytest.approx(undisturbed.outcome.slope, abs=0.1)
    assert found.outcome.intercept == pytest.approx(undisturbed.outcome.intercept, abs=0.1)


async def test_fixed_anchors_that_contradict_each_other_set_no_scale() -> None:
    found = School()
    tagged = anchors(A, -B)
    assert await found.calibrate(observations(drawn(10)[1], NAMES), tagged=tagged) == "failed"
    assert "fixed anchors contradict each other or the answers" in found.result.error
    assert "Correct meta.irt" in found.result.error
    assert in_force(found) == {}


async def test_one_fixed_anchor_that_does_not_fit_is_named() -> None:
    found = School()
    tagged = anchors(A, B + 1.5 * (np.arange(N_ITEMS) == 4))
    assert await found.calibrate(observations(drawn(11)[1], NAMES), tagged=tagged) == "applied"
    assert found.outcome is not None
    (warning,) = found.outcome.warnings
    assert warning.startswith("The fixed anchor i04 is ")
    assert warning.endswith(" logits easier here than its parameters say.")


async def test_fixed_anchors_that_fit_are_not_complained_of_on_another_scale() -> None:
    found = School()
    tagged = anchors(A / 1.3, 1.3 * B + 2.0)
    assert await found.calibrate(observations(drawn(12)[1], NAMES), tagged=tagged) == "applied"
    assert found.outcome is not None
    assert (found.outcome.warnings, found.outcome.method) == ([], "fixed_anchors")
    assert np.mean([theta for _, theta, _ in found.abilities]) == pytest.approx(2.0, abs=0.2)


def spoiled(change: Callable[[dict], None]) -> Callable[[httpx.Request], httpx.Response]:  # type: ignore[type-arg]
    """The embedded service with its answer changed on the way."""

    def service(request: httpx.Request) -> httpx.Response:
        response = embedded(request)
        if request.method == "GET":
            return response
        answer = response.json()
        change(answer)
        # As Python and R write it: NaN and Infinity are no JSON.
        return httpx.Response(200, text=json.dumps(answer))

    return service


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "NaN", 1e999, -1.0])
async def test_numbers_of_a_service_that_are_none_change_nothing(value: object) -> None:
    found = await school()
    before = in_force(found)

    def change(answer: dict[str, list[dict[str, dict[str, object]]]]) -> None:
        answer["item_params"][3]["params"]["a"] = value

    given = observations(drawn(13)[1], NAMES)
    assert await found.calibrate(given, service=spoiled(change)) in ("failed", "refused")
    assert found.result.error or (found.outcome and found.outcome.reasons)
    assert in_force(found) == before


@pytest.mark.parametrize("value", [float("nan"), None, "NaN"])
async def test_abilities_that_are_no_numbers_change_nothing(value: object) -> None:
    found = await school()
    before = in_force(found)

    def change(answer: dict[str, list[dict[str, object]]]) -> None:
        answer["abilities"][3]["theta"] = value

    given = observations(drawn(14)[1], NAMES)
    assert await found.calibrate(given, service=spoiled(change)) == "failed"
    assert "calibration service" in found.result.error
    assert in_force(found) == before


async def test_a_fit_that_did_not_converge_is_refused() -> None:
    found = await school()
    before = in_force(found)

    def change(answer: dict[str, dict[str, dict[str, object]]]) -> None:
        answer["fit_meta"]["metrics"]["converged"] = False

    given = observations(drawn(15)[1], NAMES)
    assert await found.calibrate(given, service=spoiled(change)) == "refused"
    assert found.outcome is not None
    assert found.outcome.reasons == ["The fit did not converge."]
    assert in_force(found) == before
