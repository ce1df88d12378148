"""What the live filter folds with: weights, items and population, fitted on all attempts.

A calibration sees first attempts, as if nobody learned anything between them. The live filter
knows of practice, memory and form, so the items it folds with are those fitted together with
them. They are put on the scale of the calibration: there, what an average first attempt to an
item tells of theta is the same by either.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

import numpy as np

from schemas.calibration import CalibratedItem
from stream.calibration.gates import is_well_determined
from stream.calibration.newton import ItemTable
from stream.calibration.observations import Observations
from stream.calibration.weights import WeightFit, fit_weights, refit_items
from stream.domain.ability import rescaled_filter
from stream.domain.attempt_log import AttemptLog
from stream.domain.common_items import ItemArrays
from stream.domain.irt import FloatArray
from stream.domain.linking import MIN_ANCHORS, LinkingConstants, link
from stream.domain.practice import MAX_WEIGHT, Weights
from stream.errors import LinkingError
from stream.follow import follow

__all__ = [
    "MAX_ATTEMPTS",
    "MIN_ATTEMPTS",
    "LiveFit",
    "LiveItem",
    "fit_live",
    "practice_weights",
    "rescaled",
]

logger = logging.getLogger(__name__)

MIN_ATTEMPTS = 2000
"""Fewer attempts say nothing of practice that the weights' prior would not outweigh."""

MAX_ATTEMPTS = 60_000
"""Attempts of whole learners on which the weights are fitted, in some twenty passes and two hundred
short ones: a few seconds. More change little. The items are then fitted on all attempts."""

MAX_FOLLOWED = 500_000
"""Attempts of whole learners on which the items are fitted: two passes."""

_UNKNOWN_VARIANCE = 1.0


class LiveItem(NamedTuple):
    """An item as the live filter folds with it, on the scale of the calibration."""

    a: float
    b: float
    se_b: float
    recall: float
    """Logits, the same on every scale."""


@dataclass(frozen=True, slots=True)
class LiveFit:
    """What is published beside the calibrated items; empty if it would not predict better."""

    weights: dict[str, float] = field(default_factory=dict)
    """Weight by name, logits: the same on every scale."""
    filter: dict[str, float] = field(default_factory=dict)
    """`FilterConfig` by name, on the scale of the calibration."""
    items: dict[str, LiveItem] = field(default_factory=dict)


def practice_weights(observations: Observations, items: Sequence[CalibratedItem]) -> LiveFit:
    """Fit what the live filter folds with; blocks for seconds.

    Parameters
    ----------
    observations
        With its ``log``.
    items
        As calibrated, on the scale of the fit.

    Returns
    -------
    LiveFit
        Empty where the log is too small. Without ``filter`` and ``items`` where fewer than 5
        items are determined well enough to hold the scale: the weights then belong to the
        calibrated items.
    """
    log = observations.log
    if log is None or len(log) < MIN_ATTEMPTS:
        return LiveFit()
    began = time.monotonic()
    table = _table(observations, items)
    fit = fit_live(log, table.c)
    try:
        scale = _scale(log, fit, table, _determined(observations, items))
    except LinkingError as error:
        logger.warning("live items are not published, calibrated ones are folded with: %s", error)
        fit = fit_weights(_sample(log, MAX_ATTEMPTS), table)
        found = LiveFit(weights=_named(fit))
    else:
        fit = rescaled(fit, scale.slope, scale.intercept)
        used = np.bincount(log.item, minlength=log.n_items) > 0
        found = LiveFit(
            _named(fit),
            asdict(fit.config),
            {
                name: LiveItem(
                    fit.items.a[i].item(),
                    fit.items.b[i].item(),
                    fit.items.b_var[i].item() ** 0.5,
                    fit.items.recall[i].item(),
                )
                for i, name in enumerate(observations.items)
                if used[i]
            },
        )
    logger.info(
        "live filter from %d attempts in %.1f s: log-loss %.4f to %.4f",
        *(len(log), time.monotonic() - began, fit.losses[0], fit.losses[-1]),
    )
    return found if all(abs(w) <= MAX_WEIGHT for w in found.weights.values()) else LiveFit()


