"""Item calibration by marginal maximum a posteriori (1PL, 2PL, 3PL), EM with acceleration.

Ability is integrated out on a grid under a normal group: N(0, 1), or with fixed anchors a
group whose mean and standard deviation are estimated, so that the fit is on the anchors'
scale from the start.

References
----------
Bock & Aitkin (1981), Psychometrika 46, for the EM; Mislevy (1986), Psychometrika 51, for
the priors; Varadhan & Roland (2008), Scand. J. Statist. 35, scheme S3, for SQUAREM.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stream.calibration.information import standard_errors
from stream.calibration.marginal import IntArray, Marginal, Responses, log_probabilities
from stream.calibration.maximise import (
    NO_GUESSING,
    NO_PRIORS,
    Priors,
    at_bound,
    clip,
    curves,
    maximise,
)
from stream.domain.irt import FloatArray, ItemParams
from stream.errors import EstimationError

__all__ = ["NO_PRIORS", "Calibration", "Model", "Priors", "Responses", "calibrate"]

Model = Literal["1PL", "2PL", "3PL"]

_START_GUESSING = 0.15


@dataclass(frozen=True, slots=True)
class Calibration:
    """Result of a fit. Item arrays are (n_items,), learner arrays (n_learners,)."""

    model: Model
    a: FloatArray
    b: FloatArray
    c: FloatArray
    se_a: FloatArray
    se_b: FloatArray
    se_c: FloatArray
    """Standard errors; 0 for what was held fixed, nan where nothing is known."""
    n: IntArray
    n_correct: IntArray
    """Responses and correct responses of each item."""
    theta: FloatArray
    theta_se: FloatArray
    """EAP ability and posterior standard deviation under the fitted group."""
    mean: float
    sd: float
    """The group: 0 and 1, or estimated when there are fixed anchors."""
    mean_se: float
    sd_se: float
    loglik: float
    """Marginal log-likelihood, without the priors' part."""
    iterations: int
    """E-steps made."""
    change: float
    """Largest parameter change of the last EM step."""
    converged: bool
    at_bound: NDArray[np.bool_]
    """Items whose slope or difficulty ran to its limit."""
    se_method: str
    """How the standard errors were made, see `information.standard_errors`."""


def calibrate(
    responses: Responses,
    model: Model = "2PL",
    anchors: Mapping[int, ItemParams] | None = None,
    priors: Priors = Priors(),  # noqa: B008  frozen
    *,
    tol: float = 2e-5,
    max_iterations: int = 500,
) -> Calibration:
    """Fit item parameters and score the learners.

    Parameters
    ----------
    responses
        The data.
    model
        1PL: one slope for all free items. 2PL: a slope each. 3PL: and a lower asymptote.
    anchors
        Items held as they are, by index. With any, the group's mean and standard
        deviation are free, else 0 and 1.
    priors
        `NO_PRIORS` for plain maximum likelihood.
    tol
        Stop when no log a, intercept, c, mean or log sd changes by more in an EM step.
    max_iterations
        E-steps before giving up; ``converged`` is then false.

    Returns
    -------
    Calibration
        Always finite estimates; look at ``converged`` and ``at_bound`` before using them.

    Raises
    ------
    EstimationError
        No responses, fewer than two learners, an unknown model, or an anchor nobody
        answered.
    """
    if model not in get_args(Model):
        raise EstimationError(f"model {model!r} is not known; it must be 1PL, 2PL or 3PL")
    if len(responses.learner) == 0:
        raise EstimationError("there are no observations to fit")
    if responses.n_learners < 2:
        raise EstimationError("one learner alone cannot calibrate items; at least 2 are needed")
    em = _Em(responses, model, anchors or {}, priors)
    psi, iterations, change = _squarem(em, tol, max_iterations)
    items, mean, log_sd = em.unpack(psi)
    a, b, c = curves(items)
    sd = math.exp(log_sd)
    tables = log_probabilities(a, b, c, mean + sd * em.marginal.nodes)
    loglik = em.marginal.e_step(*tables).loglik
    theta, theta_se = em.marginal.abilities(*tables, mean, sd)
    errors = standard_errors(
        em.marginal, items, em.free, mean, sd, priors, em.common_slope, bool(em.anchored)
    )
    return Calibration(
        model=model,
        a=a,
        b=b,
        c=c,
        se_a=a * errors.items[:, 0],
        se_b=errors.items[:, 1],
        se_c=c * (1.0 - c) * errors.items[:, 2],
        n=np.bincount(responses.item, minlength=responses.n_items),
        n_correct=np.bincount(responses.item[responses.correct], minlength=responses.n_items),
        theta=theta,
        theta_se=theta_se,
        mean=mean,
        sd=sd,
        mean_se=errors.mean,
        sd_se=sd * errors.log_sd,
        loglik=loglik,
        iterations=iterations + 1,
        change=change,
        converged=change < tol,
        at_bound=at_bound(items, em.free),
        se_method=errors.method,
    )


