"""Simulated learners: distance to the exact posterior, coverage, and error against attempts seen.

Items are known (2PL), so what is measured is the filter alone, at its default setting unless
said otherwise.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from stream.domain import ability
from stream.domain.ability import DEFAULT_FILTER, FilterConfig
from stream.domain.irt import FloatArray

__all__ = ["MOTIONS", "coverage", "distance_to_exact", "error_by_attempts"]

STILL = FilterConfig(drift=0.0, topic_drift=0.0)
COUNTS = (5, 20, 100)

MOTIONS = ("static", "random walk", "steady learning")
"""How the true theta of a simulated learner moves over its attempts."""

_GRID = np.linspace(-6.0, 6.0, 241)
_Z = 1.959964


def distance_to_exact(learners: int = 300, seed: int = 1) -> dict[int, float]:
    """Mean |theta - exact EAP| after 5, 20 and 100 attempts, drift zero."""
    rng = np.random.default_rng(seed)
    off: dict[int, list[float]] = {count: [] for count in COUNTS}
    for _ in range(learners):
        a, b = _items(rng, max(COUNTS))
        theta = rng.normal()
        correct = rng.random(len(a)) < 1.0 / (1.0 + np.exp(-a * (theta - b)))
        state = ability.initial_global(STILL)
        log_posterior = -0.5 * _GRID**2
        for k in range(len(a)):
            state = ability.fold_global(
                *state, float(a[k]), float(b[k]), 0.0, bool(correct[k]), k, 0.0, STILL
            )
            sign = 1.0 if correct[k] else -1.0
            log_posterior = log_posterior - np.logaddexp(0.0, -sign * a[k] * (_GRID - b[k]))
            if k + 1 in off:
                weight = np.exp(log_posterior - log_posterior.max())
                off[k + 1].append(abs(state[0] - float(weight @ _GRID / weight.sum())))
    return {count: float(np.mean(values)) for count, values in off.items()}


def coverage(
    motion: str, learners: int = 400, attempts: int = 200, topics: int = 4, seed: int = 2
) -> dict[str, Any]:
    """Share of true thetas inside the 95 % interval, at the default setting.

    Parameters
    ----------
    motion
        One of `MOTIONS`: theta stays; takes steps of sd .05 an attempt in its topic; or rises by
        1 logit over the attempts. Topics deviate by sd .3.
    learners, attempts, topics, seed
        Size and seed.

    Returns
    -------
    dict
        "coverage" of the topic's theta, over attempts after the first five; "rmse" likewise.
    """
    rng = np.random.default_rng(seed)
    inside, squares, total = 0, 0.0, 0
    for _ in range(learners):
        a, b = _items(rng, attempts)
        theta = rng.normal() + rng.normal(0.0, 0.3, topics)
        state = ability.initial_global()
        triples = [ability.initial_topic() for _ in range(topics)]
        seen = [0] * topics
        for k in range(attempts):
            t = int(rng.integers(topics))
            if motion == "random walk":
                theta[t] += rng.normal(0.0, 0.05)
            elif motion == "steady learning":
                theta += 1.0 / attempts
            correct = bool(rng.random() < 1.0 / (1.0 + np.exp(-a[k] * (theta[t] - b[k]))))
            g, vg, d0, s, r = ability.fold(
                *state, *triples[t], float(a[k]), float(b[k]), 0.0, correct, k, seen[t]
            )
            state, triples[t] = (g, vg), (d0, s, r)
            seen[t] += 1
            if k >= 5:
                mean, variance = ability.topic_ability(g, vg, d0, s, r)
                inside += abs(theta[t] - mean) <= _Z * sqrt(variance)
                squares += (theta[t] - mean) ** 2
                total += 1
    return {"motion": motion, "coverage": inside / total, "rmse": sqrt(squares / total)}


def error_by_attempts(
    motion: str = "steady learning", learners: int = 300, attempts: int = 200, seed: int = 3
) -> dict[str, FloatArray]:
    """Root mean square error of theta after each attempt: ours, Elo and exact static EAP.

    Returns
    -------
    dict
        method -> (attempts,) logits.
    """
    rng = np.random.default_rng(seed)
    a, b = (x.reshape(learners, attempts) for x in _items(rng, learners * attempts))
    truth = np.repeat(rng.normal(size=learners)[:, None], attempts, axis=1)
    if motion == "random walk":
        truth += np.cumsum(rng.normal(0.0, 0.05, truth.shape), axis=1)
    elif motion == "steady learning":
        truth += np.arange(1, attempts + 1) / attempts
    correct = rng.random(truth.shape) < 1.0 / (1.0 + np.exp(-a * (truth - b)))
    ours, elo = np.empty_like(truth), np.empty_like(truth)
    for i in range(learners):
        state = ability.initial_global(DEFAULT_FILTER)
        rating = 0.0
        for k in range(attempts):
            item = float(a[i, k]), float(b[i, k])
            right = bool(correct[i, k])
            state = ability.fold_global(*state, *item, 0.0, right, k)
            expected = 1.0 / (1.0 + np.exp(item[1] - rating))
            rating += (right - expected) / (1.0 + 0.05 * k)
            ours[i, k], elo[i, k] = state[0], rating
    log_posterior = np.repeat(-0.5 * _GRID[None] ** 2, learners, axis=0)
    exact = np.empty_like(truth)
    for k in range(attempts):
        sign = np.where(correct[:, k], 1.0, -1.0)
        log_posterior -= np.logaddexp(0.0, -(sign * a[:, k])[:, None] * (_GRID - b[:, k, None]))
        weight = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
        exact[:, k] = weight @ _GRID / weight.sum(axis=1)
    estimates = {"thetastream": ours, "Elo": elo, "exact static EAP": exact}
    return {
        name: np.sqrt(np.mean((estimate - truth) ** 2, axis=0))
        for name, estimate in estimates.items()
    }


def _items(rng: np.random.Generator, n: int) -> tuple[FloatArray, FloatArray]:
    return np.exp(rng.normal(0.0, 0.3, n)), rng.normal(0.0, 1.0, n)
