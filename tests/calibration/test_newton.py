"""Newton steps for weights and items, and the jackknife that keeps the fit honest."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from stream.calibration.newton import Candidate, ItemTable, Newton, between
from stream.domain.attempt_log import AttemptLog
from stream.domain.practice import NO_WEIGHTS
from stream.follow import Followed, follow

N_ITEMS = 6
ACTIVE = np.array([name == "seen" for name in NO_WEIGHTS._fields])


def drawn() -> AttemptLog:
    """Draw 40 learners with 30 answers each to six items that gain differently from a meeting."""
    rng = np.random.default_rng(2)
    learner = np.repeat(np.arange(40), 30)
    item = rng.integers(N_ITEMS, size=len(learner))
    first = np.zeros(len(learner), bool)
    first[np.unique(learner * N_ITEMS + item, return_index=True)[1]] = True
    theta = rng.normal(size=40)[learner]
    gain = np.where(first, 0.0, np.array([0.0, 0.4, 0.8, 1.2, 1.6, 2.0])[item])
    chance = 1.0 / (1.0 + np.exp(-(theta - np.linspace(-1.0, 1.0, N_ITEMS)[item] + gain)))
    none = np.zeros(len(learner))
    correct = rng.random(len(learner)) < chance
    return AttemptLog(learner, item, item % 2, correct, none, none, 40, N_ITEMS, 2)


def start(log: AttemptLog) -> Candidate:
    ones, zeros = np.ones(N_ITEMS), np.zeros(N_ITEMS)
    items = ItemTable(ones, zeros, zeros, ones, zeros)
    return Candidate(np.zeros(len(NO_WEIGHTS)), items, np.zeros((len(log), 2)), np.ones(len(log)))


def followed_from_nothing(log: AttemptLog) -> Followed:
    zeros, ones = np.zeros(len(log)), np.ones(len(log))
    return follow(log, ones, zeros, zeros, ones, zeros)


def part(followed: Followed, keep: np.ndarray) -> Followed:
    return Followed(*(getattr(followed, f.name)[keep] for f in dataclasses.fields(Followed)))


def at_rest(log: AttemptLog, followed: Followed, rounds: int = 8) -> tuple[Candidate, Candidate]:
    """Step until nothing moves, the filter's states held; return the last two candidates."""
    newton, fit = Newton(log, False), start(log)
    before = fit
    for _ in range(rounds):
        # From the items' effects: a fit would follow learners again with the jackknifed ones.
        at = fit.items.effects()[log.item]
        before = dataclasses.replace(fit, effects=at, b_var=np.ones(len(log)))
        fit = newton.step(before, followed, ACTIVE, False)
    return before, fit


def test_steps_come_to_rest_near_the_truth() -> None:
    log = drawn()
    before, fit = at_rest(log, followed_from_nothing(log))
    assert fit.weights == pytest.approx(before.weights, abs=1e-3)
    assert fit.items.effects() == pytest.approx(before.items.effects(), abs=1e-3)
    difficulty, recall = fit.items.effects().T
    for found in (difficulty, recall):
        assert np.corrcoef(found, np.linspace(-1.0, 1.0, N_ITEMS))[0, 1] > 0.85
    # An item is known less well without a learner's own answers to it.
    assert (fit.b_var > fit.items.b_var[log.item]).all()


def test_an_item_s_effects_are_those_without_the_learner_s_own_answers() -> None:
    log = drawn()
    followed = followed_from_nothing(log)
    _, fit = at_rest(log, followed)
    whole = fit.items.effects()
    jackknifed, fitted = [], []
    for learner in range(8):
        for item in range(N_ITEMS):
            own = (log.learner == learner) & (log.item == item)
            if not own.any():
                continue
            rest = log.where(~own)
            _, without = at_rest(rest, part(followed, ~own))
            moved = without.items.effects() - whole
            # But for what moves all items alike, which goes with the weights.
            fitted.append(moved[item] - np.delete(moved, item, 0).mean(0))
            jackknifed.append(fit.effects[own][0] - whole[item])
    shift, truth = np.array(jackknifed), np.array(fitted)
    for effect in range(2):
        assert np.corrcoef(shift[:, effect], truth[:, effect])[0, 1] > 0.9
        assert np.polyfit(truth[:, effect], shift[:, effect], 1)[0] == pytest.approx(1.0, abs=0.3)


def test_half_a_step_is_half_of_everything() -> None:
    log = drawn()
    old = start(log)
    new = Newton(log, False).step(old, followed_from_nothing(log), ACTIVE, True)
    half = between(old, new, 0.5)
    assert half.weights == pytest.approx(new.weights / 2)
    assert half.items.effects() == pytest.approx(new.items.effects() / 2)
    assert np.log(half.items.a) == pytest.approx(np.log(new.items.a) / 2)
    assert half.effects == pytest.approx(new.effects / 2)


def test_items_that_are_held_stay_and_get_no_recall() -> None:
    log = drawn()
    old = start(log)
    new = Newton(log, True).step(old, followed_from_nothing(log), ACTIVE, True)
    assert new.items is old.items
    assert new.effects is old.effects
    assert np.abs(new.weights).sum() > 0.1
