"""Measures of predictions."""

import numpy as np
import pytest

from stream.evaluate.measures import calibration_bins, intervals, measure


def test_measures_of_a_hand_checked_case():
    correct = np.array([True, False, True, False])
    found = measure(correct, np.array([0.9, 0.6, 0.6, 0.2]))
    assert found.auc == pytest.approx(3.5 / 4)  # one tie counts half
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.4, 0.6, 0.8]).mean())
    assert found.brier == pytest.approx(np.mean([0.01, 0.36, 0.16, 0.04]))
    assert found.calibration_error == pytest.approx(np.mean([0.1, 0.6, 0.4, 0.2]))
    assert found.n == 4


def test_auc_is_nan_where_all_answers_are_alike():
    assert np.isnan(measure(np.array([True, True]), np.array([0.4, 0.6])).auc)


def test_bins_hold_equal_shares_in_order():
    p = np.linspace(0.0, 1.0, 100)
    bins = calibration_bins(p > 0.5, p, n_bins=4)
    assert bins.n.tolist() == [25, 25, 25, 25]
    assert bins.observed.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_gain_over_itself_is_zero_and_a_better_method_has_a_positive_interval():
    rng = np.random.default_rng(1)
    learner = np.repeat(np.arange(60), 40)
    truth = 1.0 / (1.0 + np.exp(-rng.normal(0, 1.5, len(learner))))
    correct = rng.random(len(learner)) < truth
    noise = np.clip(truth + rng.normal(0, 0.3, len(learner)), 0.01, 0.99)
    found = intervals(learner, correct, {"good": truth, "poor": noise}, "poor")
    assert found["poor"]["auc_gain"] == (0.0, 0.0)
    assert found["good"]["auc_gain"][0] > 0.0
    assert found["good"]["log_loss_gain"][0] > 0.0
    low, high = found["good"]["auc"]
    assert low < measure(correct, truth).auc < high
