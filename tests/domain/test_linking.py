"""Linking constants: recovered exactly, and within their errors; drift found, weakness told."""

import math

import numpy as np
import pytest

from stream.domain.irt import probability_correct_array
from stream.domain.linking import (
    ItemArrays,
    LinkingConstants,
    apply_linking,
    apply_to_theta,
    drifted_anchors,
    link,
)
from stream.errors import LinkingError

METHODS = ["mean_sigma", "haebara", "stocking_lord"]


def bank(rng, n, c=0.0):
    return ItemArrays(np.exp(rng.normal(0, 0.3, n)), rng.normal(0, 1, n), np.full(n, c))


def on_another_scale(items, slope, intercept):
    """The items as a calibration would give them whose constants to here are these."""
    return ItemArrays(items.a * slope, (items.b - intercept) / slope, items.c)


def noisy(rng, items, se_a, se_b):
    n = len(items.b)
    return ItemArrays(
        items.a + rng.normal(0, se_a, n),
        items.b + rng.normal(0, se_b, n),
        items.c,
        np.full(n, se_a),
        np.full(n, se_b),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("slope", "intercept"), [(0.8, -1.0), (1.0, 0.0), (1.25, 1.0), (2.5, -3.0)]
)
def test_without_error_the_constants_are_recovered_exactly(method, slope, intercept):
    reference = bank(np.random.default_rng(1), 8, c=0.15)
    found = link(on_another_scale(reference, slope, intercept), reference, method)
    assert found.slope == pytest.approx(slope, abs=1e-6)
    assert found.intercept == pytest.approx(intercept, abs=1e-6)
    assert found.dropped == ()
    assert found.n_anchors == 8


