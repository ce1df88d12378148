"""The improvement index I_t: recent against previous fortnight.

Formulas: ``docs/counting-rules.md``. Each function is one term, so that a worked example can be
followed by hand.
"""

from __future__ import annotations

from math import sqrt

__all__ = [
    "FULL_EXPOSURE",
    "MIN_RECENT_FOR_THETA",
    "accuracy_improvement",
    "confidence_factor",
    "exposure",
    "theta_improvement",
]

FULL_EXPOSURE = 30
"""Recent attempts from which on the index counts in full."""

MIN_RECENT_FOR_THETA = 5
"""Fewest recent attempts for the theta form."""


def exposure(n_recent: int) -> float:
    """Return how much of the index counts, 0..1, for a number of recent attempts."""
    return min(1.0, n_recent / FULL_EXPOSURE)


def confidence_factor(se: float) -> float:
    """Return 1 less half the width of the 95 % interval, at least one half."""
    return 1.0 - min(0.5, 1.96 * se)


def accuracy_improvement(n_prev: int, k_prev: int, n_recent: int, k_recent: int) -> float | None:
    """Return I_t from proportions correct.

    Parameters
    ----------
    n_prev, k_prev
        Attempts and correct ones in the previous window.
    n_recent, k_recent
        The same in the recent window.

    Returns
    -------
    float or None
        In [-1, 1]; None when either window is empty.

    Examples
    --------
    10 of 20 before, 24 of 30 now: (.8 - .5) * 1 * (1 - 1.96 sqrt(.8 * .2 / 30)).

    >>> round(accuracy_improvement(20, 10, 30, 24), 6)
    0.257059
    """
    if n_prev <= 0 or n_recent <= 0:
        return None
    p = k_recent / n_recent
    return (
        (p - k_prev / n_prev) * exposure(n_recent) * confidence_factor(sqrt(p * (1 - p) / n_recent))
    )


def theta_improvement(
    theta_prev: float, theta_recent: float, se_recent: float, n_recent: int
) -> float:
    """Return I_t from abilities, held within [-1, 1].

    Parameters
    ----------
    theta_prev, theta_recent
        Ability (logits) on the last active day of the previous and recent window.
    se_recent
        Standard error of the recent ability.
    n_recent
        Attempts in the recent window.

    Examples
    --------
    >>> round(theta_improvement(0.1, 0.6, 0.2, 15), 3)
    0.152
    """
    value = (theta_recent - theta_prev) * exposure(n_recent) * confidence_factor(se_recent)
    return max(-1.0, min(1.0, value))
