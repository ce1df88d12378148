"""Whether anchors that were fixed in a fit agree with the answers, and so with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np

from stream.calibration.observations import Observations
from stream.calibration.runs import Ability
from stream.domain.irt import ItemParams
from stream.errors import EstimationError

__all__ = ["LEAST_SHIFT", "LEAST_Z", "misfitting_anchors"]

LEAST_SHIFT = 0.5
"""Least shift (logits) from which a fixed anchor counts as not fitting."""

LEAST_Z = 5.0
"""And how many standard deviations of its answers that must be."""

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def misfitting_anchors(
    observations: Observations, fixed: Mapping[str, ItemParams], abilities: Sequence[Ability]
) -> list[str]:
    """Find fixed anchors whose answers say something else than their parameters.

    A fit cannot show this by itself: what is fixed stays as it is, and everything else is bent
    to it. So the answers to each anchor are compared with those expected of the learners as
    they came out, each learner's uncertainty included.

    Parameters
    ----------
    observations
        What was fitted.
    fixed
        Anchors, as they were held.
    abilities
        Of the fit, on the anchors' scale. Learners without one are left out.

    Returns
    -------
    list
        A sentence each, the worst first; empty if all fit.

    Raises
    ------
    EstimationError
        Half of the anchors or more do not fit: they contradict each other or these answers.
    """
    known = {user: (theta, se) for user, theta, se in abilities}
    by_learner = np.array([known.get(user, (np.nan, np.nan)) for user in observations.learners])
    index = {item: i for i, item in enumerate(observations.items)}
    found: dict[str, float] = {}
    for item, (a, b, c) in fixed.items():
        rows = observations.item == index[item]
        theta, se = by_learner[observations.learner[rows]].T
        rise = 1.0 / (
            1.0 + np.exp(-np.clip(a * (theta[:, None] + np.outer(se, _NODES) - b), -700, 700))
        )
        p = c + (1.0 - c) * (rise @ _WEIGHTS)
        variance = float(np.nansum(p * (1.0 - p)))
        off = float(np.nansum(observations.correct[rows] - p))
        if abs(off) >= LEAST_SHIFT * variance and abs(off) >= LEAST_Z * sqrt(variance) > 0.0:
            found[item] = off / variance
    worst_first = sorted(found, key=lambda item: (-abs(found[item]), item))
    told = [
        f"The fixed anchor {item} is {abs(found[item]):.2f} logits "
        f"{'easier' if found[item] > 0.0 else 'harder'} here than its parameters say."
        for item in worst_first
    ]
    if 2 * len(told) >= len(fixed) > 0 and told:
        raise EstimationError(
            f"{len(told)} of the {len(fixed)} fixed anchors contradict each other or the answers, "
            f"so they set no scale. {' '.join(told[:3])} Correct meta.irt in the table question, "
            "or take the tag anchor from them"
        )
    return told
