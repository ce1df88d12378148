"""Which attempts calibrate and which are followed, and every method on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.calibration.newton import ItemTable
from stream.calibration.practice_weights import fit_live
from stream.calibration.weights import WeightFit
from stream.domain.ability import DEFAULT_FILTER, FilterConfig
from stream.domain.attempt_log import AttemptLog
from stream.domain.irt import FloatArray
from stream.domain.practice import NO_WEIGHTS, Weights
from stream.evaluate.baselines import (
    elo,
    exact_eap,
    extended_kalman,
    item_only,
    proportion_difficulties,
)
from stream.evaluate.load import NamedLog
from stream.evaluate.measures import Bins, calibration_bins, intervals, measure
from stream.follow import follow

__all__ = ["FIRSTS", "OURS", "PROTOCOLS", "REFERENCE", "Evaluated", "Protocol", "evaluate"]

Protocol = Literal["learners", "time", "first", "unseen"]

PROTOCOLS: dict[Protocol, str] = {
    "learners": "Learners with sha256(user_id) mod 5 = 0 are followed from nothing; the others"
    " calibrate.",
    "time": "The first half of the attempts calibrates; the second is followed, each learner with"
    " the first half known.",
    "first": "As learners, but of the attempts only a learner's first at each item.",
    "unseen": "As learners, all attempts followed, but judged by a learner's first at each item.",
}

OURS = "thetastream"
REFERENCE = "Elo global + topic"
FIRSTS = "Elo, repeats left out"
"""The reference under ``unseen``, calibrated and followed as if there were no repeats: what is
remembered it takes for ability."""
EXACT_LIMIT = 60_000
"""Attempts followed up to which the exact grid takes part."""


class Evaluated(NamedTuple):
    """Results of one protocol on one data set."""

    rows: list[dict[str, Any]]
    """One a method, as in ``bench/results/evaluate.json``."""
    reliability: dict[str, Bins]
    """Of ours and of the reference."""
    fit: WeightFit


def evaluate(
    data: str, named: NamedLog, protocol: Protocol, *, ablations: bool = True
) -> Evaluated | None:
    """Run every method under one protocol.

    Parameters
    ----------
    data
        Name of the data set, for the rows.
    named
        The attempts.
    protocol
        A key of `PROTOCOLS`.
    ablations
        Whether ours is also run without its parts.

    Returns
    -------
    Evaluated or None
        None where the split leaves nothing to calibrate on or nothing to judge by.
    """
    split = _split(named, protocol)
    if not split.train.any() or not split.judged.any():
        return None
    followed = split.log.where(split.followed)
    at = split.judged[split.followed]
    predictions, fit = _predict(split.log.where(split.train), followed, ablations)
    correct, learner = followed.correct[at], followed.learner[at]
    predictions = {name: p[at] for name, p in predictions.items()}
    if protocol == "unseen":
        train = split.log.where(split.train & _first_exposures(split.log))
        b = proportion_difficulties(train)
        predictions[FIRSTS] = elo(followed.where(at), b, topics=True)
    spans = intervals(learner, correct, predictions, REFERENCE)
    rows = [
        {
            "data": data,
            "protocol": protocol,
            "method": name,
            **measure(correct, p)._asdict(),
            "learners": len(np.unique(learner)),
            "auc_interval": spans[name]["auc"],
            "log_loss_interval": spans[name]["log_loss"],
            "auc_gain_interval": spans[name]["auc_gain"],
            "log_loss_gain_interval": spans[name]["log_loss_gain"],
        }
        for name, p in predictions.items()
    ]
    reliability = {name: calibration_bins(correct, predictions[name]) for name in (OURS, REFERENCE)}
    return Evaluated(rows, reliability, fit)


@dataclass(frozen=True, slots=True)
class _Split:
    """A log and which of its attempts, all (n,), are calibrated on, followed and judged."""

    log: AttemptLog
    train: NDArray[np.bool_]
    followed: NDArray[np.bool_]
    judged: NDArray[np.bool_]


def _split(named: NamedLog, protocol: Protocol) -> _Split:
    log, held = named.log, named.held_out()
    if protocol == "time":
        late = _second_half(named)
        return _Split(log, ~late, np.ones_like(late), late)
    first = _first_exposures(log)
    if protocol == "first":
        log, held = log.where(first), held[first]
    return _Split(log, ~held, held, held & first if protocol == "unseen" else held)


def _first_exposures(log: AttemptLog) -> NDArray[np.bool_]:
    pair = log.learner * log.n_items + log.item
    _, index = np.unique(pair, return_index=True)  # the first of equals
    first = np.zeros(len(log), bool)
    first[index] = True
    return first


def _second_half(named: NamedLog) -> NDArray[np.bool_]:
    """By time; where only the order is known, the second half of each learner's attempts."""
    log = named.log
    if named.has_times:
        return np.asarray(log.end_s > np.median(log.end_s), bool)
    starts = np.flatnonzero(np.r_[True, np.diff(log.learner) > 0])
    sizes = np.diff(np.r_[starts, len(log)])
    place = np.arange(len(log)) - np.repeat(starts, sizes)
    return np.asarray(place >= np.repeat((sizes + 1) // 2, sizes), bool)


def _predict(
    train: AttemptLog, test: AttemptLog, ablations: bool
) -> tuple[dict[str, FloatArray], WeightFit]:
    """Predictions of every method for every attempt followed."""
    b = proportion_difficulties(train)
    fit = _with_new_items(fit_live(train), train)
    predictions = {
        "item only": item_only(test, b),
        "Elo global": elo(test, b, topics=False),
        REFERENCE: elo(test, b, topics=True),
        "static EKF": extended_kalman(test, b),
    }
    plain = _with_new_items(fit_live(train, memory=False, practice=False), train)
    if len(test) <= EXACT_LIMIT:
        population = plain.config.prior_mean, plain.config.prior_var + plain.config.topic_var
        predictions["exact EAP"] = exact_eap(test, plain.items.a, plain.items.b, *population)
    predictions[OURS] = _ours(test, fit.items, fit.weights, fit.config)
    if ablations:
        for name, fit_without in _ABLATIONS.items():
            without = _with_new_items(fit_without(train), train)
            predictions[name] = _ours(test, without.items, without.weights, without.config)
        predictions["ability alone"] = _ours(test, plain.items, plain.weights, plain.config)
        predictions["without drift"] = _ours(
            test, fit.items, fit.weights, replace(fit.config, drift=0.0, topic_drift=0.0)
        )
    return predictions, fit


_ABLATIONS: dict[str, Callable[[AttemptLog], WeightFit]] = {
    "without memory": partial(fit_live, memory=False),
    "without recall": partial(fit_live, recall=False),
    "without practice": partial(fit_live, practice=False),
    "without 2PL": partial(fit_live, slopes=False),
}


def _with_new_items(fit: WeightFit, train: AttemptLog) -> WeightFit:
    """Give items that nobody answered what the engine takes them for: items like any other."""
    new = np.bincount(train.item, minlength=train.n_items) == 0
    items, config = fit.items, fit.config
    return replace(
        fit,
        items=ItemTable(
            np.where(new, 1.0, items.a),
            np.where(new, config.item_mean, items.b),
            items.c,
            np.where(new, config.item_var, items.b_var),
            np.where(new, 0.0, items.recall),
        ),
    )


def _ours(
    log: AttemptLog,
    items: ItemTable,
    weights: Weights = NO_WEIGHTS,
    config: FilterConfig = DEFAULT_FILTER,
) -> FloatArray:
    return follow(log, *items.at(log.item), weights, config).probability
