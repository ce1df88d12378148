"""Newton steps for weights and items together, on what the filter held before each answer.

An item has two effects, difficulty and recall (`stream.calibration.item_prior`), and a slope. The
items' effects are eliminated first, so that a step costs one small system of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.calibration.item_prior import EffectsPrior, ItemPrior
from stream.domain.attempt_log import AttemptLog
from stream.domain.irt import FloatArray
from stream.domain.practice import MAX_WEIGHT, Weights
from stream.follow import Followed

__all__ = ["WIDENING", "Candidate", "ItemTable", "Newton", "between"]

RIDGE = 16.0
"""Prior precision of a weight times the mean square of its feature, so that features of any unit
and rarity are held alike: with some hundred attempts the weights stay near 0, with 20,000 the
prior is not felt."""

LEAST_SQUARE = 0.02
"""A feature that hardly ever shows is held as if this were its mean square."""

LOG_SLOPE_SD = 0.25
"""Prior standard deviation of log a around 0."""

WIDENING = 0.3459  # (16 sqrt(3) / (15 pi))^2: logistic averaged over a normal
_SEEN = Weights._fields.index("seen")

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ItemTable:
    """Items by index, all (n_items,): 3PL parameters, variance of the difficulty, recall."""

    a: FloatArray
    b: FloatArray
    c: FloatArray
    b_var: FloatArray
    recall: FloatArray
    """Logits by which an item is easier than others once remembered."""

    def effects(self) -> FloatArray:
        """Return difficulty and recall, (n_items, 2)."""
        return np.stack([self.b, self.recall], axis=1)

    def at(
        self, item: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return the columns of some items as `stream.follow.follow` takes them."""
        return self.a[item], self.b[item], self.c[item], self.b_var[item], self.recall[item]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Parameters with what is followed: each attempt's item effects, jackknifed."""

    weights: FloatArray
    items: ItemTable
    effects: FloatArray
    """(n, 2): difficulty and recall."""
    b_var: FloatArray

    @classmethod
    def unjackknifed(cls, weights: FloatArray, items: ItemTable, item: IntArray) -> Candidate:
        """Follow everybody with the items' own effects; ``item`` (n,) is each attempt's."""
        return cls(weights, items, items.effects()[item], items.b_var[item])


@dataclass(frozen=True, slots=True)
class _Terms:
    """Score and information of each attempt's scaled predictor, and that predictor's parts."""

    score: FloatArray
    information: FloatArray
    load: FloatArray
    """(n, 2): derivatives by the item's difficulty and recall."""
    features: FloatArray


def between(old: Candidate, new: Candidate, step: float) -> Candidate:
    """Go part of the way; variances are the new ones."""
    if step == 1.0:
        return new
    items = replace(
        new.items,
        a=old.items.a ** (1.0 - step) * new.items.a**step,
        b=old.items.b + step * (new.items.b - old.items.b),
        recall=old.items.recall + step * (new.items.recall - old.items.recall),
    )
    return Candidate(
        old.weights + step * (new.weights - old.weights),
        items,
        old.effects + step * (new.effects - old.effects),
        new.b_var,
    )


