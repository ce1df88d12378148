"""Corrections: taking an earlier attempt back out of a learner's ability, or rescoring it.

A void or a regrade comes when later attempts are folded already. Only the state is kept, not
what led to it, so the answer's share is divided out of the present Gaussian.
"""

from __future__ import annotations

from stream.domain.ability import (
    DEFAULT_FILTER,
    FilterConfig,
    GlobalState,
    TopicState,
    fold,
    match,
    regress,
)

__all__ = ["rescore", "rescore_global", "unfold", "unfold_global"]

_NO_DRIFT = FilterConfig(drift=0.0, topic_drift=0.0)


def unfold(
    g: float,
    vg: float,
    d0: float,
    s: float,
    r: float,
    a: float,
    b: float,
    c: float,
    correct: bool,
    b_var: float = 0.0,
    config: FilterConfig = DEFAULT_FILTER,
) -> TopicState:
    """Take one earlier attempt of a topic back out of a learner's state.

    Looks for the Gaussian that this answer would turn into the present one and puts it
    in its place. For the last attempt folded without drift this is the exact inverse of
    `fold`; for an earlier one it is approximate, since the answer was weighed against
    another state than today's: with 30 attempts and the default drift the mean is within
    .05 of a refold without it on average (a test states the bound).

    Parameters
    ----------
    g, vg, d0, s, r, a, b, c, correct, b_var, config
        As for `fold`, with the values the attempt was folded with.

    Returns
    -------
    tuple
        The new (g, vg, d0, s, r). No variance rises above its prior's.
    """
    cov = s * vg
    vd = s * cov + r
    d = d0 + s * g
    g_load, d_load = vg + cov, vd + cov
    v = g_load + d_load
    m = g + d
    k_g, k_d = g_load / v, d_load / v
    room = min(
        _room(vg, config.prior_var, k_g),
        _room(vd, config.topic_var, k_d),
    )
    m_new, v_new = _cavity(m, v, v + room, a, b, c, correct, b_var)
    return regress(g, vg, d, vd, cov, k_g, k_d, m_new - m, v_new - v)


def unfold_global(
    g: float,
    vg: float,
    a: float,
    b: float,
    c: float,
    correct: bool,
    b_var: float = 0.0,
    config: FilterConfig = DEFAULT_FILTER,
) -> GlobalState:
    """Take one earlier attempt without a topic back out: as `unfold` with theta = g."""
    return _cavity(g, vg, max(vg, config.prior_var), a, b, c, correct, b_var)


def rescore(
    g: float,
    vg: float,
    d0: float,
    s: float,
    r: float,
    a: float,
    b: float,
    c: float,
    correct: bool,
    b_var: float = 0.0,
    config: FilterConfig = DEFAULT_FILTER,
) -> TopicState:
    """Replace the score of an earlier attempt by ``correct`` (it was ``not correct``).

    `unfold` with the old score, then the new one in its place, without drift: a regrade
    is no new evidence that time has passed.
    """
    g, vg, d0, s, r = unfold(g, vg, d0, s, r, a, b, c, not correct, b_var, config)
    return fold(g, vg, d0, s, r, a, b, c, correct, 0, 0, b_var, _NO_DRIFT)


def rescore_global(
    g: float,
    vg: float,
    a: float,
    b: float,
    c: float,
    correct: bool,
    b_var: float = 0.0,
    config: FilterConfig = DEFAULT_FILTER,
) -> GlobalState:
    """Replace the score of an earlier attempt without a topic: see `rescore`."""
    g, vg = unfold_global(g, vg, a, b, c, not correct, b_var, config)
    return match(g, vg, a, b, c, correct, b_var)


def _room(variance: float, prior: float, k: float) -> float:
    """How much theta's variance may rise before a part passes its prior variance."""
    return max(0.0, prior - variance) / (k * k) if k * k > 1e-12 else float("inf")


def _cavity(
    m: float, v: float, v_max: float, a: float, b: float, c: float, correct: bool, b_var: float
) -> tuple[float, float]:
    """Find the (mean, variance) that `match` turns into (m, v), variance <= v_max."""
    mean, variance = m, v
    for _ in range(100):
        m_after, v_after = match(mean, variance, a, b, c, correct, b_var)
        precision = 1.0 / variance + 1.0 / v - 1.0 / v_after
        mean += m - m_after
        variance = min(v_max, 1.0 / precision) if precision > 0.0 else v_max
        variance = max(variance, 0.5 * v)  # a lucky guess may have widened it
        if abs(m - m_after) < 1e-12 and abs(v - v_after) < 1e-12:
            break
    return mean, variance
