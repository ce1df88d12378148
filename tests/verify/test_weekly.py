"""Expected rows of weekly_kpi, worked by hand."""

from __future__ import annotations

import datetime as dt

import pytest

from stream.verify.recompute import expected_rows

NAMES = ("I_t_accuracy", "E_t", "R_t", "A_t", "S")


def weekly(path):
    """(user, Monday's month, day) -> the indicators in the order of NAMES."""
    return {
        (row["user_id"], row["week_start"].month, row["week_start"].day): [
            row[name] for name in NAMES
        ]
        for row in expected_rows(path).weekly
    }


def approximately(*values):
    return [value if value is None else pytest.approx(value, rel=1e-12) for value in values]


def test_every_indicator_of_a_learners_weeks(write_log):
    log = write_log(
        [
            # Monday the 3rd: a session of three (a gap of exactly 30 min), one more a ms later
            # than that, one before midnight; another day, another session.
            {"at": "2025-03-03 10:00", "item_id": "i1", "correct": 0, "response_time_ms": 9000},
            {"at": "2025-03-03 10:20", "item_id": "i2", "correct": 1, "response_time_ms": 8000},
            {"at": "2025-03-03 10:50", "item_id": "i3", "correct": 1, "response_time_ms": 6000},
            {
                "at": "2025-03-03 11:20:00.001",
                "item_id": "i4",
                "correct": 0,
                "response_time_ms": 5000,
            },
            {"at": "2025-03-03 23:50", "item_id": "i5", "correct": 1, "response_time_ms": 7000},
            {"at": "2025-03-04 00:05", "item_id": "i5", "correct": 0, "response_time_ms": 1000},
            # Tuesday the 18th
            {"at": "2025-03-18 10:00", "item_id": "i1", "correct": 1, "response_time_ms": 3000},
            {"at": "2025-03-18 10:00", "item_id": "i4", "correct": 1, "response_time_ms": 4000},
            {"at": "2025-03-18 10:05", "item_id": "i2", "correct": 0, "response_time_ms": 2000},
            # The stream's latest week is that of the 24th.
            {"at": "2025-03-26 10:00", "user_id": "bob", "response_time_ms": ""},
        ]
    )
    rows = weekly(log)
    # Nothing before the 3rd: no I_t, no E_t. Missed i1, i4, i5, none right later. 4 sessions on 2
    # dates, so no regularity. Last active 5 days before the Sunday; one gap, of a day.
    assert rows["ann", 3, 3] == approximately(
        None, None, 0, 4 / 56, 0.6 * 5 / 14 + 0.25 / 7 + 0.15 * 0.6
    )
    assert rows["ann", 3, 10] == approximately(
        None, None, 0, 4 / 56, 0.6 * 12 / 14 + 0.25 / 7 + 0.15 * 0.6
    )
    # As of the 23rd: 2 of 3 right after 3 of 6, the penalty at its bound of a half. Median times
    # of right answers 3500 after 7000. Missed i1, i4, i5, i2; i1 and i4 right later. 5 sessions;
    # gaps 1 and 14: mean 7.5, sd 6.5, 1 / (1 + 6.5 / 7.5) = 7.5 / 14.
    kpis = (1 / 6 * 0.1 * 0.5, 0.5, 0.5, 0.5 * 5 / 28 + 0.5 * 7.5 / 14)
    assert rows["ann", 3, 17] == approximately(*kpis, 0.6 * 5 / 14 + 0.25 + 0.15 * 0.5)
    assert rows["ann", 3, 24] == approximately(*kpis, 0.6 * 12 / 14 + 0.25 + 0.15 * 0.5)
    # One attempt, right, no time. No gap counts as 7 days.
    assert rows["bob", 3, 24] == approximately(
        None, None, None, 0.5 / 28, 0.6 * 4 / 14 + 0.25 + 0.15 * 0.9
    )
    assert set(rows) == {
        ("ann", 3, 3),
        ("ann", 3, 10),
        ("ann", 3, 17),
        ("ann", 3, 24),
        ("bob", 3, 24),
    }


