"""The M-step: item parameters that raise the expected log-posterior, all items at once.

Items are rows (log a, b, logit c) of an (n_items, 3) array; a mask says which may move.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.calibration.marginal import Moments, log_probabilities
from stream.domain.irt import MAX_ABS_DIFFICULTY, MAX_SLOPE, FloatArray

__all__ = [
    "NO_GUESSING",
    "NO_PRIORS",
    "Derivatives",
    "Priors",
    "at_bound",
    "clip",
    "curves",
    "derivatives",
    "maximise",
    "score_parts",
]

NO_GUESSING = -40.0
"""logit c that stands for c = 0, finite so that the acceleration can subtract."""

_LOWER = np.array([math.log(0.02), -MAX_ABS_DIFFICULTY, -7.0])
_UPPER = np.array([math.log(MAX_SLOPE), MAX_ABS_DIFFICULTY, 0.5])
"""Limits of log a, b, logit c: far outside any sensible item, so that a fit without
priors ends instead of running to infinity. Items there are reported."""

_LONGEST_STEP = np.array([0.7, 1.5, 1.0])
"""Longest Newton step: beyond it the quadratic is not to be believed."""


@dataclass(frozen=True, slots=True)
class Priors:
    """Weak priors: what keeps an extreme or hardly answered item from ruining itself.

    The means of log a and b are not assumed but estimated with the items (empirical
    Bayes), so that an item is drawn towards its kind and not towards a fixed number.
    With one common slope (1PL) log a has mean 0.
    """

    log_a_sd: float = 0.5
    """Standard deviation of log a between items: 95 % of slopes within a factor 2.7."""

    b_sd: float = 3.0
    """Standard deviation of b between items (logits), three times the learners' own."""

    c_alpha: float = 5.0
    """Beta prior of c: mode (alpha - 1) / (alpha + beta - 2) = .2 ..."""

    c_beta: float = 17.0
    """... with the weight of 20 answers by learners without a clue."""

    centre_weight: float = 4.0
    """Items' worth of belief that the means of log a and b are 0; matters with few items."""

    def centres(self, items: FloatArray, common_slope: bool) -> tuple[float, float]:
        """Prior means of log a and b: what the items themselves say."""
        if math.isinf(self.b_sd):
            return 0.0, 0.0
        log_a, b = items[:, :2].sum(axis=0) / (len(items) + self.centre_weight)
        return (0.0 if common_slope else float(log_a)), float(b)

    def log_density(
        self, items: FloatArray, free: NDArray[np.bool_], centres: tuple[float, float]
    ) -> FloatArray:
        """Each item's part of the log prior, constants dropped, (n_items,)."""
        total = -0.5 * ((items[:, 0] - centres[0]) / self.log_a_sd) ** 2
        total = total - 0.5 * ((items[:, 1] - centres[1]) / self.b_sd) ** 2
        log_c = -np.logaddexp(0.0, -items[:, 2])
        guess = (self.c_alpha - 1) * log_c + (self.c_beta - 1) * (log_c - items[:, 2])
        return np.where(free[:, 2], total + guess, total)

    def log_density_of_centres(self, centres: tuple[float, float]) -> float:
        """Return what the prior means themselves cost."""
        return (
            -0.5
            * self.centre_weight
            * ((centres[0] / self.log_a_sd) ** 2 + (centres[1] / self.b_sd) ** 2)
        )

    def derivatives(
        self, items: FloatArray, centres: tuple[float, float]
    ) -> tuple[FloatArray, FloatArray]:
        """First derivative and negative second of `log_density`, each (n_items, 3)."""
        c = 1.0 / (1.0 + np.exp(-items[:, 2]))
        weight = self.c_alpha + self.c_beta - 2.0
        first = np.column_stack(
            [
                -(items[:, 0] - centres[0]) / self.log_a_sd**2,
                -(items[:, 1] - centres[1]) / self.b_sd**2,
                (self.c_alpha - 1) - weight * c,
            ]
        )
        second = np.column_stack(
            [
                np.full(len(items), self.log_a_sd**-2),
                np.full(len(items), self.b_sd**-2),
                weight * c * (1.0 - c),
            ]
        )
        return first, second


NO_PRIORS = Priors(math.inf, math.inf, 1.0, 1.0, 0.0)
"""Plain maximum likelihood, to reproduce published estimates."""


