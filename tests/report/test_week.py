"""Weeks by day and by number."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from stream.report import Week


@pytest.mark.parametrize("text", ["2025-W13", "2025-03-24", "2025-03-30", " 2025-03-26 "])
def test_a_week_is_named_by_its_number_or_any_day_in_it(text: str) -> None:
    week = Week.parse(text)
    assert (week.start, week.end) == (date(2025, 3, 24), date(2025, 3, 30))
    assert week.cut == datetime(2025, 3, 31, tzinfo=UTC)
    assert str(week) == "2025-W13"


def test_the_year_of_a_week_is_that_of_its_thursday() -> None:
    assert str(Week.parse("2024-12-30")) == "2025-W01"
    assert Week.parse("2025-W01").start == date(2024, 12, 30)


def test_weeks_can_be_counted_back() -> None:
    assert str(Week.parse("2025-W01").back(1)) == "2024-W52"


@pytest.mark.parametrize("text", ["", "2025", "2025-W54", "2025-W00", "2025-02-30", "24.3.2025"])
def test_what_is_no_week_is_refused_by_what_was_given(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)):
        Week.parse(text)
