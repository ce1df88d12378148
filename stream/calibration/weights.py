"""Fit the weights of practice, memory and form, with the items or for given ones.

Rounds of: follow every learner with the live filter, then one Newton step for weights and
items together on what it held before each answer. A round is kept only if the loss of the
next pass falls, so that the fit cannot run away: at worst the weights stay 0. Difficulties are
shrunk to their topic's mean by as much as the data says items of a topic differ, recall likewise
(`stream.calibration.item_prior`), slopes to 1, weights to 0.

The loss must not flatter: each learner is followed with item effects from which that
learner's own answers are taken out (a one-step jackknife), as a new learner would be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.calibration.newton import WIDENING, Candidate, ItemTable, Newton, between
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
from stream.domain.practice import NO_WEIGHTS, Weights
from stream.follow import Followed, follow

__all__ = ["WeightFit", "fit_weights", "log_loss", "refit_items"]

MIN_GAIN = 2e-5
"""Fall of the mean loss below which the fit ends."""

_STEPS = (1.0, 0.5, 0.25)


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


def fit_weights(
    log: AttemptLog,
    items: ItemTable | None = None,
    *,
    guessing: FloatArray | None = None,
    slopes: bool = True,
    memory: bool = True,
    recall: bool = True,
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
    recall
        Whether fitted items may be easier than others once remembered; not without ``memory``.
    config, memory_items
        Of the filter that will use the weights.
    max_rounds
        Passes over the log with weights.

    Returns
    -------
    WeightFit
        Finite for any log; without any gain, weights 0.
    """
    fit = _Fit(log, Newton(log, items is not None, recall), config, memory_items)
    if items is not None:
        best = Candidate.unjackknifed(np.zeros(len(NO_WEIGHTS)), items, log.item)
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
            target = fit.newton.step(best, followed, active, free_slopes)
            # The start's items are plain proportions: nothing to compare with yet.
            first = number == round_number == 0 and items is None
            for step in _STEPS:
                candidate = between(best, target, step)
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
    all_of_it = _Fit(log, Newton(log, False), fit.config, memory_items)
    weights, none = np.array(fit.weights), _active(False, False)
    best = Candidate.unjackknifed(weights, fit.items, log.item)
    slopes = bool((fit.items.a != 1.0).any())
    for _ in range(rounds):
        best = all_of_it.newton.step(best, all_of_it.follow(best), none, slopes)
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


class _Fit:
    """A log, what follows it, and the filter's constants so far."""

    def __init__(
        self, log: AttemptLog, newton: Newton, config: FilterConfig, memory_items: int
    ) -> None:
        self.log = log
        self.config = config
        self.memory_items = memory_items
        self.newton = newton

    def follow(self, candidate: Candidate) -> Followed:
        items = candidate.items
        return follow(
            self.log,
            items.a[self.log.item],
            candidate.effects[:, 0],
            items.c[self.log.item],
            candidate.b_var,
            candidate.effects[:, 1],
            Weights(*candidate.weights.tolist()),
            self.config,
            self.memory_items,
        )

    def retuned(self, candidate: Candidate, constants: Constants) -> FilterConfig:
        """Fit some constants of the filter to a sample of the log, all else held."""
        keep = sample(self.log, constants)
        part, weights = self.log.where(keep), Weights(*candidate.weights.tolist())
        a, c = candidate.items.a[part.item], candidate.items.c[part.item]
        b, recall = candidate.effects[keep].T
        b_var = candidate.b_var[keep]

        def loss(config: FilterConfig) -> float:
            found = follow(part, a, b, c, b_var, recall, weights, config, self.memory_items)
            return len(part) * log_loss(part.correct, found.probability)

        return fitted(constants, self.config, loss)

    def start(self, guessing: FloatArray | None) -> Candidate:
        """Slopes 1, difficulties from proportions correct, shrunk to the topic's."""
        log = self.log
        n = np.bincount(log.item, minlength=log.n_items)
        right = np.bincount(log.item, log.correct.astype(np.float64), log.n_items)
        odds = (right + 0.5) / (n - right + 0.5)
        b = -np.log(odds) * np.sqrt(1.0 + WIDENING * self.config.prior_var)
        precision = np.where(n > 0, 1.0 / (1.0 / (right + 0.5) + 1.0 / (n - right + 0.5)), 0.0)
        mean, spread = self.newton.prior.of(b, precision)
        total = precision + 1.0 / spread
        b = (precision * b + mean / spread) / total
        c = np.zeros_like(b) if guessing is None else guessing
        items = ItemTable(np.ones_like(b), b, c, 1.0 / total, np.zeros_like(b))
        return Candidate.unjackknifed(np.zeros(len(NO_WEIGHTS)), items, log.item)

    def new_items(self, candidate: Candidate) -> dict[str, float]:
        """Mean and variance of the difficulties of items like those of the log."""
        known = np.bincount(self.log.item, minlength=self.log.n_items) > 0
        if not known.any():
            return {}
        b, b_var = candidate.items.b[known], candidate.items.b_var[known]
        return {"item_mean": float(b.mean()), "item_var": float(b.var() + b_var.mean())}
