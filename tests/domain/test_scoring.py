"""Batch EAP: against a plain sum over a fine grid."""

import numpy as np
import pytest

from stream.domain.irt import probability_correct_array
from stream.domain.scoring import eap_scores

A, B, C = np.array([0.7, 1.2, 2.0, 1.0]), np.array([-1.0, 0.0, 0.5, 2.0]), np.array([0, 0.2, 0, 0])


def by_hand(items, correct, mean=0.0, sd=1.0):
    theta = np.linspace(mean - 8 * sd, mean + 8 * sd, 4001)
    log_weight = -0.5 * ((theta - mean) / sd) ** 2
    for i, right in zip(items, correct, strict=True):
        p = probability_correct_array(theta, A[i], B[i], C[i])
        log_weight += np.log(p if right else 1 - p)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    first = float(weight @ theta)
    return first, float(np.sqrt(weight @ (theta - first) ** 2))


def test_every_pattern_is_scored_as_by_hand_in_any_order_of_rows():
    patterns = [
        ([0, 1, 2, 3], [1, 1, 1, 1]),
        ([0, 1, 2, 3], [0, 0, 0, 0]),
        ([2], [1]),
        ([3, 1], [1, 0]),
    ]
    learner = np.concatenate([[k] * len(items) for k, (items, _) in enumerate(patterns)])
    item = np.concatenate([items for items, _ in patterns])
    correct = np.concatenate([right for _, right in patterns])
    order = np.random.default_rng(1).permutation(len(item))
    scores = eap_scores(learner[order], item[order], correct[order], A, B, C)
    for k, pattern in enumerate(patterns):
        assert (scores.theta[k], scores.se[k]) == pytest.approx(by_hand(*pattern), abs=1e-4)


def test_a_group_of_its_own_moves_the_prior():
    scores = eap_scores([0, 0], [0, 2], [1, 0], A, B, C, mean=0.8, sd=1.3)
    expected = by_hand([0, 2], [1, 0], 0.8, 1.3)
    assert (scores.theta[0], scores.se[0]) == pytest.approx(expected, abs=1e-4)


def test_a_learner_without_responses_has_the_groups_mean_and_sd():
    scores = eap_scores([1], [0], [1], A, B, C, n_learners=3, mean=0.5, sd=2.0)
    assert scores.theta[[0, 2]] == pytest.approx([0.5, 0.5], abs=1e-9)
    assert scores.se[[0, 2]] == pytest.approx([2.0, 2.0], abs=1e-3)
    assert len(eap_scores([], [], [], A, B, C).theta) == 0


def test_long_logs_get_a_finer_grid():
    rng = np.random.default_rng(2)
    item = rng.integers(0, 3, 3000)
    correct = rng.random(3000) < probability_correct_array(0.613, A[item], B[item], C[item])
    scores = eap_scores(np.zeros(3000, int), item, correct, A, B, C)
    assert (scores.theta[0], scores.se[0]) == pytest.approx(by_hand(item, correct), abs=1e-4)


def test_many_learners_across_blocks_recover_their_abilities():
    rng = np.random.default_rng(3)
    theta = rng.normal(0, 1, 3000)
    a, b = np.exp(rng.normal(0, 0.3, 200)), rng.normal(0, 1, 200)
    learner, item = np.repeat(np.arange(3000), 50), rng.integers(0, 200, 150_000)
    correct = rng.random(150_000) < probability_correct_array(theta[learner], a[item], b[item])
    scores = eap_scores(learner, item, correct, a, b)
    assert np.sqrt(np.mean((scores.theta - theta) ** 2)) < 0.35
    assert np.mean(np.abs(scores.theta - theta) <= 1.96 * scores.se) == pytest.approx(
        0.95, abs=0.015
    )


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="same length"):
        eap_scores([0], [0, 1], [1], A, B, C)
    with pytest.raises(ValueError, match="positive"):
        eap_scores([0], [0], [1], A, B, C, sd=0.0)
