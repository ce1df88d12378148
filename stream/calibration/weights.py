"""Fit the weights of practice, memory and form, with the items or for given ones.

Rounds of: follow every learner with the live filter, then one Newton step for weights and
items together on what it held before each answer. A round is kept only if the loss of the
next pass falls, so that the fit cannot run away: at worst the weights stay 0. Difficulties are
shrunk to their topic's mean by as much as the data says items of a topic differ, slopes to
1, weights to 0.

The loss must not flatter: each learner is followed with difficulties from which that
learner's own answers are taken out (a one-step jackknife), as a new learner would be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.calibration.item_prior import ItemPrior
from stream.calibration.population import (
    Constants,
    fitted,
    newcomers,
    sample,
    spread_and_drift,
)
from stream.domain.ability import DEFAULT_FILTER, FilterConfig
from stream.domain.attempt_log import AttemptLog
from stream.domain.irt import FloatArray
from stream.domain.memory import DEFAULT_CAPACITY
from stream.domain.practice import MAX_WEIGHT, NO_WEIGHTS, Weights
from stream.follow import Followed, follow

__all__ = ["ItemTable", "WeightFit", "fit_weights", "log_loss", "refit_items"]

RIDGE = 16.0
"""Prior precision of a weight times the mean square of its feature, so that features of any unit
and rarity are held alike: with some hundred attempts the weights stay near 0, with 20,000 the
prior is not felt."""

LEAST_SQUARE = 0.02
"""A feature that hardly ever shows is held as if this were its mean square."""

LOG_SLOPE_SD = 0.3
"""Prior standard deviation of log a around 0."""

MIN_GAIN = 2e-5
"""Fall of the mean loss below which the fit ends."""

_WIDENING = 0.3459  # (16 sqrt(3) / (15 pi))^2: logistic averaged over a normal
_STEPS = (1.0, 0.5, 0.25)
_LEVEL = 0  # index of the constant among the weights

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ItemTable:
    """Items by index, all (n_items,): 3PL parameters and the variance of the difficulty."""

    a: FloatArray
    b: FloatArray
    c: FloatArray
    b_var: FloatArray


@dataclass(frozen=True, slots=True)
class WeightFit:
    """Result of a fit."""

    weights: Weights
    items: ItemTable
    """Those given, if they were held."""
    config: FilterConfig
    """The filter's, with the populations that newcomers, learners and items, are taken from."""
    losses: tuple[float, ...]
    """Mean log-loss of each accepted pass; the first is without weights."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Parameters with what is followed: each attempt's difficulty, jackknifed."""

    weights: FloatArray
    items: ItemTable
    b: FloatArray
    b_var: FloatArray


@dataclass(frozen=True, slots=True)
class _Terms:
    """Score and information of each attempt's scaled predictor, and that predictor's parts."""

    score: FloatArray
    information: FloatArray
    load: FloatArray
    """Derivative by -b."""
    features: FloatArray


