"""Expected rows of features_topic_daily, and the totals, by SQL over table ``attempt``."""

from __future__ import annotations

import duckdb

__all__ = ["expect_features", "expect_totals"]

IMPROVEMENT = """
CREATE OR REPLACE MACRO accuracy_improvement(n_recent, k_recent, n_prev, k_prev) AS
    CASE WHEN n_recent > 0 AND n_prev > 0 THEN
        (k_recent / n_recent - k_prev / n_prev)
        * least(1.0::DOUBLE, n_recent / 30)
        * (1 - least(
            0.5::DOUBLE,
            1.96::DOUBLE * sqrt(k_recent / n_recent * (1 - k_recent / n_recent) / n_recent)))
    END;
"""
"""I_t in its accuracy form; ``/`` is division of floats in DuckDB."""

_FEATURES = """
CREATE TABLE day_count AS
SELECT
    user_id, day,
    count(*) FILTER (valid) AS n,
    count(*) FILTER (valid AND correct) AS k
FROM attempt
GROUP BY user_id, day;

CREATE TEMP TABLE day_improvement AS
WITH windows AS (
    SELECT
        user_id, day,
        sum(n) OVER recent AS n_recent, sum(k) OVER recent AS k_recent,
        coalesce(sum(n) OVER prev, 0) AS n_prev, coalesce(sum(k) OVER prev, 0) AS k_prev
    FROM day_count
    WINDOW
        recent AS (PARTITION BY user_id ORDER BY day RANGE BETWEEN 13 PRECEDING AND CURRENT ROW),
        prev AS (PARTITION BY user_id ORDER BY day RANGE BETWEEN 27 PRECEDING AND 14 PRECEDING)
)
SELECT
    user_id, day, n_recent::BIGINT AS n_recent,
    accuracy_improvement(n_recent, k_recent, n_prev, k_prev) AS improvement_accuracy
FROM windows;

CREATE TABLE features AS
SELECT
    a.user_id,
    a.topic_id,
    DATE '1970-01-01' + a.day AS date,
    count(*) FILTER (a.valid) AS attempts,
    count(*) FILTER (a.valid AND a.correct) AS correct,
    count(*) FILTER (a.valid AND a.hint_used) AS hints,
    avg(a.response_time_ms) FILTER (a.valid) AS avg_time_ms,
    median(a.response_time_ms) FILTER (a.valid) AS rt_median,
    max(a.completed_ms) FILTER (a.valid) AS last_seen_at,
    any_value(i.improvement_accuracy) AS improvement_accuracy,
    any_value(i.n_recent) AS n_recent
FROM attempt a JOIN day_improvement i USING (user_id, day)
WHERE a.topic_id IS NOT NULL
GROUP BY a.user_id, a.topic_id, a.day;

DROP TABLE day_improvement;
"""

_TOTALS = """
CREATE TABLE topic_total AS
SELECT
    topic_id,
    count(*) FILTER (valid) AS attempts,
    count(*) FILTER (valid AND correct) AS correct,
    count(DISTINCT user_id) FILTER (valid) AS learners
FROM attempt WHERE topic_id IS NOT NULL GROUP BY topic_id;

CREATE TABLE item_total AS
SELECT
    item_id,
    count(*) FILTER (valid) AS attempts,
    count(*) FILTER (valid AND correct) AS correct
FROM attempt GROUP BY item_id;

CREATE TABLE learner_total AS
SELECT
    user_id,
    count(*) FILTER (valid) AS attempts,
    count(*) FILTER (valid AND correct) AS correct,
    max(completed_ms) AS latest_ms
FROM attempt GROUP BY user_id;
"""


def expect_features(con: duckdb.DuckDBPyConnection) -> None:
    """Create table ``features`` (and ``day_count``, which the weekly rows use too).

    Parameters
    ----------
    con
        Database with table ``attempt``, made by :func:`stream.verify.acceptance.accept`.
        ``last_seen_at`` is epoch ms; ``n_recent`` counts the attempts that decide which form
        of I_t applies.
    """
    con.execute(IMPROVEMENT)
    con.execute(_FEATURES)


def expect_totals(con: duckdb.DuckDBPyConnection) -> None:
    """Create tables ``topic_total``, ``item_total`` and ``learner_total``.

    Parameters
    ----------
    con
        Database with table ``attempt``.
    """
    con.execute(_TOTALS)
