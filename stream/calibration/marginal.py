"""The E-step: posteriors of sparse learners over a grid of abilities.

One row a learner and one column an (item, score): the log-likelihoods of all learners at
all nodes are one sparse product, the expected answers of all items another. No dense
learner x item array is ever made.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from stream.domain.irt import FloatArray

__all__ = ["IntArray", "Marginal", "Moments", "Responses", "log_probabilities"]

IntArray = NDArray[np.int64]

_GRID_LIMIT = 6.0
"""The grid spans the group's mean +- this many standard deviations."""

_CHUNK = 16_384
"""Learners whose posterior is held at once: a few MB, about a processor cache."""


@dataclass(frozen=True, slots=True)
class Responses:
    """Scored answers in long form; a learner may answer an item more than once.

    Parameters
    ----------
    learner, item
        (n,) int64 indices, 0 <= learner < n_learners, 0 <= item < n_items.
    correct
        (n,) bool.
    n_learners, n_items
        Sizes; every learner and every item has at least one response.
    """

    learner: IntArray
    item: IntArray
    correct: NDArray[np.bool_]
    n_learners: int
    n_items: int


class Moments(NamedTuple):
    """What an E-step yields."""

    right: FloatArray
    """(n_items, n_nodes) expected correct answers at each node."""
    wrong: FloatArray
    loglik: float
    """Marginal log-likelihood of all learners."""
    node_share: FloatArray
    """(n_nodes,) the learners' mean posterior."""


def log_probabilities(
    a: FloatArray, b: FloatArray, c: FloatArray, theta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Log-probability of a wrong and of a right answer, each (n_items, n_nodes)."""
    x = a[:, None] * (theta - b[:, None])
    log_rise = -np.logaddexp(0.0, -x)
    guess = c[:, None]
    wrong = np.log1p(-guess) + log_rise - x
    if not c.any():
        return wrong, log_rise
    return wrong, np.log(guess + (1.0 - guess) * np.exp(log_rise))


class Marginal:
    """Responses arranged for E-steps, with the grid chosen to suit them.

    Parameters
    ----------
    responses
        The data.
    """

    def __init__(self, responses: Responses) -> None:
        r = responses
        self.n_items = r.n_items
        self.n_learners = r.n_learners
        self.n_responses = len(r.learner)
        # The trapezoid rule on a smooth peak errs by 2 exp(-2 (pi sd / step)^2): steps of
        # 1.25 posterior sd leave 7e-6. An answer to a typical item informs by about .2.
        most = float(np.quantile(np.bincount(r.learner, minlength=r.n_learners), 0.95))
        half = math.ceil(_GRID_LIMIT / 1.25 * math.sqrt(1.0 + 0.2 * most))
        half = min(60, max(20, half))
        self.nodes: FloatArray = np.linspace(-_GRID_LIMIT, _GRID_LIMIT, 2 * half + 1)
        density = np.exp(-0.5 * self.nodes**2)
        self._log_weight: FloatArray = np.log(density / density.sum())
        columns = r.item + r.n_items * r.correct.astype(np.int64)
        matrix = csr_matrix(  # type: ignore[no-untyped-call]
            (np.ones(len(r.learner)), (r.learner, columns)), shape=(r.n_learners, 2 * r.n_items)
        )
        self._chunks = [matrix[i : i + _CHUNK] for i in range(0, r.n_learners, _CHUNK)]

    def posteriors(
        self, wrong: FloatArray, right: FloatArray
    ) -> Iterator[tuple[csr_matrix, FloatArray, float]]:
        """Walk through the learners in chunks.

        Yields
        ------
        tuple
            The chunk's rows (counts; columns: items wrong, then items right), its
            posterior over the nodes (rows sum to 1), its log-likelihood.
        """
        table = np.concatenate([wrong, right])
        for chunk in self._chunks:
            p: FloatArray = chunk @ table
            p += self._log_weight
            top = p.max(axis=1, keepdims=True)
            p -= top
            np.exp(p, out=p)
            total = p.sum(axis=1, keepdims=True)
            p /= total
            yield chunk, p, float(np.log(total).sum() + top.sum())

    def e_step(self, wrong: FloatArray, right: FloatArray) -> Moments:
        """Compute the expected answers at each node, given the items' log-probabilities there."""
        counts = np.zeros((2 * self.n_items, len(self.nodes)))
        share = np.zeros(len(self.nodes))
        loglik = 0.0
        for chunk, p, part in self.posteriors(wrong, right):
            counts += chunk.T @ p
            share += p.sum(axis=0)
            loglik += part
        k = self.n_items
        return Moments(counts[k:], counts[:k], loglik, share / self.n_learners)

    def abilities(
        self, wrong: FloatArray, right: FloatArray, mean: float, sd: float
    ) -> tuple[FloatArray, FloatArray]:
        """EAP theta and posterior standard deviation of each learner, (n_learners,)."""
        means, sds = [], []
        for _, p, _ in self.posteriors(wrong, right):
            first = p @ self.nodes
            means.append(first)
            sds.append(np.sqrt(np.maximum(p @ self.nodes**2 - first**2, 1e-12)))
        return mean + sd * np.concatenate(means), sd * np.concatenate(sds)