def fit_live(
    log: AttemptLog,
    guessing: FloatArray | None = None,
    *,
    slopes: bool = True,
    memory: bool = True,
    recall: bool = True,
    practice: bool = True,
) -> WeightFit:
    """Fit weights, items and population on a scale of their own; of large logs, on a sample.

    Parameters
    ----------
    log
        All attempts to learn from.
    guessing
        (n_items,) lower asymptotes, held; None for 0.
    slopes, memory, recall, practice
        As for `fit_weights`.
    """
    some = _sample(log, MAX_ATTEMPTS)
    fit = fit_weights(
        some, guessing=guessing, slopes=slopes, memory=memory, recall=recall, practice=practice
    )
    return fit if len(some) == len(log) else refit_items(_sample(log, MAX_FOLLOWED), fit)


def rescaled(fit: WeightFit, slope: float, intercept: float) -> WeightFit:
    """Return a fit on the scale theta* = slope theta + intercept; it predicts the same."""
    items = fit.items
    return replace(
        fit,
        items=ItemTable(
            items.a / slope,
            slope * items.b + intercept,
            items.c,
            slope**2 * items.b_var,
            items.recall,
        ),
        config=rescaled_filter(fit.config, slope, intercept),
    )


def _scale(
    log: AttemptLog, fit: WeightFit, calibrated: ItemTable, determined: list[int]
) -> LinkingConstants:
    """Find how a live fit reaches the calibration's scale, by Stocking-Lord.

    A calibrated difficulty holds the practice of an average first attempt, so the live one is
    eased by it before the two are compared.
    """
    if len(determined) < MIN_ANCHORS:
        raise LinkingError(f"{len(determined)} items hold the scale, {MIN_ANCHORS} are needed")
    some = _sample(log, MAX_ATTEMPTS)
    items, i = fit.items, some.item
    followed = follow(some, *items.at(i), fit.weights, fit.config)
    first = followed.features[:, Weights._fields.index("seen")] == 0.0
    gain = followed.features[first] @ np.array(fit.weights)
    n = np.bincount(i[first], minlength=log.n_items)
    overall = float(gain.mean()) if len(gain) else 0.0
    average = (np.bincount(i[first], gain, log.n_items) + overall) / (n + 1.0)
    a, b, c = items.a, items.b - average / items.a, items.c
    at = np.array(determined)
    live = ItemArrays(a[at], b[at], c[at])
    return link(live, ItemArrays(calibrated.a[at], calibrated.b[at], c[at]), purify=False)


def _named(fit: WeightFit) -> dict[str, float]:
    return {name: value for name, value in fit.weights._asdict().items() if value}


def _sample(log: AttemptLog, most: int) -> AttemptLog:
    """Return whole learners, spread over all, with at most ``most`` attempts."""
    if len(log) <= most:
        return log
    counts = np.bincount(log.learner, minlength=log.n_learners)
    order = np.random.default_rng(log.n_learners).permutation(log.n_learners)
    fits = np.cumsum(counts[order]) <= most
    chosen = order[fits] if fits.any() else order[:1]
    return log.where(np.isin(log.learner, chosen))


def _determined(observations: Observations, items: Sequence[CalibratedItem]) -> list[int]:
    number = {name: index for index, name in enumerate(observations.items)}
    return [number[item.item_id] for item in items if is_well_determined(item)]


def _table(observations: Observations, items: Sequence[CalibratedItem]) -> ItemTable:
    n = len(observations.items)
    table = ItemTable(
        np.ones(n), np.zeros(n), np.zeros(n), np.full(n, _UNKNOWN_VARIANCE), np.zeros(n)
    )
    number = {name: index for index, name in enumerate(observations.items)}
    for item in items:
        at = number[item.item_id]
        table.a[at], table.b[at], table.c[at] = item.a, item.b, item.c
        table.b_var[at] = 0.0 if item.se_b is None else item.se_b**2
    return table
