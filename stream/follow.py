"""Follow learners through a log with the live filter, each prediction before its answer.

What evaluation and the fitting of weights run, some twenty passes a fit: one compiled loop over
columns, with the very formulas that `stream.domain` tests and the engine folds with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from stream.compiling import compiled
from stream.domain.ability import (
    DEFAULT_FILTER,
    FilterConfig,
    fold_drifted,
    initial_global,
    initial_topic,
    match,
    predict_correct,
    topic_ability,
)
from stream.domain.attempt_log import AttemptLog
from stream.domain.irt import FloatArray
from stream.domain.memory import DEFAULT_CAPACITY, MAX_COUNT
from stream.domain.practice import (
    NEVER_MET,
    NO_WEIGHTS,
    Weights,
    features,
    next_form,
    plug_in,
)

__all__ = ["Followed", "follow", "warm_up"]

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Followed:
    """What the filter held before each attempt of a log. All arrays (n,) but ``features``."""

    probability: FloatArray
    """Predicted chance of a correct answer."""
    mean: FloatArray
    variance: FloatArray
    """Of theta in the attempt's topic, drift included (logits, logits^2)."""
    features: FloatArray
    """(n, number of weights), see `stream.domain.practice.features`."""


def follow(
    log: AttemptLog,
    a: FloatArray,
    b: FloatArray,
    c: FloatArray,
    b_var: FloatArray,
    recall: FloatArray,
    weights: Weights = NO_WEIGHTS,
    config: FilterConfig = DEFAULT_FILTER,
    memory_items: int = DEFAULT_CAPACITY,
) -> Followed:
    """Follow every learner of a log from the population's prior.

    Parameters
    ----------
    log
        The attempts.
    a, b, c, b_var, recall
        Item parameters of each **attempt**, (n,): usually ``a[log.item]``; fitting gives
        each learner effects estimated without that learner.
    weights, config, memory_items
        As in force.
    """
    n = len(log)
    found = Followed(np.empty(n), np.empty(n), np.empty(n), np.empty((n, len(NO_WEIGHTS))))
    _follow(
        _whole(log.learner),
        _whole(log.item),
        _whole(log.topic),
        np.ascontiguousarray(log.correct, np.bool_),
        _real(log.start_s),
        _real(log.end_s),
        _real(a),
        _real(b),
        _real(c),
        _real(b_var),
        _real(recall),
        np.array(weights),
        (*initial_global(config), *initial_topic(config)),
        (config.drift, config.drift_n0, config.topic_drift, config.topic_drift_n0),
        memory_items,
        log.n_items,
        log.n_topics,
        found.probability,
        found.mean,
        found.variance,
        found.features,
    )
    return found


def warm_up() -> None:
    """Follow nobody, so that the loop is compiled and later processes load it from disk."""
    whole, none = np.empty(0, np.int64), np.empty(0)
    nobody = AttemptLog(whole, whole, whole, none > 0, none, none, 0, 0, 0)
    follow(nobody, none, none, none, none, none)


# One type of column: another would be compiled for anew, in the middle of a calibration.
def _whole(column: IntArray) -> IntArray:
    return np.ascontiguousarray(column, np.int64)


def _real(column: FloatArray) -> FloatArray:
    return np.ascontiguousarray(column, np.float64)


