"""Planted errors are found, each named; what agrees is not reported."""

from __future__ import annotations

import json

import pytest

from stream.sources.simulate import SchoolConfig, simulate
from stream.verify.compare import Mismatch, compare_loaded
from stream.verify.recompute import recompute

A_FEATURE = "(user_id, topic_id, date) = (SELECT (user_id, topic_id, date) FROM features" + (
    " WHERE n_recent >= 5 AND improvement_accuracy IS NOT NULL AND attempts > 1"
    " ORDER BY ALL LIMIT 1)"
)
A_WEEK = "(user_id, week_start) = (SELECT (user_id, week_start) FROM weekly" + (
    " WHERE n_recent >= 5 AND I_t_accuracy IS NOT NULL AND E_t > 0 AND R_t > 0"
    " ORDER BY ALL LIMIT 1)"
)


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    path = tmp_path_factory.mktemp("school") / "school.csv"
    config = SchoolConfig(learners=15, items=30, topics=3, attempts=2000, days=60, anchors=0)
    simulate(config).write_csv(path)
    with recompute(path) as expected:
        yield expected


@pytest.fixture
def expected(school):
    """The school, beside tables as a faultless stream would fill them."""
    school.con.execute("""
        CREATE OR REPLACE TABLE actual_features AS
        SELECT * EXCLUDE (n_recent) REPLACE (last_seen_at::DOUBLE AS last_seen_at),
            improvement_accuracy AS improvement
        FROM features;
        CREATE OR REPLACE TABLE actual_weekly AS
        SELECT * EXCLUDE (n_recent), I_t_accuracy AS I_t, 0.5 AS P, '' AS missing_keys
        FROM weekly;
        CREATE OR REPLACE TABLE actual_topics AS FROM topic_total;
        CREATE OR REPLACE TABLE actual_items AS FROM item_total;
    """)
    return school


def test_what_agrees_is_ok(expected):
    report = compare_loaded(expected)
    features, weekly, topics, items = report.tables
    assert report.ok
    assert report.mismatches == []
    assert (topics.compared_rows, items.compared_rows) == (3, 30)
    assert features.compared_rows == features.expected_rows == features.actual_rows > 200
    assert weekly.compared_rows == weekly.expected_rows == weekly.actual_rows > 80


@pytest.mark.parametrize(
    ("table", "change"),
    [
        *(
            ("features", change)
            for change in (
                "attempts = attempts * 2",
                "attempts = attempts - 1",
                "correct = correct + 1",
                "hints = hints + 1",
                "hints = NULL",
                "avg_time_ms = avg_time_ms * (1 + 1e-6)",
                "avg_time_ms = NULL",
                "rt_median = rt_median + .5",
                "rt_median = 'nan'",
                "last_seen_at = last_seen_at - 1",
                "last_seen_at = last_seen_at + .001",
                "last_seen_at = NULL",
                "improvement_accuracy = improvement_accuracy + 1e-8",
                "improvement_accuracy = NULL",
                "improvement = 1.1",
                "improvement = NULL",
            )
        ),
        *(
            ("weekly", change)
            for change in (
                "I_t_accuracy = I_t_accuracy + 1e-8",
                "E_t = E_t + 1e-8",
                "E_t = NULL",
                "R_t = R_t - 1e-8",
                "A_t = A_t + 1e-8",
                "S = S + 1e-8",
                "S = 'nan'",
                "P = 1.5",
                "I_t = -1.5",
                "I_t = NULL",
                "missing_keys = 'P'",
            )
        ),
    ],
)
def test_one_wrong_value_is_found_and_named(expected, table, change):
    where = A_FEATURE if table == "features" else A_WEEK
    changed = expected.con.execute(f"UPDATE actual_{table} SET {change} WHERE {where}").fetchone()
    assert changed == (1,)
    report = compare_loaded(expected)
    column = change.split(" = ")[0]
    assert report.total == 1
    (found,) = report.mismatches
    assert (found.kind, found.column) == ("differs", column)
    assert found.table == {"features": "features_topic_daily", "weekly": "weekly_kpi"}[table]
    by_table = {line.table: line.differing for line in report.tables}
    assert by_table[found.table] == {column: 1}


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("topic", "attempts = attempts + 1"),
        ("topic", "correct = correct - 1"),
        ("topic", "learners = learners * 2"),
        ("item", "attempts = 2 * attempts"),
        ("item", "correct = NULL"),
    ],
)
def test_a_wrong_total_is_found_unless_others_have_made_it_too(expected, table, change):
    expected.con.execute(
        f"UPDATE actual_{table}s SET {change}"
        f" WHERE {table}_id = (SELECT min({table}_id) FROM {table}_total)"
    )
    report = compare_loaded(expected)
    (found,) = report.mismatches
    assert (found.table, found.column) == (f"{table}_totals", change.split(" = ")[0])
    assert compare_loaded(expected, only_users_in_file=True).ok