class Newton:
    """Steps on one log.

    Parameters
    ----------
    log
        Whose attempts were followed.
    items_held
        Whether items stay as they are.
    recall
        Whether items that are fitted may have a recall, once the weight of ``seen`` is fitted.

    Attributes
    ----------
    prior
        Of the items.
    """

    def __init__(self, log: AttemptLog, items_held: bool, recall: bool = True) -> None:
        self.prior = ItemPrior(log)
        self._log = log
        self._items_held = items_held
        self._recall = recall
        pairs = log.learner * log.n_items + log.item
        _, first, self._pair = np.unique(pairs, return_index=True, return_inverse=True)
        self._item_of_pair = log.item[first]

    def step(
        self, now: Candidate, followed: Followed, active: NDArray[np.bool_], slopes: bool
    ) -> Candidate:
        """Go to the maximum, the filter's states held: a few Newton steps."""
        items, weights = now.items, now.weights
        away = now.effects - items.effects()[self._log.item]
        square = np.einsum("ij,ij->j", followed.features, followed.features) / max(
            1, len(self._log)
        )
        ridge = RIDGE * np.maximum(square, LEAST_SQUARE)
        if self._items_held:
            for _ in range(4):
                terms = self._terms(items, weights, followed, away, now.b_var)
                weights = self._weights_step(weights, terms, ridge, active)
            weights = np.clip(weights, -MAX_WEIGHT, MAX_WEIGHT)
            return Candidate(weights, items, now.effects, now.b_var)
        known = bool(items.recall.any())
        may = self._recall and bool(active[_SEEN] or known)
        for number in range(4):
            # Not at once: with no weight of `seen` yet, what all items gain would pass for recall.
            recall = may and (known or number > 0)
            terms = self._terms(items, weights, followed, away, now.b_var, recall)
            weights, items, prior = self._joint_step(items, weights, terms, ridge, active)
            if slopes:
                terms = self._terms(items, weights, followed, away, now.b_var, recall)
                items = self._slope_step(items, terms, followed, away)
        weights = np.clip(weights, -MAX_WEIGHT, MAX_WEIGHT)
        terms = self._terms(items, weights, followed, np.zeros_like(away), now.b_var, recall)
        return self._jackknifed(items, weights, terms, prior)

    def _terms(
        self,
        items: ItemTable,
        weights: FloatArray,
        followed: Followed,
        away: FloatArray,
        b_var: FloatArray,
        recall: bool = False,
    ) -> _Terms:
        item = self._log.item
        a, c = items.a[item], items.c[item]
        seen = followed.features[:, _SEEN]
        scale = 1.0 / np.sqrt(1.0 + WIDENING * a * a * (followed.variance + b_var))
        x = a * (followed.mean - items.b[item] - away[:, 0]) + followed.features @ weights
        x += seen * (items.recall[item] + away[:, 1])
        rises = 1.0 / (1.0 + np.exp(-np.clip(scale * x, -35.0, 35.0)))
        p = c + (1.0 - c) * rises
        slope = (1.0 - c) * rises * (1.0 - rises)
        ratio = slope / (p * (1.0 - p))
        return _Terms(
            (self._log.correct - p) * ratio,
            slope * ratio,
            np.stack([-scale * a, scale * seen * recall], axis=1),
            followed.features * scale[:, None],
        )

    def _weights_step(
        self, weights: FloatArray, terms: _Terms, ridge: FloatArray, active: NDArray[np.bool_]
    ) -> FloatArray:
        """One Newton step of the weights, the items held."""
        _, gradient, curvature = _weight_terms(weights, terms, ridge, active)
        new = weights.copy()
        new[active] += np.linalg.solve(curvature, gradient)
        return new

    def _joint_step(
        self,
        items: ItemTable,
        weights: FloatArray,
        terms: _Terms,
        ridge: FloatArray,
        active: NDArray[np.bool_],
    ) -> tuple[FloatArray, ItemTable, EffectsPrior]:
        """One Newton step of weights and item effects; the items are eliminated first."""
        n_items, item = self._log.n_items, self._log.item
        x, gradient, curvature = _weight_terms(weights, terms, ridge, active)
        effects = items.effects()
        of_items, data = _item_terms(item, terms, n_items)
        prior = self.prior.of_effects(effects, of_items, data)
        of_items = of_items - (effects - prior.mean) @ prior.precision
        inverse = np.linalg.inv(data + prior.precision)
        mixed = terms.load * terms.information[:, None]
        cross = np.empty((n_items, 2, x.shape[1]))
        for effect in range(2):
            for column in range(x.shape[1]):
                cross[:, effect, column] = _sums(item, mixed[:, effect] * x[:, column], n_items)
        eliminated = inverse @ cross
        reduced = curvature - np.einsum("nej,nek->jk", cross, eliminated)
        step = np.linalg.solve(reduced, gradient - np.einsum("nej,ne->j", eliminated, of_items))
        new = weights.copy()
        new[active] += step
        moved = np.einsum("nij,nj->ni", inverse, of_items - cross @ step)
        b, recall = (effects + np.clip(moved, -1.0, 1.0)).T
        return (
            new,
            replace(items, b=b, recall=recall, b_var=np.asarray(inverse[:, 0, 0], np.float64)),
            prior,
        )

    def _slope_step(
        self, items: ItemTable, terms: _Terms, followed: Followed, away: FloatArray
    ) -> ItemTable:
        n_items, item = self._log.n_items, self._log.item
        # d predictor / d log a
        x = -terms.load[:, 0] * (followed.mean - items.b[item] - away[:, 0])
        log_a = np.log(items.a)
        gradient = np.bincount(item, x * terms.score, n_items) - log_a / LOG_SLOPE_SD**2
        curvature = np.bincount(item, x * x * terms.information, n_items) + 1.0 / LOG_SLOPE_SD**2
        log_a = np.clip(log_a + np.clip(gradient / curvature, -0.3, 0.3), -1.5, 1.5)
        return replace(items, a=np.exp(log_a))

    def _jackknifed(
        self, items: ItemTable, weights: FloatArray, terms: _Terms, prior: EffectsPrior
    ) -> Candidate:
        """Take each learner's own answers out of the item effects it is followed with."""
        item, pair = self._log.item, self._pair
        own_gradient, own_data = _item_terms(pair, terms, int(pair.max(initial=-1)) + 1)
        _, data = _item_terms(item, terms, self._log.n_items)
        rest = np.linalg.inv((data + prior.precision)[self._item_of_pair] - own_data)
        shift = np.clip(-np.einsum("nij,nj->ni", rest, own_gradient), -2.0, 2.0)
        return Candidate(weights, items, items.effects()[item] + shift[pair], rest[pair, 0, 0])


def _weight_terms(
    weights: FloatArray, terms: _Terms, ridge: FloatArray, active: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Features of the active weights, and their gradient and curvature with the prior."""
    x = terms.features[:, active]
    gradient = x.T @ terms.score - ridge[active] * weights[active]
    return x, gradient, (x * terms.information[:, None]).T @ x + np.diag(ridge[active])


def _item_terms(index: IntArray, terms: _Terms, n: int) -> tuple[FloatArray, FloatArray]:
    """Gradient (n, 2) and information (n, 2, 2) of the effects, summed by index."""
    gradient, information = np.empty((n, 2)), np.empty((n, 2, 2))
    for i in range(2):
        gradient[:, i] = _sums(index, terms.load[:, i] * terms.score, n)
        for j in range(i + 1):
            each = terms.load[:, i] * terms.load[:, j] * terms.information
            information[:, i, j] = information[:, j, i] = _sums(index, each, n)
    return gradient, information


def _sums(index: IntArray, values: FloatArray, n: int) -> FloatArray:
    return np.asarray(np.bincount(index, values, n), np.float64)
