"""What ours is measured against: item difficulty alone, Elo, a static Kalman filter, exact EAP.

All take item difficulties from the calibration attempts and return a prediction for every
attempt of a log that is followed, made before its answer.
"""

from __future__ import annotations

from math import exp

import numpy as np

from stream.domain.attempt_log import AttemptLog
from stream.domain.irt import FloatArray

__all__ = ["elo", "exact_eap", "extended_kalman", "item_only", "proportion_difficulties"]

_DECAY = 0.05
_SHRINK = 5.0  # answers' worth of the overall proportion correct


def proportion_difficulties(log: AttemptLog) -> FloatArray:
    """-logit of each item's proportion correct, shrunk to all items', (n_items,)."""
    n = np.bincount(log.item, minlength=log.n_items)
    right = np.bincount(log.item, log.correct, log.n_items)
    overall = (log.correct.sum() + 0.5) / (len(log) + 1.0)
    p = (right + _SHRINK * overall) / (n + _SHRINK)
    return np.asarray(-np.log(p / (1.0 - p)), np.float64)


def item_only(log: AttemptLog, b: FloatArray) -> FloatArray:
    """Predict every learner as the average one."""
    return np.asarray(1.0 / (1.0 + np.exp(b[log.item])), np.float64)


def elo(log: AttemptLog, b: FloatArray, *, topics: bool) -> FloatArray:
    """Elo rating of learners against fixed items, global or global + topic.

    References
    ----------
    Pelanek (2016), Computers & Education 98: uncertainty function U(n) = 1 / (1 + .05 n).
    """
    predicted = np.empty(len(log))
    present, theta, n = -1, 0.0, 0
    deviations: dict[int, tuple[float, int]] = {}
    columns = (log.learner, log.item, log.topic, log.correct)
    for k, (who, item, topic, correct) in enumerate(
        zip(*(c.tolist() for c in columns), strict=True)
    ):
        if who != present:
            present, theta, n, deviations = who, 0.0, 0, {}
        deviation, n_topic = deviations.get(topic, (0.0, 0)) if topics else (0.0, 0)
        p = 1.0 / (1.0 + exp(b[item] - theta - deviation))
        predicted[k] = p
        theta += (correct - p) / (1.0 + _DECAY * n)
        n += 1
        if topics and topic >= 0:
            deviations[topic] = (
                deviation + (correct - p) / (1.0 + _DECAY * n_topic),
                n_topic + 1,
            )
    return predicted


def extended_kalman(log: AttemptLog, b: FloatArray) -> FloatArray:
    """One ability N(0, 1) that never changes, followed by an extended Kalman filter (1PL)."""
    predicted = np.empty(len(log))
    present, theta, variance = -1, 0.0, 1.0
    columns = (log.learner, log.item, log.correct)
    for k, (who, item, correct) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        if who != present:
            present, theta, variance = who, 0.0, 1.0
        p = 1.0 / (1.0 + exp(b[item] - theta))
        predicted[k] = p
        variance = 1.0 / (1.0 / variance + p * (1.0 - p))
        theta += variance * (correct - p)
    return predicted


def exact_eap(
    log: AttemptLog, a: FloatArray, b: FloatArray, mean: float = 0.0, variance: float = 1.0
) -> FloatArray:
    """One ability N(mean, variance) that never changes, exactly, on a grid of 41 points (2PL)."""
    points = np.linspace(-5.0, 5.0, 41)
    prior = np.exp(-0.5 * points**2)
    grid = mean + variance**0.5 * points
    prior /= prior.sum()
    rises = 1.0 / (1.0 + np.exp(-a[:, None] * (grid - b[:, None])))
    predicted = np.empty(len(log))
    present, weight = -1, prior
    columns = (log.learner, log.item, log.correct)
    for k, (who, item, correct) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        if who != present:
            present, weight = who, prior
        p = float(weight @ rises[item])
        predicted[k] = p
        weight = weight * (rises[item] if correct else 1.0 - rises[item])
        weight /= weight.sum()
    return predicted
