"""The weekly indicators beside I_t. Formulas: ``docs/counting-rules.md``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import erfc, sqrt

__all__ = [
    "SESSION_GAP_MS",
    "SESSION_NORM",
    "chance_above_target",
    "efficiency",
    "engagement",
    "mean_and_cv",
    "median",
    "recovery",
    "session_count",
    "stopping_risk",
]

SESSION_GAP_MS = 30 * 60 * 1000
"""Longest pause (ms) within a session."""

SESSION_NORM = 28
"""Sessions in four weeks that count as full engagement: one a day."""


def median(values: Sequence[float]) -> float | None:
    """Return the exact median (mean of the middle two), or None without values.

    Examples
    --------
    >>> median([3, 1, 2, 10])
    2.5
    """
    n = len(values)
    if n == 0:
        return None
    ordered = sorted(values)
    middle = n // 2
    return float(ordered[middle]) if n % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def efficiency(median_prev: float | None, median_recent: float | None) -> float | None:
    """Return E_t: by what share correct answers became quicker, 0..1.

    Examples
    --------
    >>> efficiency(10_000, 8_000)
    0.2
    """
    if median_prev is None or median_recent is None or median_prev == 0:
        return None
    return max(0.0, min(1.0, (median_prev - median_recent) / median_prev))


def recovery(missed: int, recovered: int) -> float | None:
    """Return R_t: share of missed items answered right later; None without misses."""
    return recovered / missed if missed else None


def session_count(times_ms: Sequence[int]) -> int:
    """Count the sessions of one UTC day.

    Parameters
    ----------
    times_ms
        Times of the day's attempts in milliseconds, ascending.
    """
    if not times_ms:
        return 0
    pairs = itertools.pairwise(times_ms)
    return 1 + sum(later - earlier > SESSION_GAP_MS for earlier, later in pairs)


def mean_and_cv(gaps: Sequence[int]) -> tuple[float, float]:
    """Return the mean of the gaps between active dates (days) and their coefficient of variation.

    ``gaps`` must not be empty; gaps are >= 1, so that the mean is never 0.
    """
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    return mean, sqrt(variance) / mean


def engagement(sessions: int, active_days: Sequence[int]) -> float | None:
    """Return A_t: half sessions against the norm, half regularity.

    Parameters
    ----------
    sessions
        Sessions in the 28 days.
    active_days
        Active dates as day numbers, ascending.
    """
    if not active_days:
        return None
    regularity = 0.0
    if len(active_days) >= 3:
        _, cv = mean_and_cv(_gaps(active_days))
        regularity = 1.0 / (1.0 + cv)
    return 0.5 * min(1.0, sessions / SESSION_NORM) + 0.5 * regularity


def chance_above_target(theta: float, se: float, target: float) -> float:
    """Return P = 1 - Phi((target - theta) / se): probability that ability exceeds the target.

    ``se`` must be > 0.

    Examples
    --------
    >>> chance_above_target(0.5, 0.5, 0.5)
    0.5
    """
    return 0.5 * erfc((target - theta) / se / sqrt(2.0))


def stopping_risk(as_of: int, active_days: Sequence[int], sessions: int) -> float | None:
    """Return S: the risk that the learner has stopped, 0..1.

    Parameters
    ----------
    as_of
        Day number of the row.
    active_days
        Active dates of the 28 days up to as_of, ascending.
    sessions
        Sessions in those days.
    """
    if not active_days:
        return None
    mean_gap = mean_and_cv(_gaps(active_days))[0] if len(active_days) >= 2 else 7.0
    return (
        0.6 * min(1.0, (as_of - active_days[-1]) / 14)
        + 0.25 * min(1.0, mean_gap / 7)
        + 0.15 * (1.0 - min(1.0, sessions / 10))
    )


def _gaps(days: Sequence[int]) -> list[int]:
    return [later - earlier for earlier, later in itertools.pairwise(days)]
