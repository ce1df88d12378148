"""Standard errors from the observed information (Louis 1982).

Observed information = complete-data information - what is lost because abilities are not
seen; the lost part is the posterior covariance of the complete-data score, summed over
learners. As a function of ability, each learner's score is expanded in polynomials
orthonormal under the learner's posterior, and every order adds one cross-product of a
learner x parameter matrix. Three orders are taken; two where learners gave so many answers that
their posteriors are narrow and the third would add nothing to see.

References
----------
Louis, T. A. (1982), J. R. Statist. Soc. B 44, 226-233, eq. 3.2.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from stream.calibration.marginal import IntArray, Marginal, Moments, log_probabilities
from stream.calibration.maximise import Priors, curves, derivatives, score_parts
from stream.domain.irt import FloatArray

__all__ = ["StandardErrors", "standard_errors"]

_SHORT_TEST = 100.0
"""Mean number of answers a learner below which three orders are taken. With one order at 40
answers, a slope's standard error on real data was .025 where it is .033."""

_FULL_PARAMETERS = 1500
_FULL_WORK = 5e10
"""Limits of the full matrix: parameters (18 MB), learners x parameters^2 (seconds). Beyond
them each item's own block is inverted: that leaves out what the items' errors have in
common through the scale, a few per cent where items are that many."""

_BLOCK = 65_536
"""Responses whose scores are held at once (nodes x 8 bytes each)."""


class StandardErrors(NamedTuple):
    """Of (log a, b, logit c), (n_items, 3); of the group's mean and log sd."""

    items: FloatArray
    """0 for what was fixed, nan where the information is not positive."""
    mean: float
    log_sd: float
    method: str
    """``observed`` (full matrix) or ``observed_by_item``."""


def standard_errors(
    marginal: Marginal,
    items: FloatArray,
    free: NDArray[np.bool_],
    mean: float,
    sd: float,
    priors: Priors,
    common_slope: bool,
    group_free: bool,
) -> StandardErrors:
    """Compute standard errors at the estimates (posterior ones, where there are priors).

    Parameters
    ----------
    marginal, items, free, mean, sd, priors, common_slope
        As in the fit, at its solution.
    group_free
        Whether mean and sd were estimated.

    Returns
    -------
    StandardErrors
        See there.
    """
    theta = mean + sd * marginal.nodes
    wrong, right = log_probabilities(*curves(items), theta)
    moments = marginal.e_step(wrong, right)
    complete = derivatives(items, moments, theta).observed
    _, prior = priors.derivatives(items, priors.centres(items, common_slope))
    if common_slope:
        prior[:, 0] /= max(1, int(free[:, 0].sum()))
    complete += np.eye(3) * prior[:, :, None]
    scores = _scores(items, theta)
    columns = _columns(free, common_slope)
    n_params = int(columns.max(initial=-1)) + 1
    if n_params <= _FULL_PARAMETERS and marginal.n_learners * n_params**2 <= _FULL_WORK:
        lost = _lost(marginal, wrong, right, scores, columns, sd if group_free else None)
        return _from_matrix(complete, lost, columns, sd if group_free else None, marginal)
    blocks = complete - _lost_by_item(marginal, wrong, right, scores, moments)
    if common_slope:
        blocks[:, 0, 1:] = blocks[:, 1:, 0] = 0.0
        blocks[:, 0, 0] = blocks[free[:, 0], 0, 0].sum()
    return _from_blocks(blocks, free, np.nan if group_free else 0.0)


def _columns(free: NDArray[np.bool_], common_slope: bool) -> IntArray:
    """Give the free parameters numbers, (n_items, 3); -1 for fixed ones."""
    columns = np.full(free.shape, -1, np.int64)
    columns[free] = np.arange(free.sum())
    if common_slope and free.any():
        columns[free[:, 0], 0] = 0
        columns[free[:, 1], 1] = 1 + np.arange(free[:, 1].sum())
    return columns


def _scores(items: FloatArray, theta: FloatArray) -> FloatArray:
    """Score of an answer at the nodes, (3, 2 n_items, n_nodes): wrong, then right."""
    p, parts = score_parts(items, theta)
    return np.stack([np.concatenate([-p * part, (1.0 - p) * part]) for part in parts])


def _orthonormal(p: FloatArray, x: FloatArray, orders: int) -> Iterator[FloatArray]:
    """Polynomials in x of order 1.. orthonormal under each row of p, (rows, n_nodes)."""
    found: list[FloatArray] = []
    power = np.broadcast_to(x, p.shape)
    for _ in range(orders):
        power = power - (p * power).sum(axis=1, keepdims=True)
        for q in found:
            power = power - (p * power * q).sum(axis=1, keepdims=True) * q
        norm = np.sqrt((p * power * power).sum(axis=1, keepdims=True))
        found.append(power / np.maximum(norm, 1e-12))
        yield found[-1]
        power = found[-1] * found[0]