def test_rows_run_from_the_first_week_to_four_weeks_after_the_last(write_log):
    log = write_log(
        [
            {"at": "2025-03-09 23:59"},  # a Sunday
            {"at": "2025-05-05 00:00", "user_id": "bob"},  # a Monday
        ]
    )
    weeks = {key[1:] for key in weekly(log) if key[0] == "ann"}
    assert weeks == {(3, 3), (3, 10), (3, 17), (3, 24), (3, 31)}
    assert {key for key in weekly(log) if key[0] == "bob"} == {("bob", 5, 5)}


def test_the_first_week_is_by_event_time_even_if_that_attempt_came_late(write_log):
    log = write_log([{"at": "2025-03-10 00:00"}, {"at": "2025-03-09 23:59"}])
    assert [key[1:] for key in weekly(log)] == [(3, 3), (3, 10)]


def test_weeks_within_a_long_pause_have_rows_without_values(write_log):
    log = write_log(
        [
            {"at": "2025-03-03 10:00", "correct": 0, "response_time_ms": 10},
            {"at": "2025-04-14 10:00", "correct": 1, "response_time_ms": 10},
        ]
    )
    rows = weekly(log)
    assert len(rows) == 7
    # The fourth Sunday after still sees the 3rd of March; the fifth does not.
    assert rows["ann", 3, 24] == approximately(None, None, 0, 0.5 / 28, 0.6 + 0.25 + 0.15 * 0.9)
    assert rows["ann", 3, 31] == [None] * 5
    assert rows["ann", 4, 7] == [None] * 5


def test_a_learner_whose_attempts_were_all_voided_keeps_rows_without_values(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-03 10:00", "correct": 0, "response_time_ms": 10},
            {"op": "void", "supersedes": "x", "at": "2025-03-05 10:00"},
            {"at": "2025-03-12 10:00", "user_id": "bob"},
        ]
    )
    rows = weekly(log)
    assert rows["ann", 3, 3] == [None] * 5
    assert rows["ann", 3, 10] == [None] * 5


def test_pace_is_clamped_and_null_without_times_to_compare(write_log):
    def pace(before, after):
        log = write_log(
            [
                {"at": "2025-03-05 10:00", "response_time_ms": before},
                {"at": "2025-03-05 10:01", "response_time_ms": 1, "correct": 0},
                {"at": "2025-03-19 10:00", "response_time_ms": after},
                {"at": "2025-03-19 10:01", "response_time_ms": 1, "correct": 0},
            ]
        )
        return weekly(log)["ann", 3, 17][1]

    assert pace(2000, 500) == 0.75
    assert pace(2000, 2500) == 0.0
    assert pace(2000, 0) == 1.0
    assert pace(0, 500) is None
    assert pace("", 500) is None
    assert pace(2000, "") is None


def test_an_item_is_recovered_only_strictly_later_and_within_the_window(write_log):
    log = write_log(
        [
            {"at": "2025-03-05 10:00", "item_id": "tie", "correct": 0},
            {"at": "2025-03-05 10:00", "item_id": "tie", "correct": 1},
            {"at": "2025-03-05 10:00", "item_id": "next", "correct": 0},
            {"at": "2025-03-05 10:00:00.001", "item_id": "next", "correct": 1},
            {"at": "2025-03-06 10:00", "item_id": "again", "correct": 0},
            {"at": "2025-03-07 10:00", "item_id": "again", "correct": 1},
            {"at": "2025-03-08 10:00", "item_id": "again", "correct": 0},
            {"at": "2025-03-31 10:00", "item_id": "tie", "correct": 1},
        ]
    )
    rows = weekly(log)
    assert rows["ann", 3, 3][2] == pytest.approx(2 / 3)
    # As of 6 April only the tie's right answer of 31 March is left: no miss.
    assert rows["ann", 3, 31][2] is None


def test_even_gaps_are_fully_regular_and_28_sessions_are_the_norm(write_log):
    days = [dt.date(2025, 3, 3) + dt.timedelta(days=n) for n in range(28)]
    log = write_log([{"at": f"{day} {hour}:00"} for day in days for hour in (10, 12)])
    rows = weekly(log)
    assert rows["ann", 3, 24][3] == 1.0
    # Active on the Sunday itself, each day, 56 sessions.
    assert rows["ann", 3, 24][4] == pytest.approx(0.25 / 7)
