"""The live filter: against exact posteriors."""

import math

import numpy as np
import pytest

from stream.domain import ability
from stream.domain.ability import FilterConfig
from stream.domain.irt import log_likelihood_array
from tests.domain.learners import follow, simulate

STILL = FilterConfig(drift=0.0, topic_drift=0.0)
"""No drift: then the filter approximates the exact posterior."""

GRID = np.linspace(-6.0, 6.0, 241)


def exact(a, b, c, correct, prior_sd=1.0):
    """Posterior mean and sd on a grid."""
    log_p = -0.5 * (GRID / prior_sd) ** 2
    for item in zip(a, b, c, correct, strict=True):
        log_p = log_p + log_likelihood_array(GRID, *item)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = float(p @ GRID)
    return mean, math.sqrt(float(p @ (GRID - mean) ** 2))


def test_folds_stay_close_to_the_exact_posterior():
    rng = np.random.default_rng(1)
    off = {5: [], 20: [], 100: []}
    for _ in range(200):
        a, b, _, correct = simulate(rng, 100)
        g = ability.initial_global()
        for n in range(100):
            g = ability.fold_global(*g, a[n], b[n], 0.0, correct[n], n, 0.0, STILL)
            if n + 1 in off:
                mean, _ = exact(a[: n + 1], b[: n + 1], [0.0] * (n + 1), correct[: n + 1])
                off[n + 1].append(abs(g[0] - mean))
    assert np.mean(off[5]) <= 0.010
    assert np.mean(off[20]) <= 0.020
    assert np.mean(off[100]) <= 0.016


def test_one_fold_has_the_exact_moments_with_and_without_guessing():
    for c in (0.0, 0.25):
        for correct in (True, False):
            g, vg = ability.fold_global(0.0, 1.0, 1.2, 0.3, c, correct, 0, 0.0, STILL)
            mean, sd = exact([1.2], [0.3], [c], [correct])
            assert g == pytest.approx(mean, abs=1e-3)
            assert math.sqrt(vg) == pytest.approx(sd, abs=1e-3)


def test_other_topics_follow_the_global_ability_as_in_the_joint_posterior():
    """Two topics on a (g, d1, d2) grid: a fold in topic 2 must move theta of topic 1 rightly."""
    axis, side = np.linspace(-5, 5, 61), np.linspace(-2.2, 2.2, 41)
    g, d1, d2 = np.meshgrid(axis, side, side, indexing="ij")
    config = FilterConfig(topic_var=0.25, drift=0.0, topic_drift=0.0)
    log_p = -0.5 * g**2 - 0.5 * (d1**2 + d2**2) / 0.25
    answers = [
        (1.2, 0.3, 0, True),
        (0.8, -0.5, 0, True),
        (1.0, 0.0, 1, False),
        (1.5, -1.0, 1, False),
    ]
    for a, b, topic, correct in answers:
        log_p = log_p + log_likelihood_array(g + (d1, d2)[topic], a, b, 0.0, correct)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    state, topics = follow(*(list(column) for column in zip(*answers, strict=True)), config)
    theta, variance = ability.topic_ability(*state, *topics[0])
    exact_mean = float((p * (g + d1)).sum())
    exact_var = float((p * (g + d1) ** 2).sum()) - exact_mean**2
    assert theta == pytest.approx(exact_mean, abs=0.02)
    assert variance == pytest.approx(exact_var, abs=0.02)
    mean_d, var_d, cov = ability.deviation(*state, *topics[0])
    assert mean_d == pytest.approx(float((p * d1).sum()), abs=0.01)
    assert var_d == pytest.approx(float((p * d1**2).sum()) - float((p * d1).sum()) ** 2, abs=0.01)
    joint = float((p * g * d1).sum()) - float((p * g).sum()) * float((p * d1).sum())
    assert cov == pytest.approx(joint, abs=0.01)


@pytest.mark.parametrize("correct", [True, False])
def test_all_right_and_all_wrong_stay_finite(correct):
    state = (*ability.initial_global(), *ability.initial_topic())
    for n in range(2000):
        state = ability.fold(*state, 1.5, 0.0, 0.0, correct, n, n)
    assert all(math.isfinite(value) for value in state)
    assert state[1] > 0.0
    assert state[4] > 0.0
    theta, variance = ability.topic_ability(*state)
    assert 0.0 < variance < 1.09
    assert 3.0 < abs(theta) < 12.0


@pytest.mark.parametrize("item", [(20.0, -50.0, 0.0), (20.0, 50.0, 0.0), (20.0, 50.0, 0.9)])
@pytest.mark.parametrize("correct", [True, False])
def test_the_strangest_items_give_finite_states_with_positive_variance(item, correct):
    state = (*ability.initial_global(), *ability.initial_topic())
    for n in range(50):
        state = ability.fold(*state, *item, correct, n, n)
        assert all(math.isfinite(value) for value in state)
        assert min(state[1], state[4], ability.topic_ability(*state)[1]) > 0.0


def test_published_constants_are_read_by_name_and_bad_ones_refused():
    found = ability.filter_from({"prior_mean": -0.4, "drift": 0.0, "item_var": 2.0})
    assert (found.prior_mean, found.drift, found.item_var) == (-0.4, 0.0, 2.0)
    assert found.topic_var == FilterConfig().topic_var
    with pytest.raises(ValueError, match="unknown constants speed"):
        ability.filter_from({"speed": 1.0})
    for name, value in (("prior_var", 0.0), ("drift", -0.1), ("item_mean", math.nan)):
        with pytest.raises(ValueError, match=name):
            ability.filter_from({name: value})


