"""Following learners in plain Python: what `stream.follow` and the engine must equal."""

from __future__ import annotations

import numpy as np

from stream.domain import ability
from stream.domain.ability import DEFAULT_FILTER, FilterConfig
from stream.domain.memory import DEFAULT_CAPACITY, ItemMemory
from stream.domain.practice import (
    NEVER_MET,
    NO_WEIGHTS,
    Weights,
    advantage,
    features,
    next_form,
    plug_in,
)
from stream.follow import Followed


class LearnerState:
    """A learner as the filter knows it: ability, form, topics, remembered items."""

    __slots__ = ("_config", "_weights", "form", "g", "memory", "n", "topics", "vg")

    def __init__(
        self,
        weights: Weights = NO_WEIGHTS,
        config: FilterConfig = DEFAULT_FILTER,
        memory_items: int = DEFAULT_CAPACITY,
    ) -> None:
        self._weights = weights
        self._config = config
        self.g, self.vg = ability.initial_global(config)
        self.form = 0.0
        self.n = 0
        self.topics: dict[int, list[float]] = {}
        self.memory = ItemMemory(memory_items)

    def topic(self, topic: int) -> list[float]:
        """Return [d0, s, r, right, wrong, time of the last answer] of a topic, kept from now on."""
        state = self.topics.get(topic)
        if state is None:
            state = self.topics[topic] = [*ability.initial_topic(self._config), 0, 0, 0.0]
        return state

    def step(
        self,
        item: int,
        topic: int,
        correct: bool,
        a: float,
        b: float,
        c: float = 0.0,
        b_var: float = 0.0,
        recall: float = 0.0,
        start_s: float = 0.0,
        end_s: float = 0.0,
    ) -> tuple[float, float, float, list[float]]:
        """Predict an answer, then fold it.

        Parameters
        ----------
        item, topic
            A 32-bit number of the item; a topic's index, -1 = none.
        correct
            The score.
        a, b, c, b_var, recall
            The item, as for `ability.fold` and `advantage`.
        start_s, end_s
            As in `AttemptLog`.

        Returns
        -------
        tuple
            Probability, mean and variance of theta, features: all from before the answer.
        """
        config, n = self._config, self.n
        trace = self.memory.recall(item)
        drift = config.drift / (1.0 + n / config.drift_n0)
        if topic < 0:
            right = wrong = 0
            topic_s = 0.0
            mean, variance = self.g, self.vg + drift
        else:
            state = self.topic(topic)
            d0, s, r, right, wrong, topic_s = state  # type: ignore[assignment]
            mean, variance = ability.topic_ability(self.g, self.vg, d0, s, r)
            variance += drift + config.topic_drift / (1.0 + (right + wrong) / config.topic_drift_n0)
        gain = advantage(self._weights, right, wrong, topic_s, self.form, trace, n, start_s, recall)
        row = features(right, wrong, topic_s, self.form, trace or NEVER_MET, n, start_s)
        eased = b - gain / a
        probability = ability.predict_correct(mean, variance, a, eased, c, b_var)
        self.form = next_form(self.form, plug_in(mean, a, b, c, gain), correct)
        if topic < 0:
            self.g, self.vg = ability.fold_global(
                self.g, self.vg, a, eased, c, correct, n, b_var, config
            )
        else:
            self.g, self.vg, d0, s, r = ability.fold(
                self.g, self.vg, d0, s, r, a, eased, c, correct, n, right + wrong, b_var, config
            )
            state[:] = d0, s, r, right + correct, wrong + (not correct), end_s
        self.memory.remember(item, n, int(end_s), correct)
        self.n = n + 1
        return probability, mean, variance, row


def follow(
    log,
    a,
    b,
    c,
    b_var,
    recall,
    weights: Weights = NO_WEIGHTS,
    config: FilterConfig = DEFAULT_FILTER,
    memory_items: int = DEFAULT_CAPACITY,
) -> Followed:
    """As `stream.follow.follow`."""
    n = len(log)
    probability, mean, variance = np.empty(n), np.empty(n), np.empty(n)
    rows: list[list[float]] = []
    columns = (
        log.learner,
        log.item,
        log.topic,
        log.correct,
        a,
        b,
        c,
        b_var,
        recall,
        log.start_s,
        log.end_s,
    )
    present = -1
    state = LearnerState(weights, config, memory_items)
    for k, (who, item, topic, correct, *rest) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        if who != present:
            present = who
            state = LearnerState(weights, config, memory_items)
        probability[k], mean[k], variance[k], row = state.step(item, topic, correct, *rest)
        rows.append(row)
    return Followed(
        probability, mean, variance, np.array(rows, np.float64).reshape(n, len(NO_WEIGHTS))
    )
