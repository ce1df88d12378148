"""The advantage of practice, memory and form, and following learners with it."""

import math
import random

import numpy as np
import pytest

from stream.domain import ability
from stream.domain.attempt_log import AttemptLog
from stream.domain.practice import (
    NEVER_MET,
    NO_WEIGHTS,
    Weights,
    advantage,
    features,
    next_form,
    plug_in,
    weights_from,
)
from stream.follow import follow
from tests.domain.plain_follow import LearnerState
from tests.domain.plain_follow import follow as follow_plainly


def test_a_first_meeting_has_no_advantage():
    weights = Weights(*[1.0] * len(NO_WEIGHTS))._replace(level=0.0, warm_up=0.0)
    assert advantage(weights, 0, 0, 0.0, 0.0, None, 0, 1000.0) == 0.0


def test_the_warm_up_fades_with_the_attempts():
    weights = Weights(warm_up=-1.0)
    found = [advantage(weights, 0, 0, 0.0, 0.0, None, n, 0.0) for n in (0, 3, 99)]
    assert found == pytest.approx([-1.0, -0.5, -0.1])


def test_the_advantage_is_the_weighted_sum_of_the_features():
    rng = random.Random(2)
    weights = Weights(*[rng.gauss(0, 1) for _ in NO_WEIGHTS])
    for _ in range(1000):
        trace = (
            rng.randrange(50),
            rng.choice([0, rng.randrange(1000, 9000)]),
            rng.randrange(4),
            rng.randrange(4),
            rng.random() < 0.5,
        )
        case = (
            rng.randrange(3),
            rng.randrange(3),
            rng.choice([0.0, 700.0, 19_000.0]),
            rng.gauss(0, 0.2),
            rng.choice([NEVER_MET, trace]),
            rng.randrange(50, 60),
            rng.choice([0.0, 900.0, 20_000.0]),
        )
        summed = sum(w * x for w, x in zip(weights, features(*case), strict=True))
        assert advantage(weights, *case) == pytest.approx(summed, abs=1e-12)


def test_without_times_only_the_order_counts():
    row = features(1, 0, 0.0, 0.0, (3, 0, 1, 0, True), 7, 0.0)
    named = dict(zip(Weights._fields, row, strict=True))
    assert named["item_recency"] == 0.5
    for name in ("topic_age", "topic_day", "item_age", "item_minutes", "item_day"):
        assert named[name] == 0.0


def test_an_item_from_the_future_counts_as_just_answered():
    late = features(1, 0, 900.0, 0.0, (5, 900, 1, 0, True), 5, 600.0)
    now = features(1, 0, 600.0, 0.0, (4, 600, 1, 0, True), 5, 600.0)
    assert late == now


def test_form_moves_a_fifth_of_the_way_to_the_surprise():
    assert next_form(0.1, 0.75, True) == pytest.approx(0.1 + 0.2 * (0.25 - 0.1))
    assert plug_in(0.0, 1.0, 0.0, 0.25, math.log(3.0)) == pytest.approx(0.25 + 0.75 * 0.75)
    assert plug_in(-900.0, 2.0, 50.0, 0.0, 0.0) == pytest.approx(0.0, abs=1e-200)


def test_published_weights_are_read_by_name_and_bad_ones_are_refused():
    weights = NO_WEIGHTS._replace(seen=0.4, item_age=-0.1)
    assert weights_from(weights._asdict()) == weights
    assert weights_from({}) == NO_WEIGHTS
    with pytest.raises(ValueError, match="unknown weights charm"):
        weights_from({"charm": 1.0})
    for bad in (float("nan"), float("inf"), 21.0):
        with pytest.raises(ValueError, match="seen"):
            weights_from({"seen": bad})


def test_with_no_weights_following_is_the_plain_ability_filter():
    rng = np.random.default_rng(4)
    state = LearnerState()
    g, triple = ability.initial_global(), ability.initial_topic()
    for n in range(60):
        a, b = float(np.exp(rng.normal(0, 0.3))), float(rng.normal())
        correct = bool(rng.random() < 0.6)
        state.step(n % 7, 0, correct, a, b)
        new = ability.fold(*g, *triple, a, b, 0.0, correct, n, n)
        g, triple = new[:2], new[2:]
    assert (state.g, state.vg) == g
    assert tuple(state.topic(0)[:3]) == triple


def test_predictions_do_not_see_their_own_answer_or_later_ones():
    rng = np.random.default_rng(5)
    n = 40
    weights = Weights(*rng.normal(0, 0.3, len(NO_WEIGHTS)).tolist())
    item = rng.integers(0, 8, n)
    columns = (np.zeros(n, int), item, item % 3 - 1)
    times = np.arange(n) * 50.0 + 1000.0
    correct = rng.random(n) < 0.5
    changed = correct.copy()
    changed[25:] = ~changed[25:]
    ones, zeros = np.ones(n), np.zeros(n)
    first, second = (
        follow(
            AttemptLog(*columns, answers, times, times + 20.0, 1, 8, 2),
            *(ones, zeros, zeros, zeros, zeros),
            weights,
        )
        for answers in (correct, changed)
    )
    assert first.probability[:26].tolist() == second.probability[:26].tolist()
    assert (first.probability[26:] != second.probability[26:]).all()


@pytest.mark.parametrize("memory_items", [0, 1, 5, 1024])
def test_the_compiled_loop_is_the_plain_one(memory_items):
    # Learners of several lengths, items with and without topic, times missing, equal and backwards,
    # more items than are remembered, counts beyond 255.
    rng = np.random.default_rng(6)
    sizes = [1, 700, 2, 90, 40]
    learner = np.repeat([0, 1, 3, 4, 6], sizes)
    n = len(learner)
    item = np.where(rng.random(n) < 0.5, 3, rng.integers(0, 12, n))
    end = np.where(rng.random(n) < 0.1, 0.0, 1e9 + rng.integers(0, 400_000, n))
    a, c = np.exp(rng.normal(0, 0.3, 12)), rng.uniform(0, 0.3, 12)
    b, b_var, recall = rng.normal(size=12), rng.uniform(0, 0.5, 12), rng.normal(size=12)
    log = AttemptLog(
        learner, item, item % 4 - 1, rng.random(n) < 0.6, np.maximum(end - 20, 0), end, 7, 12, 3
    )
    weights = Weights(*rng.normal(0, 0.3, len(NO_WEIGHTS)).tolist())
    config = ability.FilterConfig(prior_mean=0.3, topic_var=0.2, drift=0.02, topic_drift=0.004)
    items = (x[item] for x in (a, b, c, b_var, recall))
    given = (log, *items, weights, config, memory_items)
    compiled, plain = follow(*given), follow_plainly(*given)
    for name in ("probability", "mean", "variance", "features"):
        assert getattr(compiled, name) == pytest.approx(getattr(plain, name), abs=1e-12), name


def test_an_empty_log_is_followed_to_nothing():
    none = np.empty(0)
    log = AttemptLog(*[np.empty(0, np.int64)] * 3, none > 0, none, none, 0, 0, 0)
    assert follow(log, *[none] * 5).features.shape == (0, len(NO_WEIGHTS))
