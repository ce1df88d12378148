"""Fitting the ability filter's constants: the population, how topics differ, how people move.

Few numbers, so each is tried a step up and down on a sample of the log, the step halved until it
is small. Weak priors hold them near the default setting; who asks compares on the whole log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.domain.ability import DEFAULT_FILTER, FilterConfig
from stream.domain.attempt_log import AttemptLog

__all__ = ["Constants", "fitted", "newcomers", "sample", "spread_and_drift"]

Loss = Callable[[FilterConfig], float]
"""Summed log-loss of a sample followed under a setting."""


class Constants(NamedTuple):
    """Some constants as one vector without limits, and what it rests on."""

    learner_attempts: int
    """First attempts of each learner that tell of them: one with thousands counts like others."""
    attempts: int
    """About as many attempts are used; more change little."""
    start: Callable[[FilterConfig], tuple[float, ...]]
    config: Callable[[FilterConfig, Sequence[float]], FilterConfig]
    prior_sd: float
    """Of each number, around the default setting's."""


def _newcomers(config: FilterConfig, at: Sequence[float]) -> FilterConfig:
    return replace(config, prior_mean=at[0], prior_var=math.exp(at[1]))


def _spread_and_drift(config: FilterConfig, at: Sequence[float]) -> FilterConfig:
    drift = math.exp(at[1])
    return replace(
        config,
        topic_var=DEFAULT_FILTER.topic_var * math.exp(at[0]),
        drift=DEFAULT_FILTER.drift * drift,
        topic_drift=DEFAULT_FILTER.topic_drift * drift,
    )


newcomers = Constants(
    30, 4_000, lambda config: (config.prior_mean, math.log(config.prior_var)), _newcomers, 1.0
)
"""Mean and variance of the ability of learners never seen."""

spread_and_drift = Constants(
    200,
    10_000,
    lambda config: (
        math.log(config.topic_var / DEFAULT_FILTER.topic_var),
        math.log(config.drift / DEFAULT_FILTER.drift),
    ),
    _spread_and_drift,
    0.7,
)
"""Variance between topics, and a factor of both drifts."""

_FIRST_STEP, _LAST_STEP = 0.4, 0.1


def sample(log: AttemptLog, constants: Constants) -> NDArray[np.bool_]:
    """Mark the attempts that tell of some constants, (n,): of learners spread over all."""
    starts = np.searchsorted(log.learner, log.learner)
    early = np.arange(len(log)) - starts < constants.learner_attempts
    early &= log.learner % max(1, round(int(early.sum()) / constants.attempts)) == 0
    return early


def fitted(constants: Constants, config: FilterConfig, loss: Loss) -> FilterConfig:
    """Return the setting under which a sample is predicted best, prior counted."""

    def cost(at: Sequence[float]) -> float:
        prior = 0.5 * sum(x * x for x in at) / constants.prior_sd**2
        return loss(constants.config(config, at)) + prior

    at = constants.start(config)
    best, step = cost(at), _FIRST_STEP
    while step >= _LAST_STEP:
        moves = [
            tuple(x + d * (k == j) for k, x in enumerate(at))
            for j in range(len(at))
            for d in (step, -step)
        ]
        costs = [cost(move) for move in moves]
        if min(costs) < best:
            best, at = min(zip(costs, moves, strict=True))
        else:
            step *= 0.5
    return constants.config(config, at)