def _coefficients(rows: csr_matrix, weight: FloatArray, score: FloatArray) -> FloatArray:
    """For each answer the sum over nodes of its score times its learner's weight."""
    learner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    parts = [
        np.einsum("rq,rq->r", score[rows.indices[i : i + _BLOCK]], weight[learner[i : i + _BLOCK]])
        for i in range(0, rows.nnz, _BLOCK)
    ]
    return np.asarray(np.concatenate(parts) * rows.data, np.float64)


def _lost(
    marginal: Marginal,
    wrong: FloatArray,
    right: FloatArray,
    scores: FloatArray,
    columns: IntArray,
    group_sd: float | None,
) -> FloatArray:
    """Information lost about all parameters jointly, the group's two last if it is free."""
    n_params = int(columns.max(initial=-1)) + 1
    x = marginal.nodes
    size = n_params + (2 if group_sd else 0)
    lost = np.zeros((size, size))
    orders = 3 if marginal.n_responses < _SHORT_TEST * marginal.n_learners else 2
    used = [k for k in range(3) if (columns[:, k] >= 0).any()]
    for rows, p, _ in marginal.posteriors(wrong, right):
        learner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        item = rows.indices % len(columns)
        for polynomial in _orthonormal(p, x, orders):
            weight = p * polynomial
            # Single precision: an error of 1e-7 against estimates good to 1e-2.
            root = np.zeros((rows.shape[0], size), np.float32)
            for k in used:
                column = columns[item, k]
                kept = column >= 0
                values = _coefficients(rows, weight, scores[k])[kept]
                root[:, :n_params] += csr_matrix(  # type: ignore[no-untyped-call]
                    (values.astype(np.float32), (learner[kept], column[kept])),
                    shape=(rows.shape[0], n_params),
                ).toarray()
            if group_sd:
                root[:, -2], root[:, -1] = weight @ x / group_sd, weight @ (x * x)
            lost += root.T @ root
    return lost


def _from_matrix(
    complete: FloatArray,
    lost: FloatArray,
    columns: IntArray,
    group_sd: float | None,
    marginal: Marginal,
) -> StandardErrors:
    information = -lost
    for i in range(3):
        for j in range(3):
            both = (columns[:, i] >= 0) & (columns[:, j] >= 0)
            np.add.at(information, (columns[both, i], columns[both, j]), complete[both, i, j])
    if group_sd:
        information[-2, -2] += marginal.n_learners / group_sd**2
        information[-1, -1] += 2.0 * marginal.n_learners
    information[np.diag_indices_from(information)] += 1e-9
    variance = np.diag(np.linalg.inv(information)) if information.size else np.zeros(0)
    se = np.sqrt(np.where(variance > 0.0, variance, np.nan))
    items = np.where(columns >= 0, np.append(se, 0.0)[columns], 0.0)
    mean, log_sd = (float(se[-2]), float(se[-1])) if group_sd else (0.0, 0.0)
    return StandardErrors(items, mean, log_sd, "observed")


def _lost_by_item(
    marginal: Marginal,
    wrong: FloatArray,
    right: FloatArray,
    scores: FloatArray,
    moments: Moments,
) -> FloatArray:
    """Information lost about each item alone, (n_items, 3, 3): no expansion is needed."""
    counts = np.concatenate([moments.wrong, moments.right])
    n_items = marginal.n_items
    lost = np.einsum("jq,kjq,ljq->jkl", counts, scores, scores, optimize=True)
    lost = lost[:n_items] + lost[n_items:]
    for rows, p, _ in marginal.posteriors(wrong, right):
        item = rows.indices % n_items
        means = [_coefficients(rows, p, score) for score in scores]
        for k in range(3):
            for j in range(3):
                lost[:, k, j] -= np.bincount(item, means[k] * means[j], minlength=n_items)
    return np.asarray(lost, np.float64)


def _from_blocks(blocks: FloatArray, free: NDArray[np.bool_], group_se: float) -> StandardErrors:
    blocks = np.where(free[:, :, None] & free[:, None, :], blocks, 0.0)
    blocks += np.eye(3) * np.where(free, 1e-9, 1.0)[:, :, None]
    variance = np.diagonal(np.linalg.inv(blocks), axis1=1, axis2=2)
    se = np.sqrt(np.where(variance > 0.0, variance, np.nan))
    return StandardErrors(np.where(free, se, 0.0), group_se, group_se, "observed_by_item")
