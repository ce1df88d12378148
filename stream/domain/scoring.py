"""Batch ability scores: exact expected a posteriori (EAP) on a grid.

For checks, back-filling and the scoring service. The live filter (`ability`) approximates
what this computes exactly, for a learner who does not change.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream.domain.irt import FloatArray, log_likelihood_array

__all__ = ["GRID_LIMIT", "GRID_POINTS", "Scores", "eap_scores"]

GRID_LIMIT = 5.0
"""The grid spans the group's mean +- this many standard deviations."""

GRID_POINTS = 41
"""Points of the grid; more are taken when a learner's posterior would fall between them."""

_BLOCK = 65_536
"""Responses whose log-likelihoods are held at once (points x 8 bytes each)."""


class Scores(NamedTuple):
    """Ability of each learner."""

    theta: FloatArray
    """(n_learners,) posterior mean, logits; the group's mean without any response."""
    se: FloatArray
    """(n_learners,) posterior standard deviation, logits, > 0."""


def eap_scores(
    learner: ArrayLike,
    item: ArrayLike,
    correct: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    c: ArrayLike = 0.0,
    *,
    n_learners: int | None = None,
    mean: float = 0.0,
    sd: float = 1.0,
) -> Scores:
    """Score learners from sparse responses.

    Parameters
    ----------
    learner, item
        (n,) integer indices of who answered what, in any order.
    correct
        (n,) bool or 0/1.
    a, b, c
        Item parameters, (n_items,) or scalars, logistic metric D = 1.
    n_learners
        Number of learners; by default the largest index + 1.
    mean, sd
        The group's normal prior, logits.

    Returns
    -------
    Scores
        Finite for every pattern: all right, all wrong, none.

    Raises
    ------
    ValueError
        Arrays of different lengths, or sd not positive.

    References
    ----------
    Bock & Mislevy (1982), Applied Psychological Measurement 6, 431-444, eq. 5-6.

    Examples
    --------
    >>> scores = eap_scores([0, 0], [0, 1], [1, 0], a=[1.0, 1.0], b=[0.0, 0.0])
    >>> round(float(abs(scores.theta[0])), 9)
    0.0
    """
    learner, item = np.asarray(learner, np.int64), np.asarray(item, np.int64)
    correct = np.asarray(correct, bool)
    if not len(learner) == len(item) == len(correct):
        raise ValueError("learner, item and correct must have the same length")
    if sd <= 0.0:
        raise ValueError(f"the group's sd is {sd}; it must be positive")
    n_items = max(int(item.max(initial=0)) + 1, *(np.size(p) for p in (a, b, c)))
    a, b, c = (np.broadcast_to(np.asarray(p, np.float64), n_items) for p in (a, b, c))
    if n_learners is None:
        n_learners = int(learner.max(initial=-1)) + 1
    x, log_prior = _grid(learner, n_learners, float(np.mean(a**2)))
    theta = mean + sd * x
    columns = a[:, None], b[:, None], c[:, None]
    table = np.concatenate([log_likelihood_array(theta, *columns, u) for u in (False, True)])
    log_posterior = _sum_by_learner(learner, item + correct * len(a), table, n_learners)
    log_posterior += log_prior
    log_posterior -= log_posterior.max(axis=1, keepdims=True)
    weight = np.exp(log_posterior)
    weight /= weight.sum(axis=1, keepdims=True)
    first = weight @ theta
    spread = (weight * (theta - first[:, None]) ** 2).sum(axis=1)
    return Scores(first, np.sqrt(spread))


def _grid(
    learner: NDArray[np.int64], n_learners: int, mean_square_a: float
) -> tuple[FloatArray, FloatArray]:
    """Return points in prior standard deviations and the log prior there."""
    most = int(np.bincount(learner, minlength=n_learners).max(initial=0))
    # An answer informs by a^2 / 4 at most; the step must not exceed 1.25 posterior sd.
    precision = 1.0 + 0.25 * mean_square_a * most
    needed = 1 + 2 * int(np.ceil(GRID_LIMIT * np.sqrt(precision) / 1.25))
    points = min(401, max(GRID_POINTS, needed))
    x = np.linspace(-GRID_LIMIT, GRID_LIMIT, points)
    return x, -0.5 * x**2


def _sum_by_learner(
    learner: NDArray[np.int64], row: NDArray[np.int64], table: FloatArray, n_learners: int
) -> FloatArray:
    """Add up each learner's rows of the table, (n_learners, n_points)."""
    total = np.zeros((n_learners, table.shape[1]))
    order = np.argsort(learner, kind="stable")
    for start in range(0, len(order), _BLOCK):
        part = order[start : start + _BLOCK]
        who = learner[part]
        first = np.flatnonzero(np.diff(who, prepend=-1))
        # A learner may straddle two blocks, hence +=; within one it has one entry.
        total[who[first]] += np.add.reduceat(table[row[part]], first, axis=0)
    return total
