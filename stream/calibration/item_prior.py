"""What is known of an item before its own answers: its topic's level, and how items differ.

Empirical Bayes: the topics' means and the variances come from the items themselves.
"""

from __future__ import annotations

import numpy as np

from stream.domain.attempt_log import AttemptLog
from stream.domain.irt import FloatArray

__all__ = ["ItemPrior"]

_STEPS = 5
_SPREAD = 0.05, 4.0
_BETWEEN = 0.01, 4.0
"""Limits of the variances within topics and between their means (logits^2)."""


class ItemPrior:
    """Prior of the difficulties of a log's items.

    An item belongs to the topic of its first attempt; items without topic share one more.
    """

    def __init__(self, log: AttemptLog) -> None:
        self._n_topics = log.n_topics + 1
        topic = np.full(log.n_items, log.n_topics, np.int64)
        topic[log.item[::-1]] = np.where(log.topic < 0, log.n_topics, log.topic)[::-1]
        self._topic = topic

    def of(self, b: FloatArray, precision: FloatArray) -> tuple[FloatArray, float]:
        """Return each item's prior mean (n_items,) and the variance they share.

        A few EM steps for b ~ N(difficulty, 1 / precision), difficulty ~ N(topic mean, variance),
        topic means shrunk to that of all items; items without data have precision 0.
        """
        topic, n_topics = self._topic, self._n_topics
        known = precision > 0.0
        variance = np.where(known, 1.0 / np.where(known, precision, 1.0), np.inf)
        spread, between, mean = 1.0, 0.25, np.zeros_like(b)
        if not known.any():
            return mean, spread
        b = np.where(known, b, 0.0)
        for _ in range(_STEPS):
            weight = 1.0 / (variance + spread)
            grand = float((weight * b).sum() / weight.sum())
            of_topic = np.bincount(topic, weight, n_topics)
            lean = np.bincount(topic, weight * (b - grand), n_topics) / (of_topic + 1.0 / between)
            mean = grand + lean[topic]
            rest = 1.0 / (precision + 1.0 / spread)
            moved = rest * precision * (b - mean)
            spread = float(np.clip(np.mean((moved**2 + rest)[known]), *_SPREAD))
            has = of_topic > 0.0
            between = float(
                np.clip(np.mean((lean**2 + 1.0 / (of_topic + 1.0 / between))[has]), *_BETWEEN)
            )
        return mean, spread
