"""Calendar arithmetic on day numbers (days since 1970-01-01, UTC)."""

from __future__ import annotations

__all__ = [
    "CORRECTION_DAYS",
    "DAY_MS",
    "KPI_WEEKS_AFTER_LAST",
    "RECENT_DAYS",
    "WINDOW_DAYS",
    "day_of",
    "retained_days",
    "storage_days",
    "sunday_of",
    "week_of",
]

DAY_MS = 86_400_000

RECENT_DAYS = 14
"""Days of the recent window; the previous window has as many before it."""

WINDOW_DAYS = 28
"""Days that a row's values depend on: those that end with its as_of."""

CORRECTION_DAYS = 28
"""Days, beside the lateness, within which an attempt can be voided or regraded."""

KPI_WEEKS_AFTER_LAST = 4
"""Weeks after a learner's last that still get a weekly row."""


def day_of(ms: int) -> int:
    """Return the UTC day number of a time in epoch milliseconds."""
    return ms // DAY_MS


def week_of(day: int) -> int:
    """Return the Monday (as a day number) of a day's week; 1970-01-01 was a Thursday.

    Examples
    --------
    >>> week_of(4), week_of(10), week_of(11)
    (4, 4, 11)
    """
    return day - (day + 3) % 7


def sunday_of(week_start: int) -> int:
    """Return the as_of of a weekly row: the Sunday that ends the week."""
    return week_start + 6


def retained_days(lateness_days: int) -> int:
    """Return for how many days before the latest an attempt_id is known and correctable."""
    return CORRECTION_DAYS + lateness_days


def storage_days(lateness_days: int) -> int:
    """Return for how many days before the latest attempts are stored.

    A correction on the oldest retained day changes rows whose windows reach back 27 days more.
    """
    return retained_days(lateness_days) + WINDOW_DAYS - 1
