"""What is known of an item before its own answers: its topic's level, and how items differ.

An item has two effects: its difficulty at a first meeting, and its *recall*, the logits by which
it is easier than others once it is remembered. Empirical Bayes: the topics' means, the variances
and how recall goes with difficulty come from the items themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream.domain.attempt_log import AttemptLog
from stream.domain.irt import FloatArray

__all__ = ["EffectsPrior", "ItemPrior"]

_STEPS = 5
_SPREAD = 0.05, 4.0
_BETWEEN = 0.01, 4.0
"""Limits of the variances within topics and between their means (logits^2)."""

_RECALL_STEPS = 10
_RECALL_SPREAD = 0.01, 2.0
_MOST_GAIN = 2.0
"""Limits of recall's variance given the difficulty, and of its slope on the difficulty."""


@dataclass(frozen=True, slots=True)
class EffectsPrior:
    """Prior of difficulty and recall of every item.

    Hard items have more to gain from a first meeting, so recall ~ N(gain (difficulty - mean of
    all items), variance), and difficulty ~ N(mean of its topic, variance).
    """

    mean: FloatArray
    """(n_items, 2)."""
    precision: FloatArray
    """(2, 2) of the two effects."""


class ItemPrior:
    """Prior of the effects of a log's items.

    An item belongs to the topic of its first attempt; items without topic share one more.
    """

    def __init__(self, log: AttemptLog) -> None:
        self._n_topics = log.n_topics + 1
        topic = np.full(log.n_items, log.n_topics, np.int64)
        topic[log.item[::-1]] = np.where(log.topic < 0, log.n_topics, log.topic)[::-1]
        self._topic = topic
        self._gain, self._recall_spread = 0.0, 0.1

    def of(self, b: FloatArray, precision: FloatArray) -> tuple[FloatArray, float]:
        """Return each item's prior mean difficulty (n_items,) and the variance they share.

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

    def of_effects(
        self, effects: FloatArray, gradient: FloatArray, information: FloatArray
    ) -> EffectsPrior:
        """Return the prior of both effects, from what the answers say of them.

        How recall goes with difficulty starts from what the last call found.

        Parameters
        ----------
        effects
            (n_items, 2) difficulty and recall where the log-likelihood was expanded.
        gradient, information
            Its gradient (n_items, 2) and negative Hessian (n_items, 2, 2) there. Items without
            remembered answers say nothing of recall.
        """
        known = information[:, 0, 0] > 0.0
        overall = float(effects[known, 0].mean()) if known.any() else 0.0
        level, spread = self.of(*self._of_difficulty(effects, overall, gradient, information))
        tells = information[:, 1, 1] > 0.0
        for _ in range(_RECALL_STEPS if tells.any() else 0):
            prior = self._prior(level, overall, spread)
            left = np.linalg.inv(information[tells] + prior.precision)
            pull = gradient[tells] - (effects - prior.mean)[tells] @ prior.precision
            b, recall = (effects[tells] + np.einsum("nij,nj->ni", left, pull)).T
            b -= overall
            square = float(np.mean(b * b + left[:, 0, 0]))
            product = float(np.mean(b * recall + left[:, 0, 1]))
            self._gain = float(np.clip(product / square, -_MOST_GAIN, _MOST_GAIN))
            rest = float(np.mean(recall * recall + left[:, 1, 1]))
            rest += self._gain * (self._gain * square - 2.0 * product)
            self._recall_spread = float(np.clip(rest, *_RECALL_SPREAD))
        return self._prior(level, overall, spread)

    def _of_difficulty(
        self, effects: FloatArray, overall: float, gradient: FloatArray, information: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return each item's difficulty as its answers have it, and its precision.

        Recall is gain (difficulty - overall) and a rest; the rest is integrated out.
        """
        (b, recall), gain = effects.T, self._gain
        of_rest = information[:, 1, 1] + 1.0 / self._recall_spread
        shared = information[:, 0, 1] + gain * information[:, 1, 1]
        precision = information[:, 0, 0] + gain * (information[:, 0, 1] + shared)
        precision = np.maximum(precision - shared**2 / of_rest, 0.0)
        rest = recall - gain * (b - overall)
        pull = gradient[:, 1] - rest / self._recall_spread
        score = gradient[:, 0] + gain * gradient[:, 1] - shared / of_rest * pull
        return b + score / np.maximum(precision, 1e-9), precision

    def _prior(self, level: FloatArray, overall: float, spread: float) -> EffectsPrior:
        gain, own = self._gain, 1.0 / self._recall_spread
        return EffectsPrior(
            np.stack([level, gain * (level - overall)], axis=1),
            np.array([[1.0 / spread + gain**2 * own, -gain * own], [-gain * own, own]]),
        )
