"""Expected rows of features_topic_daily, and the totals, worked by hand."""

from __future__ import annotations

import datetime as dt
from math import sqrt

import pytest

from stream.verify.recompute import expected_rows

MARCH_10 = dt.date(2025, 3, 10)


def features(path, **options):
    rows = expected_rows(path, **options).features
    return {(row["user_id"], row["topic_id"], row["date"]): row for row in rows}


def test_a_row_holds_the_counts_and_times_of_its_day(write_log):
    log = write_log(
        [
            {"at": "2025-03-10 10:00", "response_time_ms": 4000, "hint_used": 1},
            {"at": "2025-03-10 10:03", "response_time_ms": 5000},
            {"at": "2025-03-10 10:01", "response_time_ms": 7000, "correct": 0},
            {"at": "2025-03-10 10:02", "response_time_ms": ""},
            {"at": "2025-03-10 10:04", "topic_id": "", "response_time_ms": 1000},
            {"at": "2025-03-10 11:00", "topic_id": "t2", "response_time_ms": 10},
            {"at": "2025-03-10 11:01", "topic_id": "t2", "response_time_ms": 1000},
            {"at": "2025-03-10 11:02", "topic_id": "t2", "response_time_ms": 31},
            {"at": "2025-03-10 11:03", "topic_id": "t2", "response_time_ms": 20},
            {"at": "2025-03-10 12:00", "topic_id": "t3", "response_time_ms": ""},
        ]
    )
    rows = features(log)
    assert set(rows) == {("ann", topic, MARCH_10) for topic in ("t1", "t2", "t3")}
    assert rows["ann", "t1", MARCH_10] == {
        "user_id": "ann",
        "topic_id": "t1",
        "date": MARCH_10,
        "attempts": 4,
        "correct": 3,
        "hints": 1,
        "avg_time_ms": pytest.approx(16000 / 3, rel=1e-12),
        "rt_median": 5000.0,
        "last_seen_at": 1_741_600_980_000,  # 2025-03-10 10:03 UTC
        "improvement_accuracy": None,
        "n_recent": 10,
    }
    # The middle two of 10, 20, 31, 1000.
    assert rows["ann", "t2", MARCH_10]["rt_median"] == 25.5
    assert rows["ann", "t2", MARCH_10]["avg_time_ms"] == 265.25
    assert rows["ann", "t3", MARCH_10]["rt_median"] is None
    assert rows["ann", "t3", MARCH_10]["avg_time_ms"] is None


def test_a_day_ends_at_midnight_utc(write_log):
    log = write_log([{"at": "2025-03-10 23:59:59.999"}, {"at": "2025-03-11 00:00:00.000"}])
    rows = features(log)
    assert [(date.day, row["attempts"]) for (_, _, date), row in rows.items()] == [(10, 1), (11, 1)]


def test_a_row_whose_attempts_were_all_voided_stays_with_zeros_and_nulls(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-10 10:00", "response_time_ms": 9, "hint_used": 1},
            {"attempt_id": "y", "at": "2025-03-11 10:00", "response_time_ms": 8},
            {"op": "void", "supersedes": "x", "at": "2025-03-12 10:00"},
        ]
    )
    row = features(log)["ann", "t1", MARCH_10]
    assert [row[name] for name in ("attempts", "correct", "hints", "n_recent")] == [0, 0, 0, 0]
    assert [row[name] for name in ("avg_time_ms", "rt_median", "last_seen_at")] == [None] * 3


def test_voids_and_regrades_act_on_the_day_of_their_attempt(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-10 10:00", "response_time_ms": 900, "correct": 0},
            {"attempt_id": "y", "at": "2025-03-10 10:01", "response_time_ms": 100, "correct": 0},
            {"attempt_id": "z", "at": "2025-03-10 10:02", "response_time_ms": 500, "hint_used": 1},
            {"op": "regrade", "supersedes": "x", "correct": 1, "at": "2025-03-20 10:00"},
            {"op": "void", "supersedes": "z", "at": "2025-03-20 10:00"},
        ]
    )
    rows = features(log)
    assert set(rows) == {("ann", "t1", MARCH_10)}
    row = rows["ann", "t1", MARCH_10]
    names = ("attempts", "correct", "hints", "rt_median", "last_seen_at")
    assert [row[name] for name in names] == [2, 1, 0, 500.0, 1_741_600_860_000]


