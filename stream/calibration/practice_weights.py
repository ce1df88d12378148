"""Fitting the weights of practice, memory and form beside a calibration's items."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from schemas.calibration import CalibratedItem
from stream.calibration.observations import Observations
from stream.calibration.weights import ItemTable, fit_weights
from stream.domain.follow import AttemptLog
from stream.domain.practice import MAX_WEIGHT

__all__ = ["MAX_ATTEMPTS", "MIN_ATTEMPTS", "practice_weights"]

logger = logging.getLogger(__name__)

MIN_ATTEMPTS = 2000
"""Fewer attempts say nothing of practice that the weights' prior would not outweigh."""

MAX_ATTEMPTS = 60_000
"""Attempts of whole learners that are followed, so that the fit takes seconds."""

_UNKNOWN_VARIANCE = 1.0


def practice_weights(
    observations: Observations, items: Sequence[CalibratedItem]
) -> dict[str, float]:
    """Fit the weights with the items held as they were calibrated; blocks for seconds.

    Weights are logits, whatever the scale of the items: linking leaves them as they are.

    Parameters
    ----------
    observations
        With its ``log``.
    items
        On the scale of the fit.

    Returns
    -------
    dict
        Weight by name; empty where the log is too small, or no weights predict better than none.
    """
    log = observations.log
    if log is None or len(log) < MIN_ATTEMPTS:
        return {}
    began = time.monotonic()
    fit = fit_weights(_sample(log), _table(observations, items))
    weights = {name: value for name, value in fit.weights._asdict().items() if value}
    logger.info(
        "practice weights from %d attempts in %.1f s: log-loss %.4f to %.4f",
        *(min(len(log), MAX_ATTEMPTS), time.monotonic() - began, fit.losses[0], fit.losses[-1]),
    )
    return weights if all(abs(value) <= MAX_WEIGHT for value in weights.values()) else {}


def _sample(log: AttemptLog) -> AttemptLog:
    """Return whole learners, spread over all, with at most MAX_ATTEMPTS attempts."""
    if len(log) <= MAX_ATTEMPTS:
        return log
    counts = np.bincount(log.learner, minlength=log.n_learners)
    order = np.random.default_rng(log.n_learners).permutation(log.n_learners)
    fits = np.cumsum(counts[order]) <= MAX_ATTEMPTS
    chosen = order[fits] if fits.any() else order[:1]
    return log.where(np.isin(log.learner, chosen))


def _table(observations: Observations, items: Sequence[CalibratedItem]) -> ItemTable:
    n = len(observations.items)
    table = ItemTable(np.ones(n), np.zeros(n), np.zeros(n), np.full(n, _UNKNOWN_VARIANCE))
    number = {name: index for index, name in enumerate(observations.items)}
    for item in items:
        at = number[item.item_id]
        table.a[at], table.b[at], table.c[at] = item.a, item.b, item.c
        table.b_var[at] = 0.0 if item.se_b is None else item.se_b**2
    return table