def test_a_lost_total_is_missing(expected):
    expected.con.execute(
        "DELETE FROM actual_topics WHERE topic_id = (SELECT min(topic_id) FROM topic_total)"
    )
    report = compare_loaded(expected)
    assert [(found.table, found.kind) for found in report.mismatches] == [
        ("topic_totals", "missing")
    ]


def test_differences_within_rounding_are_none(expected):
    expected.con.execute("UPDATE actual_features SET avg_time_ms = avg_time_ms * (1 + 1e-12)")
    expected.con.execute("UPDATE actual_weekly SET A_t = A_t + 1e-12")
    assert compare_loaded(expected).ok


def test_a_lost_row_is_missing(expected):
    expected.con.execute(f"DELETE FROM actual_features WHERE {A_FEATURE}")
    report = compare_loaded(expected)
    (found,) = report.mismatches
    key = expected.con.execute(
        f"SELECT user_id, topic_id, date::VARCHAR FROM features WHERE {A_FEATURE}"
    ).fetchone()
    assert found == Mismatch(
        "features_topic_daily",
        "missing",
        dict(zip(("user_id", "topic_id", "date"), key, strict=True)),
        None,
        None,
        None,
    )
    assert (report.total, report.tables[0].missing, report.tables[0].unexpected) == (1, 1, 0)


def test_a_row_too_many_is_unexpected_unless_its_learner_is_not_of_the_file(expected):
    expected.con.execute(
        f"INSERT INTO actual_weekly SELECT * REPLACE ('stranger' AS user_id)"
        f" FROM actual_weekly WHERE {A_WEEK}"
    )
    report = compare_loaded(expected)
    assert [(found.kind, found.key["user_id"]) for found in report.mismatches] == [
        ("unexpected", "stranger")
    ]
    assert compare_loaded(expected, only_users_in_file=True).ok


def test_a_shifted_week_is_one_missing_and_one_unexpected_row(expected):
    # The week after a learner's last has no row to collide with.
    expected.con.execute("""
        UPDATE actual_weekly SET week_start = week_start + 7
        WHERE (user_id, week_start) = (
            SELECT (user_id, max(week_start)) FROM weekly GROUP BY user_id ORDER BY user_id LIMIT 1)
    """)
    report = compare_loaded(expected)
    assert [found.kind for found in report.mismatches] == ["missing", "unexpected"]


def test_a_stale_row_is_found(expected):
    # As if the last attempt of the day had not arrived.
    expected.con.execute(
        f"UPDATE actual_features SET attempts = attempts - 1, last_seen_at = last_seen_at - 9000,"
        f" rt_median = rt_median + 100 WHERE {A_FEATURE}"
    )
    report = compare_loaded(expected)
    assert report.tables[0].differing == {"attempts": 1, "last_seen_at": 1, "rt_median": 1}


def test_the_theta_form_may_differ_from_five_recent_attempts_on_and_only_there(expected):
    n_known, n_free = expected.con.execute("""
        SELECT
            count(*) FILTER (n_recent < 5 OR improvement_accuracy IS NULL),
            count(*) FILTER (n_recent >= 5 AND improvement_accuracy IS NOT NULL)
        FROM features
    """).fetchone()
    expected.con.execute("UPDATE actual_features SET improvement = coalesce(improvement, 0) + .01")
    assert compare_loaded(expected).tables[0].differing == {"improvement": n_known}
    without = compare_loaded(expected, use_theta=False)
    assert without.tables[0].differing == {"improvement": n_known + n_free}
    assert n_known > 0
    assert n_free > 0


def test_only_the_first_mismatches_are_listed_but_all_are_counted(expected):
    expected.con.execute("UPDATE actual_features SET hints = hints + 1")
    expected.con.execute("DELETE FROM actual_weekly")
    report = compare_loaded(expected, max_list=3)
    features, weekly, *_ = report.tables
    assert len(report.mismatches) == 6
    assert report.total == features.expected_rows + weekly.expected_rows


def test_a_report_is_plain_json(expected):
    expected.con.execute(f"UPDATE actual_features SET rt_median = 'nan' WHERE {A_FEATURE}")
    plain = json.loads(json.dumps(compare_loaded(expected).as_dict(), allow_nan=False))
    assert (plain["ok"], plain["total"]) == (False, 1)
    assert plain["mismatches"][0]["actual"] == "nan"
    assert plain["tables"][0]["mismatches"] == 1