def fit_weights(
    log: AttemptLog,
    items: ItemTable | None = None,
    *,
    guessing: FloatArray | None = None,
    slopes: bool = True,
    memory: bool = True,
    practice: bool = True,
    config: FilterConfig = DEFAULT_FILTER,
    memory_items: int = DEFAULT_CAPACITY,
    max_rounds: int = 3,
) -> WeightFit:
    """Fit weights, and items unless they are given.

    Parameters
    ----------
    log
        All attempts of the learners to learn from, repeats included.
    items
        Calibrated items to hold as they are, or None to fit them too.
    guessing
        (n_items,) lower asymptotes of fitted items, held; None for 0.
    slopes
        Whether fitted items have slopes of their own (2PL).
    memory, practice
        Whether the features of the item, and those of topic and form, take part.
    config, memory_items
        Of the filter that will use the weights.
    max_rounds
        Passes over the log with weights.

    Returns
    -------
    WeightFit
        Finite for any log; without any gain, weights 0.
    """
    fit = _Fit(log, items is not None, config, memory_items)
    empty = np.zeros(len(NO_WEIGHTS))
    if items is not None:
        b, b_var = items.b[log.item], items.b_var[log.item]
        best = _Candidate(empty, items, b, b_var)
        stages = [(_active(memory, practice, level=True), False)]
    else:
        best = fit.start(guessing)
        stages = [(_active(False, False), False), (_active(memory, practice), False)]
        if slopes:
            stages.append((_active(memory, practice), True))
    followed = fit.follow(best)
    losses = [log_loss(log.correct, followed.probability)]
    for number, (active, free_slopes) in enumerate(stages):
        for round_number in range(max_rounds):
            target = fit.newton(best, followed, active, free_slopes)
            # The start's items are plain proportions: nothing to compare with yet.
            first = number == round_number == 0 and items is None
            for step in _STEPS:
                candidate = _between(best, target, step)
                next_followed = fit.follow(candidate)
                loss = log_loss(log.correct, next_followed.probability)
                if first or loss < losses[-1]:
                    break
            else:
                break
            gain = losses[-1] - loss
            best, followed = candidate, next_followed
            losses = [loss] if first else [*losses, loss]
            if gain < MIN_GAIN and not first:
                break
        for constants in (newcomers, spread_and_drift):
            settled, fit.config = fit.config, fit.retuned(best, constants)
            next_followed = fit.follow(best)
            loss = log_loss(log.correct, next_followed.probability)
            if loss < losses[-1]:
                followed = next_followed
                losses.append(loss)
            else:
                fit.config = settled
    config = replace(fit.config, **fit.new_items(best))
    return WeightFit(Weights(*best.weights.tolist()), best.items, config, tuple(losses))


def refit_items(
    log: AttemptLog,
    fit: WeightFit,
    *,
    memory_items: int = DEFAULT_CAPACITY,
    rounds: int = 2,
) -> WeightFit:
    """Fit the items anew on more attempts, with the weights and constants of a fit.

    Parameters
    ----------
    log
        All attempts, of learners and items numbered as in the fit.
    fit
        On some of the learners; items that these never met are learned from the others.
    memory_items, rounds
        Of the filter; passes over the log.
    """
    all_of_it = _Fit(log, False, fit.config, memory_items)
    weights, none = np.array(fit.weights), _active(False, False)
    items = fit.items
    best = _Candidate(weights, items, items.b[log.item], items.b_var[log.item])
    slopes = bool((items.a != 1.0).any())
    for _ in range(rounds):
        best = all_of_it.newton(best, all_of_it.follow(best), none, slopes)
    config = replace(fit.config, **all_of_it.new_items(best))
    return replace(fit, items=best.items, config=config)


def log_loss(correct: NDArray[np.bool_], probability: FloatArray) -> float:
    """Mean of -log p of what happened; p is kept from 0 by 1e-9."""
    right = np.where(correct, probability, 1.0 - probability)
    return float(-np.mean(np.log(np.maximum(right, 1e-9)))) if len(right) else 0.0


def _active(memory: bool, practice: bool, level: bool = False) -> NDArray[np.bool_]:
    """Which weights are fitted, (number of weights,)."""
    names = Weights._fields
    return np.array(
        [
            level
            if name == "level"
            else memory
            if name == "seen" or name.startswith("item_")
            else practice
            for name in names
        ]
    )


def _between(old: _Candidate, new: _Candidate, step: float) -> _Candidate:
    """Go part of the way; variances are the new ones."""
    if step == 1.0:
        return new
    items = replace(
        new.items,
        a=old.items.a ** (1.0 - step) * new.items.a**step,
        b=old.items.b + step * (new.items.b - old.items.b),
    )
    return _Candidate(
        old.weights + step * (new.weights - old.weights),
        items,
        old.b + step * (new.b - old.b),
        new.b_var,
    )


