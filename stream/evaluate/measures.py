"""How good predictions are: AUC, log-loss, Brier, calibration error, with intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.domain.irt import FloatArray

__all__ = ["Bins", "Measured", "calibration_bins", "intervals", "measure"]

N_BINS = 15
"""Groups of equally many predictions, from the lowest to the highest."""

N_RESAMPLES = 400
"""Bootstrap resamples of whole learners."""

_LEAST = 1e-9  # probabilities are kept this far from 0 and 1

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class Measured(NamedTuple):
    """Measures of one method on one set of attempts."""

    auc: float
    """nan where all answers are alike."""
    log_loss: float
    brier: float
    calibration_error: float
    """Mean |observed - predicted| over the bins, each weighted by its size."""
    n: int


class Bins(NamedTuple):
    """Predictions grouped by size, each (number of bins,)."""

    predicted: FloatArray
    observed: FloatArray
    n: IntArray


def measure(correct: BoolArray, probability: FloatArray) -> Measured:
    """Measure predictions (n,) against what happened (n,)."""
    bins = calibration_bins(correct, probability)
    error = float(np.average(np.abs(bins.observed - bins.predicted), weights=bins.n))
    return Measured(
        _Auc(correct, probability).value(np.ones(len(correct))),
        float(_losses(correct, probability).mean()),
        float(np.mean((probability - correct) ** 2)),
        error,
        len(correct),
    )


def calibration_bins(correct: BoolArray, probability: FloatArray, n_bins: int = N_BINS) -> Bins:
    """Group predictions into bins of equal size."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, n_bins) if len(part)]
    return Bins(
        np.array([probability[part].mean() for part in parts]),
        np.array([correct[part].mean() for part in parts]),
        np.array([len(part) for part in parts], np.int64),
    )


def intervals(
    learner: IntArray,
    correct: BoolArray,
    methods: dict[str, FloatArray],
    reference: str,
    seed: int = 1,
    resamples: int = N_RESAMPLES,
) -> dict[str, dict[str, tuple[float, float]]]:
    """95 % intervals of AUC and log-loss, and of the gain over one method.

    Whole learners are drawn with replacement, the same ones for every method, so the gains
    are paired.

    Returns
    -------
    dict
        method -> {"auc", "log_loss", "auc_gain", "log_loss_gain"} -> (low, high); a gain is
        positive where the method is better than ``reference``.
    """
    rng = np.random.default_rng(seed)
    _, who = np.unique(learner, return_inverse=True)
    n_learners = int(who.max()) + 1
    draws = rng.multinomial(n_learners, np.full(n_learners, 1.0 / n_learners), resamples)
    curves = {name: _Auc(correct, p) for name, p in methods.items()}
    losses = {
        name: np.bincount(who, _losses(correct, p), n_learners) for name, p in methods.items()
    }
    sizes = np.bincount(who, minlength=n_learners)
    auc = {
        name: np.array([curve.value(draw[who]) for draw in draws]) for name, curve in curves.items()
    }
    loss = {name: (draws @ total) / (draws @ sizes) for name, total in losses.items()}
    return {
        name: {
            "auc": _middle(auc[name]),
            "log_loss": _middle(loss[name]),
            "auc_gain": _middle(auc[name] - auc[reference]),
            "log_loss_gain": _middle(loss[reference] - loss[name]),
        }
        for name in methods
    }


def _middle(values: FloatArray) -> tuple[float, float]:
    low, high = (
        np.nanpercentile(values, (2.5, 97.5)) if not np.isnan(values).all() else (np.nan,) * 2
    )
    return float(low), float(high)


def _losses(correct: BoolArray, probability: FloatArray) -> FloatArray:
    right = np.where(correct, probability, 1.0 - probability)
    return np.asarray(-np.log(np.clip(right, _LEAST, 1.0)), np.float64)


class _Auc:
    """Area under the ROC curve of fixed predictions under changing weights."""

    def __init__(self, correct: BoolArray, probability: FloatArray) -> None:
        self._order = np.argsort(probability, kind="stable")
        self._correct = correct[self._order]
        ordered = probability[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def value(self, weight: NDArray[np.generic]) -> float:
        """Chance that a right answer was rated above a wrong one, ties half."""
        ordered = weight[self._order].astype(np.float64)
        right = np.add.reduceat(ordered * self._correct, self._starts)
        wrong = np.add.reduceat(ordered * ~self._correct, self._starts)
        below = np.cumsum(wrong) - 0.5 * wrong
        pairs = right.sum() * wrong.sum()
        return float((right * below).sum() / pairs) if pairs else float("nan")