def test_improvement_compares_the_last_14_days_with_the_14_before(write_log):
    # As of the 24th: recent = 11th..24th, previous = 25 February..10th.
    log = write_log(
        [
            {"at": "2025-02-24 10:00", "correct": 0},  # a day too old
            {"at": "2025-02-25 10:00", "correct": 1},
            {"at": "2025-03-10 10:00", "correct": 0},
            {"at": "2025-03-11 10:00", "correct": 1},
            {"at": "2025-03-11 10:01", "correct": 1, "topic_id": ""},  # no topic, but counted
            {"at": "2025-03-24 10:00", "correct": 1},
            {"at": "2025-03-24 10:01", "correct": 0, "topic_id": "t2"},
            {"at": "2025-03-25 10:00", "correct": 0},  # after as_of
        ]
    )
    rows = features(log)
    # 3 of 4 right after 1 of 2; exposure 4 / 30; penalty 1.96 sqrt(.75 x .25 / 4) = .424...
    by_hand = (0.75 - 0.5) * (4 / 30) * (1 - 1.96 * sqrt(0.1875 / 4))
    for topic in ("t1", "t2"):
        row = rows["ann", topic, dt.date(2025, 3, 24)]
        assert row["improvement_accuracy"] == pytest.approx(by_hand, rel=1e-12)
        assert row["n_recent"] == 4
    # As of 11 March: recent = 26 February..11th holds 2 of 3, previous = 12th..25th holds 1 of 2.
    # 1.96 sqrt(2/9 / 3) = .533 is more than a half.
    row = rows["ann", "t1", dt.date(2025, 3, 11)]
    assert row["improvement_accuracy"] == pytest.approx((2 / 3 - 1 / 2) * (3 / 30) * 0.5, rel=1e-12)
    # As of 10 March: 25 February is its first recent day; 1 of 2 after the one wrong of the 24th.
    row = rows["ann", "t1", MARCH_10]
    assert row["improvement_accuracy"] == pytest.approx(0.5 * (2 / 30) * 0.5, rel=1e-12)
    assert rows["ann", "t1", dt.date(2025, 2, 25)]["improvement_accuracy"] is None


def test_exposure_is_full_from_30_recent_attempts_on(write_log):
    log = write_log(
        [{"at": "2025-03-01 10:00", "correct": 0}]
        + [{"at": f"2025-03-20 10:{minute}"} for minute in range(10, 50)]
    )
    assert features(log)["ann", "t1", dt.date(2025, 3, 20)]["improvement_accuracy"] == 1.0


def test_totals_count_valid_attempts_of_the_whole_log(write_log):
    log = write_log(
        [
            {"at": "2025-01-01 10:00", "item_id": "i1"},
            {"at": "2025-06-01 10:00", "item_id": "i1", "correct": 0},
            {"at": "2025-06-01 10:01", "item_id": "i2", "topic_id": ""},
            {"at": "2025-06-01 10:02", "item_id": "i2", "user_id": "bob", "attempt_id": "x"},
            {
                "op": "void",
                "supersedes": "x",
                "item_id": "i2",
                "user_id": "bob",
                "at": "2025-06-02",
            },
        ]
    )
    rows = expected_rows(log)
    assert rows.topics == [{"topic_id": "t1", "attempts": 2, "correct": 1, "learners": 1}]
    assert rows.items == [
        {"item_id": "i1", "attempts": 2, "correct": 1},
        {"item_id": "i2", "attempts": 1, "correct": 1},
    ]
    assert rows.learners == [
        {"user_id": "ann", "attempts": 3, "correct": 2, "latest_ms": 1_748_772_060_000},
        {"user_id": "bob", "attempts": 0, "correct": 0, "latest_ms": 1_748_772_120_000},
    ]
    assert rows.outcomes == {"accepted": 5}