class _Fit:
    """What stays the same over the rounds: the log and who answered what."""

    def __init__(
        self, log: AttemptLog, items_held: bool, config: FilterConfig, memory_items: int
    ) -> None:
        self.log = log
        self.items_held = items_held
        self.config = config
        self.memory_items = memory_items
        self.prior = ItemPrior(log)
        _, self.pair = np.unique(log.learner * log.n_items + log.item, return_inverse=True)

    def follow(self, candidate: _Candidate) -> Followed:
        items = candidate.items
        return follow(
            self.log,
            items.a[self.log.item],
            candidate.b,
            items.c[self.log.item],
            candidate.b_var,
            Weights(*candidate.weights.tolist()),
            self.config,
            self.memory_items,
        )

    def retuned(self, candidate: _Candidate, constants: Constants) -> FilterConfig:
        """Fit some constants of the filter to a sample of the log, all else held."""
        keep = sample(self.log, constants)
        part, weights = self.log.where(keep), Weights(*candidate.weights.tolist())
        items, b, b_var = candidate.items, candidate.b[keep], candidate.b_var[keep]
        a, c = items.a[part.item], items.c[part.item]

        def loss(config: FilterConfig) -> float:
            found = follow(part, a, b, c, b_var, weights, config, self.memory_items)
            return len(part) * log_loss(part.correct, found.probability)

        return fitted(constants, self.config, loss)

    def start(self, guessing: FloatArray | None) -> _Candidate:
        """Slopes 1, difficulties from proportions correct, shrunk to the topic's."""
        log = self.log
        n = np.bincount(log.item, minlength=log.n_items)
        right = np.bincount(log.item, log.correct.astype(np.float64), log.n_items)
        odds = (right + 0.5) / (n - right + 0.5)
        b = -np.log(odds) * np.sqrt(1.0 + _WIDENING * self.config.prior_var)
        precision = np.where(n > 0, 1.0 / (1.0 / (right + 0.5) + 1.0 / (n - right + 0.5)), 0.0)
        mean, spread = self.prior.of(b, precision)
        total = precision + 1.0 / spread
        b = (precision * b + mean / spread) / total
        c = np.zeros_like(b) if guessing is None else guessing
        items = ItemTable(np.ones_like(b), b, c, 1.0 / total)
        return _Candidate(np.zeros(len(NO_WEIGHTS)), items, b[log.item], items.b_var[log.item])

    def new_items(self, candidate: _Candidate) -> dict[str, float]:
        """Mean and variance of the difficulties of items like those of the log."""
        known = np.bincount(self.log.item, minlength=self.log.n_items) > 0
        if not known.any():
            return {}
        b, b_var = candidate.items.b[known], candidate.items.b_var[known]
        return {"item_mean": float(b.mean()), "item_var": float(b.var() + b_var.mean())}

    def newton(
        self, now: _Candidate, followed: Followed, active: NDArray[np.bool_], slopes: bool
    ) -> _Candidate:
        """Go to the maximum, the filter's states held: a few Newton steps."""
        items, weights = now.items, now.weights
        away = now.b - items.b[self.log.item]
        square = np.einsum("ij,ij->j", followed.features, followed.features) / max(1, len(self.log))
        ridge = RIDGE * np.maximum(square, LEAST_SQUARE)
        for _ in range(4):
            terms = self.terms(items, weights, followed, away, now.b_var)
            weights, items = self.joint_step(items, weights, terms, ridge, active)
            if slopes and not self.items_held:
                terms = self.terms(items, weights, followed, away, now.b_var)
                items = self.slope_step(items, terms, followed, away)
        weights = np.clip(weights, -MAX_WEIGHT, MAX_WEIGHT)
        if self.items_held:
            return _Candidate(weights, items, now.b, now.b_var)
        return self.jackknifed(items, weights, followed, now)

    def terms(
        self,
        items: ItemTable,
        weights: FloatArray,
        followed: Followed,
        away: FloatArray,
        b_var: FloatArray,
    ) -> _Terms:
        item = self.log.item
        a, c = items.a[item], items.c[item]
        scale = 1.0 / np.sqrt(1.0 + _WIDENING * a * a * (followed.variance + b_var))
        x = a * (followed.mean - items.b[item] - away) + followed.features @ weights
        rises = 1.0 / (1.0 + np.exp(-np.clip(scale * x, -35.0, 35.0)))
        p = c + (1.0 - c) * rises
        slope = (1.0 - c) * rises * (1.0 - rises)
        ratio = slope / (p * (1.0 - p))
        return _Terms(
            (self.log.correct - p) * ratio,
            slope * ratio,
            scale * a,
            followed.features * scale[:, None],
        )

    def joint_step(
        self,
        items: ItemTable,
        weights: FloatArray,
        terms: _Terms,
        ridge: FloatArray,
        active: NDArray[np.bool_],
    ) -> tuple[FloatArray, ItemTable]:
        """One Newton step of weights and difficulties; the items are eliminated first."""
        n_items, item = self.log.n_items, self.log.item
        x = terms.features[:, active]
        gradient = x.T @ terms.score - ridge[active] * weights[active]
        curvature = (x * terms.information[:, None]).T @ x + np.diag(ridge[active])
        if self.items_held:
            step = np.linalg.solve(curvature, gradient)
            new = weights.copy()
            new[active] += step
            return new, items
        b_gradient = -_sums(item, terms.load * terms.score, n_items)
        data = _sums(item, terms.load**2 * terms.information, n_items)
        mean, spread = self.prior.of(items.b + b_gradient / np.maximum(data, 1e-9), data)
        b_gradient = b_gradient - (items.b - mean) / spread
        b_curvature = data + 1.0 / spread
        cross = np.zeros((n_items, x.shape[1]))
        mixed = terms.load * terms.information
        for column in range(x.shape[1]):
            cross[:, column] = -np.bincount(item, mixed * x[:, column], n_items)
        reduced = curvature - (cross / b_curvature[:, None]).T @ cross
        step = np.linalg.solve(reduced, gradient - cross.T @ (b_gradient / b_curvature))
        new = weights.copy()
        new[active] += step
        b = items.b + np.clip((b_gradient - cross @ step) / b_curvature, -1.0, 1.0)
        return new, replace(items, b=b, b_var=1.0 / b_curvature)

    def slope_step(
        self, items: ItemTable, terms: _Terms, followed: Followed, away: FloatArray
    ) -> ItemTable:
        n_items, item = self.log.n_items, self.log.item
        x = terms.load * (followed.mean - items.b[item] - away)  # d predictor / d log a
        log_a = np.log(items.a)
        gradient = np.bincount(item, x * terms.score, n_items) - log_a / LOG_SLOPE_SD**2
        curvature = np.bincount(item, x * x * terms.information, n_items) + 1.0 / LOG_SLOPE_SD**2
        log_a = np.clip(log_a + np.clip(gradient / curvature, -0.3, 0.3), -1.5, 1.5)
        return replace(items, a=np.exp(log_a))

    def jackknifed(
        self, items: ItemTable, weights: FloatArray, followed: Followed, now: _Candidate
    ) -> _Candidate:
        """Take each learner's own answers out of the difficulties it is followed with."""
        log = self.log
        terms = self.terms(items, weights, followed, np.zeros(len(log)), now.b_var)
        own_gradient = np.bincount(self.pair, -terms.load * terms.score)[self.pair]
        own_data = np.bincount(self.pair, terms.load**2 * terms.information)[self.pair]
        data = 1.0 / items.b_var[log.item]
        rest = np.maximum(data - own_data, 0.1 * data)
        shift = np.clip(-own_gradient / rest, -2.0, 2.0)
        return _Candidate(weights, items, items.b[log.item] + shift, 1.0 / rest)


def _sums(index: IntArray, values: FloatArray, n: int) -> FloatArray:
    return np.asarray(np.bincount(index, values, n), np.float64)
