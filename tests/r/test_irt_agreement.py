"""That the R service and the embedded one find the same, and what is published."""

from __future__ import annotations

import pytest

from stream.calibration.contract import CalibrateRequest
from tests.r.answers import (
    DATA,
    anchors,
    as_json,
    by_item,
    calibrate,
    lsat,
    mofacts,
    sat12,
    simulate,
    verbal_aggression,
)

pytestmark = pytest.mark.r


async def agree(embedded, r_irt, columns, *, model="2PL", fixed=()):
    """Both fits of the same request; determined items must be within .02."""
    request = CalibrateRequest(columns, model, list(fixed))
    one, two = await calibrate(embedded, request), await calibrate(r_irt, request)
    ours, theirs = by_item(one), by_item(two)
    held = {anchor.item_id for anchor in fixed}
    determined = [
        item
        for item in ours.values()
        if item.item_id not in held and item.se["a"] < 0.3 and abs(item.params.b) < 4.0
    ]
    for item in determined:
        other = theirs[item.item_id].params
        assert other.a == pytest.approx(item.params.a, abs=0.02), item.item_id
        assert other.b == pytest.approx(item.params.b, abs=0.02), item.item_id
    for key in ("mean", "sd"):
        group = [fit.fit_meta.metrics["group"][key] for fit in (one, two)]
        assert group[1] == pytest.approx(group[0], abs=0.01)
    theta = {ability.user_id: ability.theta for ability in one.abilities}
    assert all(
        ability.theta == pytest.approx(theta[ability.user_id], abs=0.02)
        for ability in two.abilities
    )
    return one, two, len(determined)


def flagged(response):
    return {item.item_id for item in response.item_params if item.flags}


HERE = [(verbal_aggression, 23, 0)]
"""What is answered, how many of its items the data determine, how many are flagged."""

if DATA.is_dir():
    HERE += [(sat12, 28, 1), (mofacts, 113, 13)]


@pytest.mark.parametrize(("answers", "determined", "n_flagged"), HERE)
async def test_both_agree_on_real_answers_and_flag_the_same_items(
    embedded, r_irt, answers, determined, n_flagged
):
    one, two, n = await agree(embedded, r_irt, answers())
    assert n == determined
    assert flagged(one) == flagged(two)
    assert len(flagged(one)) == n_flagged


@pytest.mark.parametrize("model", ["1PL", "2PL", "3PL"])
async def test_both_agree_on_simulated_answers(embedded, r_irt, model):
    columns, _, _ = simulate(3, 1500, 40, 20, c=0.2 if model == "3PL" else 0.0)
    _, _, determined = await agree(embedded, r_irt, columns, model=model)
    assert determined >= (15 if model == "3PL" else 39)


@pytest.mark.parametrize("model", ["1PL", "2PL", "3PL"])
async def test_both_agree_beside_fixed_anchors_in_another_group(embedded, r_irt, model):
    columns, a, b = simulate(6, 1500, 30, 15, mean=0.7, sd=1.3)
    _, two, determined = await agree(embedded, r_irt, columns, model=model, fixed=anchors(a, b, 8))
    assert determined >= 18
    assert two.fit_meta.metrics["group"]["mean"] == pytest.approx(0.7, abs=0.15)


PUBLISHED = {
    "LSAT6": (
        [0.8254, 0.7229, 0.8905, 0.6886, 0.6575],
        [2.773, 0.990, 0.249, 1.285, 2.053],
        -2466.653,
    ),
    "LSAT7": (
        [0.988, 1.081, 1.706, 0.7651, 0.7358],
        [1.8561, 0.808, 1.8043, 0.486, 1.8545],
        -2658.805,
    ),
}
"""Slopes, intercepts (-a b) and log-likelihood of maximum likelihood: ltm's, mirt's."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_lsat_estimates_come_out_without_priors(r_irt, name):
    slopes, intercepts, loglik = PUBLISHED[name]
    answer = r_irt.post("/irt/calibrate", as_json(lsat(name), priors="none", run_id="published"))
    assert answer.status_code == 200, answer.text
    fit = answer.json()
    assert fit["fit_meta"]["run_id"] == "published"
    found = sorted(fit["item_params"], key=lambda item: item["item_id"])
    params = [item["params"] for item in found]
    assert [p["a"] for p in params] == pytest.approx(slopes, abs=2e-3)
    assert [-p["a"] * p["b"] for p in params] == pytest.approx(intercepts, abs=2e-3)
    assert fit["fit_meta"]["metrics"]["loglik"] == pytest.approx(loglik, abs=1e-3)
    assert fit["fit_meta"]["metrics"]["item_fit"]["rmsd_max"] < 0.05