def test_on_another_scale_the_filter_predicts_the_same():
    config = FilterConfig(prior_mean=0.2, prior_var=0.8)
    moved = ability.rescaled_filter(config, 1.3, -0.5)
    here = (*ability.initial_global(config), *ability.initial_topic(config))
    there = (*ability.initial_global(moved), *ability.initial_topic(moved))
    rng = np.random.default_rng(8)
    for n in range(50):
        a, b, right = float(np.exp(rng.normal(0, 0.3))), float(rng.normal()), rng.random() < 0.6
        here = ability.fold(*here, a, b, 0.0, right, n, n, 0.1, config)
        there = ability.fold(*there, a / 1.3, 1.3 * b - 0.5, 0.0, right, n, n, 0.1 * 1.3**2, moved)
        theta, variance = ability.topic_ability(*here)
        want = (1.3 * theta - 0.5, 1.3**2 * variance)
        assert ability.topic_ability(*there) == pytest.approx(want, abs=1e-10)


def test_drift_shrinks_with_evidence():
    config = FilterConfig(drift=0.04, drift_n0=10.0)
    # A flat item tells next to nothing: what is left is the drift.
    _, first = ability.fold_global(0.0, 1.0, 1e-6, 0.0, 0.0, True, 0, 0.0, config)
    _, later = ability.fold_global(0.0, 1.0, 1e-6, 0.0, 0.0, True, 90, 0.0, config)
    assert first == pytest.approx(1.04, abs=1e-6)
    assert later == pytest.approx(1.004, abs=1e-6)


def test_an_uncertain_item_moves_theta_less():
    sure, _ = ability.fold_global(0.0, 1.0, 1.0, 0.0, 0.0, True, 0, 0.0, STILL)
    unsure, variance = ability.fold_global(0.0, 1.0, 1.0, 0.0, 0.0, True, 0, 1.0, STILL)
    assert 0.0 < unsure < 0.9 * sure
    assert variance < 1.0


def test_a_rebase_moves_every_topic_by_the_same_shift():
    rng = np.random.default_rng(6)
    g, topics = follow(*simulate(rng, 60, deviations=(-0.5, 0.0, 0.5)), FilterConfig())
    for triple in topics.values():
        before = ability.topic_ability(*g, *triple)
        d0, s, r = triple
        moved = ability.topic_ability(g[0] + 0.37, g[1], ability.rebase_topic(d0, s, 0.37), s, r)
        assert moved == pytest.approx((before[0] + 0.37, before[1]), abs=1e-12)


def test_default_intervals_cover_learners_who_stand_still_wander_or_grow():
    rng = np.random.default_rng(7)
    for kind in ("static", "walk", "grow"):
        inside = []
        for _ in range(200):
            n, theta = 100, rng.normal()
            path = np.full(n, theta)
            if kind == "walk":
                path = theta + np.cumsum(rng.normal(0, 0.05, n))
            if kind == "grow":
                path = theta + np.linspace(0, 0.8, n)
            dev = rng.normal(0, 0.3, 4)
            a, b = np.exp(rng.normal(0, 0.3, n)), rng.normal(0, 1, n)
            topic = rng.integers(0, 4, n)
            right = rng.random(n) < 1 / (1 + np.exp(-a * (path + dev[topic] - b)))
            g, topics, seen = ability.initial_global(), {}, {}
            for i in range(n):
                t = int(topic[i])
                state = ability.fold(
                    *g,
                    *topics.get(t, ability.initial_topic()),
                    *(float(a[i]), float(b[i]), 0.0, bool(right[i])),
                    *(i, seen.get(t, 0)),
                )
                g, topics[t], seen[t] = state[:2], state[2:], seen.get(t, 0) + 1
                mean, variance = ability.topic_ability(*g, *topics[t])
                inside.append(abs(mean - path[i] - dev[t]) <= 1.96 * math.sqrt(variance))
        assert 0.93 <= np.mean(inside) <= 0.98, kind


def test_predictions_average_over_what_is_not_known():
    x = np.linspace(-6, 6, 2001)
    weight = np.exp(-0.5 * x**2)
    weight /= weight.sum()
    theta = 0.4 + math.sqrt(0.7) * x
    expected = float(weight @ (0.2 + 0.8 / (1 + np.exp(-1.3 * (theta - 0.1)))))
    got = ability.predict_correct(0.4, 0.5, 1.3, 0.1, 0.2, b_var=0.2)
    assert got == pytest.approx(expected, abs=1e-4)


def test_a_provisional_difficulty_starts_at_the_prior_and_learns():
    assert ability.provisional_difficulty(0, 0, 0.8, 1.2) == (0.8, 1.2)
    few, few_sd = ability.provisional_difficulty(4, 1, 0.0)
    many, many_sd = ability.provisional_difficulty(400, 100, 0.0)
    assert 0.0 < few < many
    assert many_sd < 0.2 < few_sd < 1.0
    # P(correct) = .25 for theta ~ N(0, 1) and a = 1 needs b = 1.29 (by quadrature).
    assert many == pytest.approx(1.29, abs=0.05)
    for n in (1, 50, 10_000):
        low, _ = ability.provisional_difficulty(n, n, 0.0)
        high, _ = ability.provisional_difficulty(n, 0, 0.0)
        assert math.isfinite(low)
        assert low == pytest.approx(-high)
    with pytest.raises(ValueError, match="not possible"):
        ability.provisional_difficulty(3, 4, 0.0)
    with pytest.raises(ValueError, match="positive"):
        ability.provisional_difficulty(3, 1, 0.0, 0.0)