class _Em:
    """The EM map on one parameter vector: the items' rows, then mean and log sd."""

    def __init__(
        self,
        responses: Responses,
        model: Model,
        anchors: Mapping[int, ItemParams],
        priors: Priors,
    ) -> None:
        self.marginal = Marginal(responses)
        self.priors = priors
        self.common_slope = model == "1PL"
        self.anchored = sorted(anchors)
        self.free = np.ones((responses.n_items, 3), np.bool_)
        self.free[:, 2] = model == "3PL"
        self.free[self.anchored] = False
        self._start = self._first(responses, model, anchors)

    def _first(
        self, responses: Responses, model: Model, anchors: Mapping[int, ItemParams]
    ) -> FloatArray:
        """Return unit slopes, difficulties from the proportions correct, anchors as given."""
        n = np.bincount(responses.item, minlength=responses.n_items)
        if any(n[i] == 0 for i in anchors):
            raise EstimationError("an anchor without any observation cannot fix the scale")
        right = np.bincount(responses.item, responses.correct, minlength=responses.n_items)
        guess = _START_GUESSING if model == "3PL" else 0.0
        p = np.clip(((right + 0.5) / (n + 1.0) - guess) / (1.0 - guess), 0.02, 0.98)
        items = np.zeros((responses.n_items, 3))
        items[:, 1] = -1.2 * np.log(p / (1.0 - p))
        items[:, 2] = math.log(guess / (1.0 - guess)) if guess else NO_GUESSING
        shift = 0.0
        if anchors:
            shift = float(np.mean([p.b - items[i, 1] for i, p in anchors.items()]))
            items[:, 1] += shift
        for i, anchor in anchors.items():
            logit_c = math.log(anchor.c / (1.0 - anchor.c)) if anchor.c > 0.0 else NO_GUESSING
            items[i] = math.log(anchor.a), anchor.b, logit_c
        return np.concatenate([items.ravel(), [shift, 0.0]])

    def start(self) -> FloatArray:
        """Return the first parameter vector."""
        return self._start

    def unpack(self, psi: FloatArray) -> tuple[FloatArray, float, float]:
        """Return (items, mean, log sd)."""
        return psi[:-2].reshape(-1, 3), float(psi[-2]), float(psi[-1])

    def inside(self, psi: FloatArray) -> FloatArray:
        """Bring an extrapolated vector back inside the limits."""
        items, mean, log_sd = self.unpack(psi)
        items = clip(items, self.free)
        return np.concatenate([items.ravel(), [mean, min(2.0, max(-3.0, log_sd))]])

    def step(self, psi: FloatArray) -> tuple[FloatArray, float]:
        """One EM step, and the objective (penalised log-likelihood) at ``psi`` itself."""
        items, mean, log_sd = self.unpack(psi)
        sd = math.exp(log_sd)
        theta = mean + sd * self.marginal.nodes
        moments = self.marginal.e_step(*log_probabilities(*curves(items), theta))
        objective = moments.loglik + self._log_prior(items)
        items = maximise(items, self.free, moments, theta, self.priors, self.common_slope)
        first = float(moments.node_share @ self.marginal.nodes)
        second = float(moments.node_share @ self.marginal.nodes**2)
        spread = math.sqrt(max(second - first * first, 1e-6))
        if self.anchored:
            mean += sd * first
            log_sd += math.log(spread)
        else:
            # The group found is the unit: without this the priors of many items would
            # outvote few learners about the scale. It also speeds the EM up.
            items = items + np.array([math.log(spread), 0.0, 0.0])
            items[:, 1] = (items[:, 1] - first) / spread
        return self.inside(np.concatenate([items.ravel(), [mean, log_sd]])), objective

    def _log_prior(self, items: FloatArray) -> float:
        centres = self.priors.centres(items, self.common_slope)
        parts = self.priors.log_density(items, self.free, centres)[self.free[:, 1]]
        total = float(parts.sum()) + self.priors.log_density_of_centres(centres)
        if self.common_slope and len(parts):  # the common slope's prior counts once
            log_a = items[self.free[:, 0], 0][0]
            total += 0.5 * (len(parts) - 1) * (log_a / self.priors.log_a_sd) ** 2
        return total

    def change(self, before: FloatArray, after: FloatArray) -> float:
        """Return the largest change of log a (times a below 1), intercept, c, mean, log sd.

        A flat curve's log a and b creep long after the curve itself stands still.
        """
        old, new = self.unpack(before)[0], self.unpack(after)[0]
        slope = np.minimum(1.0, np.exp(new[:, 0]))
        c_change = curves(new)[2] - curves(old)[2]
        parts = (
            (new[:, 0] - old[:, 0]) * slope,
            (new[:, 1] - old[:, 1]) * slope,
            c_change,
            after[-2:] - before[-2:],
        )
        return max(float(np.max(np.abs(part), initial=0.0)) for part in parts)


def _squarem(em: _Em, tol: float, max_iterations: int) -> tuple[FloatArray, int, float]:
    """Follow the EM map to its fixed point, leaping ahead where the objective agrees.

    Returns
    -------
    tuple
        Parameter vector, E-steps, largest change of the last EM step.
    """
    psi = em.start()
    used, longest = 0, 4.0
    while True:
        one, objective = em.step(psi)
        change = em.change(psi, one)
        used += 1
        if change < tol or used >= max_iterations:
            return one, used, change
        two, _ = em.step(one)
        change = em.change(one, two)
        used += 1
        if change < tol or used >= max_iterations:
            return two, used, change
        r, v = one - psi, two - 2.0 * one + psi
        curvature = float(np.linalg.norm(v))
        length = min(longest, float(np.linalg.norm(r)) / curvature) if curvature > 0.0 else 1.0
        if length <= 1.0:
            psi = two
            continue
        ahead = em.inside(psi + 2.0 * length * r + length * length * v)
        settled, reached = em.step(ahead)
        used += 1
        if reached >= objective:
            psi = settled
            longest = longest * 4.0 if length == longest else longest
        else:  # the leap went downhill: keep the plain steps, leap less far
            psi = two
            longest = max(2.0, longest / 4.0)
