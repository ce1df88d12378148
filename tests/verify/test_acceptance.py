"""Which records count, each rule by an example worked by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.sources.tidy_csv import COLUMNS
from stream.verify.acceptance import Case, accept, settle
from stream.verify.recompute import recompute

DAY = 86_400_000


def outcomes(path: Path, **options: Any) -> list[str]:
    with recompute(path, **options) as expected:
        return [
            row[0]
            for row in expected.con.execute("SELECT outcome FROM outcome ORDER BY seq").fetchall()
        ]


def test_an_attempt_exactly_as_late_as_allowed_counts_and_a_millisecond_more_is_too_late(write_log):
    log = write_log(
        [
            {"at": "2025-03-10 12:00:00.000"},
            {"at": "2025-03-03 12:00:00.000"},
            {"at": "2025-03-03 11:59:59.999"},
            {"at": "2025-03-03 11:59:59.999", "user_id": "bob"},
        ]
    )
    assert outcomes(log) == ["accepted", "accepted", "too_late", "accepted"]
    assert outcomes(log, lateness_days=0) == ["accepted", "too_late", "too_late", "accepted"]
    assert outcomes(log, lateness_days=8) == ["accepted"] * 4


def test_a_repeat_is_a_duplicate_for_the_same_learner_only(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-10 12:00"},
            {"attempt_id": "x", "at": "2025-03-10 12:00"},
            {"attempt_id": "x", "at": "2025-03-10 12:00", "user_id": "bob"},
            {"attempt_id": "x", "at": "2025-03-10 12:00"},
        ]
    )
    assert outcomes(log) == ["accepted", "duplicate", "accepted", "duplicate"]


def test_a_repeat_is_a_duplicate_for_35_days_and_too_late_after(write_log):
    # Day of latest - 35 = the day of x: retained. One day on, it is not.
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-01 23:00"},
            {"attempt_id": "y", "at": "2025-04-05 00:10"},
            {"attempt_id": "x", "at": "2025-03-01 23:00"},
            {"attempt_id": "z", "at": "2025-04-06 00:10"},
            {"attempt_id": "x", "at": "2025-03-01 23:00"},
        ]
    )
    assert outcomes(log) == ["accepted", "accepted", "duplicate", "accepted", "too_late"]


def test_a_repeat_of_a_too_late_record_is_too_late_again(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-20 10:00"},
            {"attempt_id": "y", "at": "2025-03-01 10:00"},
            {"attempt_id": "y", "at": "2025-03-01 10:00"},
        ]
    )
    assert outcomes(log) == ["accepted", "too_late", "too_late"]


def test_a_repeat_with_a_later_time_is_dropped_and_does_not_move_the_latest_event_time(write_log):
    # Were the repeat of x counted for the latest event time, y would be too late.
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-01 10:00"},
            {"attempt_id": "x", "at": "2025-03-30 10:00"},
            {"attempt_id": "y", "at": "2025-03-02 10:00"},
        ]
    )
    assert outcomes(log) == ["accepted", "duplicate", "accepted"]


def test_an_id_used_again_after_the_retained_days_is_a_new_attempt(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-01 10:00"},
            {"attempt_id": "y", "at": "2025-05-01 10:00"},
            {"attempt_id": "x", "at": "2025-05-02 10:00"},
            {"attempt_id": "x", "at": "2025-05-02 10:00"},
        ]
    )
    assert outcomes(log) == ["accepted", "accepted", "accepted", "duplicate"]


def test_a_void_whose_attempt_id_an_accepted_attempt_has_is_a_duplicate(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-01 10:00"},
            {"attempt_id": "x", "op": "void", "supersedes": "x", "at": "2025-03-01 11:00"},
            {"attempt_id": "v", "op": "void", "supersedes": "x", "at": "2025-03-01 11:00"},
            {"attempt_id": "v", "at": "2025-03-01 12:00"},
        ]
    )
    assert outcomes(log) == ["accepted", "duplicate", "accepted", "duplicate"]


def test_an_attempt_with_the_id_of_a_refused_correction_counts(write_log):
    log = write_log(
        [
            {"attempt_id": "w", "at": "2025-03-01 09:00"},
            {"attempt_id": "x", "op": "void", "supersedes": "none", "at": "2025-03-01 10:00"},
            {"attempt_id": "x", "at": "2025-03-01 10:00"},
        ]
    )
    assert outcomes(log) == ["accepted", "supersedes_unknown", "accepted"]


def test_a_correction_that_takes_the_id_of_a_forgotten_attempt_is_no_attempt(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-01 10:00"},
            {"attempt_id": "y", "at": "2025-05-01 10:00"},
            {"attempt_id": "x", "op": "regrade", "supersedes": "y", "at": "2025-05-01 11:00"},
            {"attempt_id": "v", "op": "void", "supersedes": "x", "at": "2025-05-01 12:00"},
        ]
    )
    assert outcomes(log) == ["accepted", "accepted", "accepted", "supersedes_unknown"]


def test_records_ahead_of_their_ingest_by_more_than_a_day_are_too_early(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-02 10:00:00.001"},
            {"attempt_id": "x", "at": "2025-03-02 10:00:00.000"},
            {"attempt_id": "y", "at": "2025-02-27 10:00"},
        ]
    )
    ingest = 1_740_823_200_000  # 2025-03-01 10:00 UTC
    assert outcomes(log, ingest_time_ms=ingest) == ["too_early", "accepted", "accepted"]


def test_corrections_must_name_a_retained_valid_attempt_of_the_same_item(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-01 10:00"},
            {"op": "void", "supersedes": "nothing", "at": "2025-03-01 11:00"},
            {"op": "void", "supersedes": "x", "user_id": "bob", "at": "2025-03-01 11:00"},
            {"op": "regrade", "supersedes": "x", "item_id": "i2", "at": "2025-03-01 11:00"},
            {"attempt_id": "g", "op": "regrade", "supersedes": "x", "at": "2025-03-01 11:00"},
            {"attempt_id": "v", "op": "void", "supersedes": "x", "at": "2025-03-01 12:00"},
            {"attempt_id": "v", "op": "void", "supersedes": "x", "at": "2025-03-01 12:00"},
            {"op": "void", "supersedes": "x", "at": "2025-03-01 13:00"},
            {"op": "regrade", "supersedes": "x", "at": "2025-03-01 13:00"},
            {"op": "void", "supersedes": "v", "at": "2025-03-01 13:00"},
            {"attempt_id": "x", "at": "2025-03-01 10:00"},
        ]
    )
    assert outcomes(log) == [
        "accepted",
        "supersedes_unknown",
        "supersedes_unknown",
        "supersedes_mismatch",
        "accepted",
        "accepted",
        "duplicate",
        "supersedes_voided",
        "supersedes_voided",
        "supersedes_unknown",
        "duplicate",
    ]


def test_a_correction_before_its_attempt_or_of_a_too_late_one_names_nothing(write_log):
    log = write_log(
        [
            {"attempt_id": "v1", "op": "void", "supersedes": "x", "at": "2025-03-20 10:00"},
            {"attempt_id": "x", "at": "2025-03-20 10:00"},
            {"attempt_id": "late", "at": "2025-03-01 10:00"},
            {"attempt_id": "v2", "op": "void", "supersedes": "late", "at": "2025-03-20 10:00"},
            {"attempt_id": "v1", "op": "void", "supersedes": "x", "at": "2025-03-20 10:00"},
        ]
    )
    assert outcomes(log) == [
        "supersedes_unknown",
        "accepted",
        "too_late",
        "supersedes_unknown",
        "accepted",
    ]


def test_a_correction_does_not_move_the_latest_event_time_and_is_kept_with_its_attempts_day(
    write_log,
):
    log = write_log(
        [
            {"attempt_id": "x", "at": "2025-03-01 10:00"},
            {"attempt_id": "v", "op": "void", "supersedes": "x", "at": "2025-03-30 10:00"},
            {"attempt_id": "y", "at": "2025-02-25 10:00"},  # 4 days before x: in time
            {"attempt_id": "z", "at": "2025-04-06 10:00"},  # x, and v with it, leave
            {"attempt_id": "v", "op": "void", "supersedes": "x", "at": "2025-03-30 10:00"},
            {"attempt_id": "w", "op": "void", "supersedes": "y", "at": "2025-04-06 10:00"},
        ]
    )
    assert outcomes(log) == [
        "accepted",
        "accepted",
        "accepted",
        "accepted",
        "supersedes_unknown",
        "supersedes_unknown",
    ]


def test_a_regraded_attempt_counts_as_rescored_and_the_last_regrade_holds(write_log):
    log = write_log(
        [
            {"attempt_id": "x", "correct": 0, "at": "2025-03-01 10:00"},
            {"attempt_id": "y", "correct": 0, "at": "2025-03-01 10:01"},
            {"op": "regrade", "supersedes": "x", "correct": 1, "at": "2025-03-02 10:00"},
            {"op": "regrade", "supersedes": "y", "correct": 1, "at": "2025-03-02 10:00"},
            {"op": "regrade", "supersedes": "y", "correct": 0, "at": "2025-03-02 11:00"},
        ]
    )
    with recompute(log) as expected:
        rows = expected.con.execute("SELECT correct, valid FROM attempt ORDER BY seq").fetchall()
    assert rows == [(True, True), (False, True)]


def test_records_out_of_range_are_refused_before_anything_else(write_log):
    log = write_log(
        [
            {"at": "2025-03-01 10:00"},
            {"at": "2025-03-20 10:00", "response_time_ms": 86_400_001},
            {"at": "2025-03-20 10:00", "item_id": "i" * 129},
            {"at": "2025-03-20 10:00", "user_id": ""},
            {"at": "2025-03-20 10:00", "op": "undo"},
            {"completed_at": -1},
            {"at": "2025-03-01 10:00", "response_time_ms": 86_400_000, "item_id": "i" * 128},
        ]
    )
    assert outcomes(log) == ["accepted", *["invalid"] * 5, "accepted"]


def test_the_learners_latest_event_time_starts_anew_with_each_learner(write_log):
    log = write_log(
        [
            {"at": "2025-03-20 10:00", "user_id": "ann"},
            {"at": "2025-03-01 10:00", "user_id": "bob"},
            {"at": "2025-03-02 10:00", "user_id": "bob"},
            {"at": "2025-03-02 10:00", "user_id": "ann"},
        ]
    )
    assert outcomes(log) == ["accepted", "accepted", "accepted", "too_late"]


records = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["ann", "bob"]),
        "attempt_id": st.sampled_from([f"a{n}" for n in range(8)]),
        "item_id": st.sampled_from(["i1", "i1", "i2"]),
        "op": st.sampled_from(["attempt"] * 4 + ["void", "regrade"]),
        "supersedes": st.sampled_from([f"a{n}" for n in range(8)]),
        "correct": st.booleans(),
        "completed_at": st.one_of(
            st.integers(0, 60 * DAY), st.integers(0, 60).map(lambda day: day * DAY)
        ),
    }
)


@pytest.fixture(scope="module")
def con():
    with duckdb.connect() as connection:
        yield connection


@pytest.mark.parametrize("lateness_days", [0, 7, 28])
@settings(max_examples=60, deadline=None)
@given(log=st.lists(records, max_size=30), same_content=st.booleans())
def test_window_functions_agree_with_settling_every_record_one_by_one(
    con, lateness_days, log, same_content
):
    if same_content:  # repeats are true copies, as they are nearly always
        first: dict[tuple[str, str], dict[str, Any]] = {}
        log = [first.setdefault((r["user_id"], r["attempt_id"]), r) for r in log]
    cases = [
        Case(
            seq,
            r["user_id"],
            r["attempt_id"],
            r["item_id"],
            r["op"],
            None if r["op"] == "attempt" else r["supersedes"],
            r["correct"],
            r["completed_at"],
            None,
        )
        for seq, r in enumerate(log)
    ]
    by_learner = sorted(cases, key=lambda case: (case.user_id, case.seq))
    one_by_one = sorted(settle(by_learner, lateness_days * DAY, 28 + lateness_days))

    con.execute(
        "CREATE OR REPLACE TABLE record (seq BIGINT, user_id VARCHAR, attempt_id VARCHAR,"
        " item_id VARCHAR, op VARCHAR, supersedes VARCHAR, correct BOOLEAN, completed_ms BIGINT,"
        " day INTEGER, topic_id VARCHAR, response_time_ms BIGINT, hint_used BOOLEAN,"
        " refused VARCHAR)"
    )
    if cases:
        con.executemany(
            "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 't', NULL, false, NULL)",
            [(*case[:8], case.completed_ms // DAY) for case in cases],
        )
    accept(con, lateness_days)
    found = con.execute("SELECT outcome FROM outcome ORDER BY seq").fetchall()
    attempts = con.execute("SELECT seq, valid, correct FROM attempt ORDER BY seq").fetchall()
    con.execute("DROP TABLE outcome; DROP TABLE attempt")
    assert [row[0] for row in found] == [verdict.outcome for verdict in one_by_one]
    assert attempts == [
        (v.seq, v.valid, v.correct)
        for v in one_by_one
        if v.outcome == "accepted" and cases[v.seq].op == "attempt"
    ]


def test_records_keep_the_order_of_the_file(tmp_path):
    # Larger than what DuckDB reads in one piece with several threads.
    path = tmp_path / "long.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((f"a{n}", "u", "i", "t", 1, "", "", 1000 + n) for n in range(400_000))
    with recompute(path) as expected:
        wrong = expected.con.execute(
            "SELECT count(*) FROM record WHERE attempt_id <> 'a' || seq"
        ).fetchone()
        counted = expected.con.execute("SELECT count(*) FROM record").fetchone()
    assert (wrong, counted) == ((0,), (400_000,))