@partial(compiled, allocates=True)
def _follow(
    learner: IntArray,
    item: IntArray,
    topic: IntArray,
    correct: NDArray[np.bool_],
    start_s: FloatArray,
    end_s: FloatArray,
    a: FloatArray,
    b: FloatArray,
    c: FloatArray,
    b_var: FloatArray,
    recall: FloatArray,
    weights: FloatArray,
    initial: tuple[float, ...],
    drifts: tuple[float, ...],
    memory_items: int,
    n_items: int,
    n_topics: int,
    probability: FloatArray,
    mean: FloatArray,
    variance: FloatArray,
    rows: FloatArray,
) -> None:
    """Fill the last four arrays; the log's and the items' columns are as for `follow`.

    Topics and items have a row each, which is the present learner's where ``topic_of`` or
    ``item_of`` says so, and as good as not there otherwise.
    """
    g0, vg0, d0_0, s_0, r_0 = initial
    drift_0, drift_n0, topic_drift_0, topic_drift_n0 = drifts
    topic_of, item_of = np.full(n_topics, -1), np.full(n_items, -1)
    ability = np.empty((n_topics, 3))
    counts = np.empty((n_topics, 2), np.int64)
    topic_s = np.empty(n_topics)
    # Of an item: number of the learner's last attempt at it, its time, right and wrong answers.
    traces = np.empty((n_items, 4), np.int64)
    last_right = np.empty(n_items, np.bool_)
    present, start, remembered, oldest = -1, 0, 0, 0
    g, vg, form = g0, vg0, 0.0
    for k in range(len(learner)):
        who, i, t, right = learner[k], item[k], topic[k], correct[k]
        if who != present:
            present, start, remembered, oldest = who, k, 0, 0
            g, vg, form = g0, vg0, 0.0
        number = k - start
        drift = drift_0 / (1.0 + number / drift_n0)
        n_right = n_wrong = 0
        last_s = topic_drift = 0.0
        if t < 0:
            m, v = g, vg + drift
        else:
            if topic_of[t] != who:
                topic_of[t] = who
                ability[t, 0], ability[t, 1], ability[t, 2] = d0_0, s_0, r_0
                counts[t, 0] = counts[t, 1] = 0
                topic_s[t] = 0.0
            d0, s, r = ability[t, 0], ability[t, 1], ability[t, 2]
            n_right, n_wrong, last_s = counts[t, 0], counts[t, 1], topic_s[t]
            topic_drift = topic_drift_0 / (1.0 + (n_right + n_wrong) / topic_drift_n0)
            m, v = topic_ability(g, vg, d0, s, r)
            v += drift + topic_drift
        trace = NEVER_MET
        if item_of[i] == who:
            trace = (traces[i, 0], traces[i, 1], traces[i, 2], traces[i, 3], last_right[i])
        row = features(n_right, n_wrong, last_s, form, trace, number, start_s[k])
        gain = recall[k] if trace[0] >= 0 else 0.0
        for w in range(len(weights)):
            rows[k, w] = row[w]
            gain += weights[w] * row[w]
        eased = b[k] - gain / a[k]
        probability[k] = predict_correct(m, v, a[k], eased, c[k], b_var[k])
        mean[k], variance[k] = m, v
        form = next_form(form, plug_in(m, a[k], b[k], c[k], gain), right)
        if t < 0:
            g, vg = match(g, v, a[k], eased, c[k], right, b_var[k])
        else:
            g, vg, d0, s, r = fold_drifted(
                g, vg, d0, s, r, a[k], eased, c[k], right, b_var[k], drift, topic_drift
            )
            ability[t, 0], ability[t, 1], ability[t, 2] = d0, s, r
            counts[t, 0] += right
            counts[t, 1] += not right
            topic_s[t] = end_s[k]
        if item_of[i] != who:
            if remembered >= memory_items:
                if not memory_items:
                    continue
                # Forget the item answered longest ago: an attempt that is its item's last.
                while True:
                    old = item[start + oldest]
                    if item_of[old] == who and traces[old, 0] == oldest:
                        break
                    oldest += 1
                item_of[old] = -1
                remembered -= 1
            remembered += 1
            item_of[i] = who
            traces[i, 2] = traces[i, 3] = 0
        # Kept as they are stored, see `stream.domain.memory`.
        traces[i, 0], traces[i, 1] = number, np.int64(end_s[k]) & 0xFFFF_FFFF
        place = 2 if right else 3
        traces[i, place] = min(traces[i, place] + 1, MAX_COUNT)
        last_right[i] = right
