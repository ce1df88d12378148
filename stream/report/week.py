"""The week a report is of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

__all__ = ["Week"]

_FORMS = re.compile(r"(\d{4})-W(\d{1,2})|(\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True, slots=True, order=True)
class Week:
    """A week from Monday to Sunday, UTC days.

    Parameters
    ----------
    start
        Its Monday.
    """

    start: date

    @classmethod
    def of(cls, day: date) -> Week:
        """Return the week that holds a day."""
        return cls(day - timedelta(days=day.weekday()))

    @classmethod
    def parse(cls, text: str) -> Week:
        """Read a week as a day in it (``2025-03-26``) or by its ISO number (``2025-W13``).

        Raises
        ------
        ValueError
            Neither, or no such day or week.

        Examples
        --------
        >>> Week.parse("2025-W13") == Week.parse("2025-03-26") == Week(date(2025, 3, 24))
        True
        """
        match = _FORMS.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is neither a day such as 2025-03-26 nor 2025-W13")
        year, number, day = match.groups()
        try:
            return cls.of(
                date.fromisoformat(day) if day else date.fromisocalendar(int(year), int(number), 1)
            )
        except ValueError as error:
            raise ValueError(f"there is no {text!r}: {error}") from error

    @property
    def end(self) -> date:
        """Its Sunday, the ``as_of`` of its indicators."""
        return self.start + timedelta(days=6)

    @property
    def cut(self) -> datetime:
        """The moment it is over: what happened before that is in it or earlier."""
        return datetime.combine(self.start + timedelta(days=7), time(), UTC)

    def back(self, weeks: int) -> Week:
        """Return an earlier week."""
        return Week(self.start - timedelta(weeks=weeks))

    def __str__(self) -> str:
        """Return the ISO number: ``2025-W13``."""
        year, number, _ = self.start.isocalendar()
        return f"{year}-W{number:02d}"