def curves(items: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (a, b, c) of the rows."""
    c = 1.0 / (1.0 + np.exp(-items[:, 2]))
    return np.exp(items[:, 0]), items[:, 1], np.where(items[:, 2] <= NO_GUESSING, 0.0, c)


def clip(items: FloatArray, free: NDArray[np.bool_]) -> FloatArray:
    """Bring free parameters back inside their limits."""
    return np.where(free, np.clip(items, _LOWER, _UPPER), items)


def at_bound(items: FloatArray, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Items with a free slope or difficulty at its limit, (n_items,)."""
    touching = (items <= _LOWER) | (items >= _UPPER)
    return np.asarray((touching & free)[:, :2].any(axis=1), np.bool_)


def score_parts(
    items: FloatArray, theta: FloatArray
) -> tuple[FloatArray, tuple[FloatArray, FloatArray, FloatArray]]:
    """Probability correct, and what turns a residual into a score, at the nodes.

    Returns
    -------
    tuple
        P, (n_items, n_nodes), and three arrays z like it: the score of one answer u for
        (log a, b, logit c) is (u - P) z, its information P (1 - P) z z'. With L the
        logistic part these hold L / P and c / P, so that nothing divides by a vanishing Q.
    """
    a, b, c = curves(items)
    x = a[:, None] * (theta - b[:, None])
    rise = 1.0 / (1.0 + np.exp(-np.clip(x, -500.0, 500.0)))
    p = c[:, None] + (1.0 - c[:, None]) * rise
    by_x = rise / p
    return p, (by_x * x, by_x * -a[:, None], c[:, None] / p)


class Derivatives(NamedTuple):
    """Of the expected complete-data log-likelihood, by (log a, b, logit c)."""

    score: FloatArray
    """(n_items, 3)."""
    expected: FloatArray
    """(n_items, 3, 3) Fisher information: positive semi-definite, the scale of a step."""
    observed: FloatArray
    """(n_items, 3, 3) negative second derivatives: the curvature itself."""


def derivatives(items: FloatArray, moments: Moments, theta: FloatArray) -> Derivatives:
    """First and second derivatives, all items at once."""
    a, _, c = curves(items)
    p, parts = score_parts(items, theta)
    right, wrong = moments.right, moments.wrong
    by_x, guess = parts[1] / -a[:, None], c[:, None]
    rise = by_x * p
    n = right + wrong
    weight = n * p * (1.0 - p)
    residual = right - n * p
    score = np.stack([(residual * part).sum(axis=1) for part in parts], axis=1)
    # Second derivatives of log P and log Q in x = a (theta - b) and in logit c.
    fall = 1.0 - rise
    right_x, right_c = by_x * (1.0 - guess) * fall, parts[2] * fall * (1.0 - guess)
    xx = right * right_x * (1.0 - 2.0 * rise - right_x) - wrong * rise * fall
    cc = right * right_c * (1.0 - 2.0 * guess - right_c) - wrong * guess * (1.0 - guess)
    xc = -right * right_x * (guess + right_c)
    x = np.divide(parts[0], by_x, out=np.zeros_like(by_x), where=by_x > 0.0)
    inner = (x, np.broadcast_to(-a[:, None], x.shape))
    expected, observed = np.empty((2, len(items), 3, 3))
    for i in range(3):
        for j in range(i + 1):
            curved = cc if j == 2 else inner[j] * (xc if i == 2 else xx * inner[i])
            expected[:, i, j] = expected[:, j, i] = (weight * parts[i] * parts[j]).sum(axis=1)
            observed[:, i, j] = observed[:, j, i] = -curved.sum(axis=1)
    # x bends in its own parameters: d2x / dlog a2 = x, d2x / dlog a db = -a.
    observed[:, 0, 0] -= score[:, 0]
    observed[:, 0, 1] -= score[:, 1]
    observed[:, 1, 0] -= score[:, 1]
    return Derivatives(score, expected, observed)


def maximise(
    items: FloatArray,
    free: NDArray[np.bool_],
    moments: Moments,
    theta: FloatArray,
    priors: Priors,
    common_slope: bool = False,
    rounds: int = 2,
) -> FloatArray:
    """Return item parameters with a higher expected log-posterior.

    Newton steps, with the step of each item cut until it gains: a generalised M-step, so
    that the EM's ascent holds.

    Parameters
    ----------
    items, free
        (n_items, 3) parameters and which may move.
    moments, theta
        Of the E-step; abilities at the nodes.
    priors
        See `Priors`.
    common_slope
        The 1PL: the free items share one slope.
    rounds
        Newton steps at most.

    Returns
    -------
    FloatArray
        (n_items, 3), inside the limits.
    """
    centres = priors.centres(items, common_slope)
    # The common slope's prior counts once, not once an item.
    share = np.array([1.0 / max(1, int(free[:, 0].sum())) if common_slope else 1.0, 1.0, 1.0])

    def gain(at: FloatArray) -> FloatArray:
        wrong, right = log_probabilities(*curves(at), theta)
        total = (moments.right * right + moments.wrong * wrong).sum(axis=1)
        if common_slope:
            log_a = 0.5 * ((at[:, 0] - centres[0]) / priors.log_a_sd) ** 2
            total = total + log_a * (1.0 - share[0])
        total = total + priors.log_density(at, free, centres)
        return np.broadcast_to(total.sum(), total.shape) if common_slope else total

    value = gain(items)
    for _ in range(rounds):
        score, expected, observed = derivatives(items, moments, theta)
        first, second = priors.derivatives(items, centres)
        score = np.where(free, score + share * first, 0.0)
        both_free = free[:, :, None] & free[:, None, :]
        # The ridge is for items without any information in some direction: no step there.
        ridge = np.eye(3) * np.where(free, share * second + 1e-9, 1.0)[:, :, None]
        expected = np.where(both_free, expected, 0.0) + ridge
        if common_slope:
            step = _common_step(score, expected, free)
        else:
            step = _step(score, expected, np.where(both_free, observed, 0.0) + ridge)
        longest = np.max(np.abs(step) / _LONGEST_STEP, axis=1, keepdims=True)
        if common_slope:  # one item's long way must not hold the others back
            step = np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        else:  # shortened as a whole: cut by component it might point downhill
            step = step / np.maximum(1.0, longest)
        # Ask for a fair share of the gain the slope promises (Armijo): steps that only
        # just gain may undo each other for ever.
        promised = (score * step).sum(axis=1)
        if common_slope:
            promised = np.broadcast_to(promised.sum(), promised.shape)
        scale = np.ones(len(items))
        for _ in range(10):
            trial = clip(items + scale[:, None] * step, free)
            reached = gain(trial)
            short = reached < value + 0.1 * scale * promised - 1e-9 * (1.0 + np.abs(value))
            if not short.any():
                break
            scale[short] *= 0.4
        else:
            scale[short] = 0.0
            trial = clip(items + scale[:, None] * step, free)
            reached = gain(trial)
        items, value = trial, reached
        if np.max(np.abs(scale[:, None] * step), initial=0.0) < 1e-6:
            break
    return items


def _step(score: FloatArray, expected: FloatArray, observed: FloatArray) -> FloatArray:
    """Newton step of each item, (n_items, 3).

    The observed curvature is taken in units of the expected one, so that its eigenvalues
    are about 1, and kept positive there: a ridge of the 3PL may curve upwards.
    """
    root = np.linalg.inv(np.linalg.cholesky(expected))
    values, vectors = np.linalg.eigh(root @ observed @ root.transpose(0, 2, 1))
    axes = root.transpose(0, 2, 1) @ vectors
    along = (axes.transpose(0, 2, 1) @ score[:, :, None])[:, :, 0] / np.maximum(values, 0.25)
    return np.asarray((axes @ along[:, :, None])[:, :, 0])


def _common_step(score: FloatArray, information: FloatArray, free: NDArray[np.bool_]) -> FloatArray:
    """Newton step with one log a for all free items (b of each eliminated)."""
    own = information[:, 1, 1]
    cross = np.where(free[:, 0], information[:, 0, 1], 0.0)
    curvature = float(np.where(free[:, 0], information[:, 0, 0] - cross**2 / own, 0.0).sum())
    slope = float((score[:, 0] - cross / own * score[:, 1]).sum())
    slope = slope / curvature if curvature > 0.0 else 0.0
    step = np.zeros_like(score)
    step[:, 0] = np.where(free[:, 0], slope, 0.0)
    step[:, 1] = np.where(free[:, 1], (score[:, 1] - cross * slope) / own, 0.0)
    return step