def test_linked_items_give_linked_learners_the_same_probabilities():
    rng = np.random.default_rng(2)
    items, theta = bank(rng, 5, c=0.2), rng.normal(0, 1, 7)
    constants = LinkingConstants(1.3, -0.4, 0.0, 0.0, "stocking_lord", 5)
    linked, moved = apply_linking(items, constants), apply_to_theta(theta, constants)
    before = probability_correct_array(theta[:, None], items.a, items.b, items.c)
    after = probability_correct_array(moved[:, None], linked.a, linked.b, linked.c)
    np.testing.assert_allclose(after, before, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_true_constants_lie_in_the_intervals_as_often_as_they_should(method):
    rng = np.random.default_rng(3)
    inside, width = [], []
    for _ in range(200):
        slope, intercept = rng.uniform(0.8, 1.25), rng.uniform(-1, 1)
        true = bank(rng, 12)
        new = noisy(rng, on_another_scale(true, slope, intercept), 0.08, 0.08)
        found = link(new, noisy(rng, true, 0.08, 0.08), method)
        inside += [abs(found.slope - slope) <= 1.96 * found.se_slope]
        inside += [abs(found.intercept - intercept) <= 1.96 * found.se_intercept]
        width += [found.se_slope]
    assert 0.90 <= np.mean(inside) <= 0.995
    assert np.mean(width) < 0.1


def test_without_standard_errors_the_jackknife_gives_them():
    rng = np.random.default_rng(4)
    true = bank(rng, 15)
    new, reference = noisy(rng, true, 0.1, 0.1), true
    bare = ItemArrays(new.a, new.b, new.c)
    with_se, without = link(new, reference), link(bare, reference)
    assert without.slope == pytest.approx(with_se.slope)
    assert 0.3 < without.se_slope / with_se.se_slope < 3.0


def test_the_learners_sampling_error_is_added():
    rng = np.random.default_rng(5)
    true = bank(rng, 10)
    new = noisy(rng, true, 0.05, 0.05)
    plain, sampled = link(new, true), link(new, true, n_learners=500, n_learners_reference=1000)
    expected = plain.se_intercept**2 + plain.slope**2 * (1 / 500 + 1 / 1000)
    assert sampled.se_intercept**2 == pytest.approx(expected)
    expected = plain.se_slope**2 + plain.slope**2 * (1 / 1000 + 1 / 2000)
    assert sampled.se_slope**2 == pytest.approx(expected)


def test_anchors_that_moved_are_dropped_and_no_longer_bend_the_link():
    rng = np.random.default_rng(6)
    true = bank(rng, 12)
    new = noisy(rng, on_another_scale(true, 1.1, 0.3), 0.05, 0.06)
    new.b[[2, 5, 9]] += [0.9, 1.1, 0.8]
    new.a[7] *= 3.0
    found = link(new, noisy(rng, true, 0.05, 0.06))
    assert found.dropped == (2, 5, 7, 9)
    assert found.n_anchors == 8
    assert (found.slope, found.intercept) == pytest.approx((1.1, 0.3), abs=0.08)
    kept_all = link(new, true, purify=False)
    assert abs(kept_all.intercept - 0.3) > 0.15


def test_anchors_that_stand_still_are_kept():
    rng = np.random.default_rng(7)
    dropped = 0
    for _ in range(50):
        true = bank(rng, 20)
        new = noisy(rng, on_another_scale(true, 0.9, -0.5), 0.08, 0.1)
        dropped += int(drifted_anchors(new, noisy(rng, true, 0.08, 0.1)).sum())
    assert dropped <= 5  # of 1000


@pytest.mark.parametrize("method", METHODS)
def test_few_or_uncertain_anchors_are_called_weak(method):
    rng = np.random.default_rng(8)
    true = bank(rng, 4)
    few = link(noisy(rng, true, 0.01, 0.01), true, method)
    assert any("rests on 4 items" in warning for warning in few.warnings)
    true = bank(rng, 6)
    unsure = link(noisy(rng, true, 0.3, 0.5), true, method, purify=False)
    assert any("standard error" in warning for warning in unsure.warnings)
    true = bank(rng, 12)
    assert link(noisy(rng, true, 0.05, 0.05), true, method).warnings == ()


def test_anchors_that_contradict_each_other_are_weak_or_refused_never_trusted():
    rng = np.random.default_rng(9)
    for _ in range(20):
        true = bank(rng, 10)
        other = noisy(rng, ItemArrays(true.a, rng.permutation(true.b) * 2.0, true.c), 0.05, 0.05)
        try:
            found = link(other, noisy(rng, true, 0.05, 0.05))
        except LinkingError:
            continue
        assert found.warnings != ()


def test_too_few_or_unusable_anchors_are_refused():
    rng = np.random.default_rng(10)
    one = bank(rng, 1)
    with pytest.raises(LinkingError, match="1 usable items in common"):
        link(one, one)
    none = bank(rng, 0)
    with pytest.raises(LinkingError, match="0 usable items"):
        link(none, none)
    good = bank(rng, 6)
    broken = ItemArrays(good.a, np.where(np.arange(6) == 2, math.nan, good.b), good.c)
    with pytest.raises(LinkingError, match="1 common items have no usable"):
        link(broken, good)
    flat = ItemArrays(good.a, np.zeros(6), good.c)
    with pytest.raises(LinkingError, match="equally difficult"):
        link(flat, good, "mean_sigma", purify=False)
    with pytest.raises(LinkingError, match="not known"):
        link(good, good, "equipercentile")
    with pytest.raises(LinkingError, match="different numbers"):
        link(good, bank(rng, 5))


def test_all_anchors_equally_difficult_still_link_by_their_curves():
    reference = ItemArrays(np.array([0.8, 1.0, 1.3, 0.9]), np.full(4, 0.5), np.zeros(4))
    found = link(on_another_scale(reference, 1.2, -0.3), reference)
    assert (found.slope, found.intercept) == pytest.approx((1.2, -0.3), abs=1e-6)


def test_a_chain_of_links_stays_on_scale():
    """Ten recalibrations in a row, each linked to the one before: the errors add up slowly."""
    rng = np.random.default_rng(11)
    true = bank(rng, 60)
    in_force = noisy(rng, true, 0.06, 0.06)
    start_mean, start_sd = in_force.b.mean(), in_force.b.std()
    for _ in range(10):
        slope, intercept = rng.uniform(0.8, 1.25), rng.uniform(-1, 1)
        new = noisy(rng, on_another_scale(true, slope, intercept), 0.06, 0.06)
        in_force = apply_linking(new, link(new, in_force))
    assert in_force.b.mean() == pytest.approx(start_mean, abs=0.08)
    assert in_force.b.std() == pytest.approx(start_sd, abs=0.08)
