"""Taking attempts back and rescoring them: the fold's inverse."""

import math

import numpy as np
import pytest

from stream.domain import ability, correction
from stream.domain.ability import FilterConfig
from tests.domain.learners import follow, simulate

STILL = FilterConfig(drift=0.0, topic_drift=0.0)


def test_unfold_is_the_inverse_of_the_last_fold():
    rng = np.random.default_rng(2)
    state = (0.3, 0.4, -0.05, -0.2, 0.06)
    for _ in range(200):
        a, b = float(np.exp(rng.normal(0, 0.3))), float(rng.normal(0, 1.5))
        c, correct = float(rng.choice([0.0, 0.2])), bool(rng.random() < 0.5)
        b_var = float(rng.choice([0.0, 0.3]))
        after = ability.fold(*state, a, b, c, correct, 0, 0, b_var, STILL)
        before = correction.unfold(*after, a, b, c, correct, b_var, STILL)
        assert before == pytest.approx(state, abs=1e-6)
        g = ability.fold_global(0.3, 0.4, a, b, c, correct, 0, b_var, STILL)
        back = correction.unfold_global(*g, a, b, c, correct, b_var, STILL)
        assert back == pytest.approx((0.3, 0.4), abs=1e-6)


@pytest.mark.parametrize(("config", "bound"), [(STILL, 0.01), (FilterConfig(), 0.05)])
def test_taking_an_earlier_attempt_back_is_close_to_refolding_without_it(config, bound):
    rng = np.random.default_rng(3)
    off, ignored = [], []
    for _ in range(200):
        a, b, topic, correct = simulate(rng, 30, deviations=(-0.3, 0.0, 0.3))
        g, topics = follow(a, b, topic, correct, config)
        gone = int(rng.integers(0, 25))
        t = topic[gone]
        state = correction.unfold(*g, *topics[t], a[gone], b[gone], 0.0, correct[gone], 0.0, config)
        true_g, true_topics = follow(a, b, topic, correct, config, skip={gone})
        want = ability.topic_ability(*true_g, *true_topics.get(t, ability.initial_topic(config)))
        off.append(abs(ability.topic_ability(*state)[0] - want[0]))
        ignored.append(abs(ability.topic_ability(*g, *topics[t])[0] - want[0]))
    assert np.mean(off) <= bound
    assert np.mean(off) <= 0.5 * np.mean(ignored)


def test_rescoring_is_close_to_having_scored_it_so():
    rng = np.random.default_rng(4)
    off = []
    for _ in range(100):
        a, b, topic, correct = simulate(rng, 30)
        g, topics = follow(a, b, topic, correct, STILL)
        at = int(rng.integers(0, 30))
        state = correction.rescore(*g, *topics[0], a[at], b[at], 0.0, not correct[at], 0.0, STILL)
        correct[at] = not correct[at]
        true_g, true_topics = follow(a, b, topic, correct, STILL)
        off.append(
            abs(
                ability.topic_ability(*state)[0]
                - ability.topic_ability(*true_g, *true_topics[0])[0]
            )
        )
    assert np.mean(off) <= 0.03
    g = ability.fold_global(0.0, 1.0, 1.0, 0.2, 0.0, True, 0, 0.0, STILL)
    rescored = correction.rescore_global(*g, 1.0, 0.2, 0.0, False, 0.0, STILL)
    direct = ability.fold_global(0.0, 1.0, 1.0, 0.2, 0.0, False, 0, 0.0, STILL)
    assert rescored == pytest.approx(direct, abs=1e-6)


def test_taking_back_never_raises_a_variance_above_its_prior():
    rng = np.random.default_rng(5)
    for _ in range(100):
        a, b, topic, correct = simulate(rng, 3)
        g, topics = follow(a, b, topic, correct, FilterConfig())
        state = (*g, *topics[0])
        for n in range(3):  # the last one leaves nothing but rounding and drift
            held = max(state[1], 1.0), max(ability.deviation(*state)[1], 0.09)
            state = correction.unfold(*state, a[n], b[n], 0.0, correct[n])
            assert all(math.isfinite(value) for value in state)
            assert state[1] <= held[0] + 1e-9
            assert ability.deviation(*state)[1] <= held[1] + 1e-9
