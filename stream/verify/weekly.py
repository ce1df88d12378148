"""Expected rows of weekly_kpi by SQL over tables ``attempt`` and ``day_count``."""

from __future__ import annotations

import duckdb

__all__ = ["expect_weekly"]

_WEEKS = """
-- Day 0 is a Thursday, so day 3 is the first Sunday.
CREATE OR REPLACE MACRO sunday_of(day) AS day + (10 - day % 7) % 7;

CREATE TEMP TABLE week AS
SELECT
    user_id,
    unnest(range(
        sunday_of(min(day)),
        least(sunday_of(max(day)) + 28, (SELECT sunday_of(max(day)) FROM attempt)) + 1,
        7))::INTEGER AS as_of
FROM attempt
GROUP BY user_id;

-- A day lies in the 28-day windows of exactly four Sundays: its own week's and the next three.
CREATE TEMP TABLE shift AS SELECT unnest([0, 7, 14, 21])::INTEGER AS days;
"""

_ACTIVITY = """
CREATE TEMP TABLE day_session AS
SELECT user_id, day, count(*) FILTER (gap_ms IS NULL OR gap_ms > 1800000) AS sessions
FROM (
    SELECT
        user_id, day,
        completed_ms
            - lag(completed_ms) OVER (PARTITION BY user_id, day ORDER BY completed_ms) AS gap_ms
    FROM attempt
    WHERE valid)
GROUP BY user_id, day;

CREATE TEMP TABLE activity AS
WITH active AS (
    SELECT
        user_id, day, n, k, sessions,
        lag(day) OVER (PARTITION BY user_id ORDER BY day) AS day_before
    FROM day_count JOIN day_session USING (user_id, day)
),
seen AS (SELECT *, sunday_of(day) + days AS as_of FROM active CROSS JOIN shift)
SELECT
    user_id, as_of,
    coalesce(sum(n) FILTER (day > as_of - 14), 0)::BIGINT AS n_recent,
    coalesce(sum(k) FILTER (day > as_of - 14), 0)::BIGINT AS k_recent,
    coalesce(sum(n) FILTER (day <= as_of - 14), 0)::BIGINT AS n_prev,
    coalesce(sum(k) FILTER (day <= as_of - 14), 0)::BIGINT AS k_prev,
    sum(sessions)::BIGINT AS sessions,
    count(*) AS active_days,
    max(day) AS last_day,
    avg(day - day_before) FILTER (day_before >= as_of - 27) AS mean_gap,
    stddev_pop(day - day_before) FILTER (day_before >= as_of - 27) AS sd_gap
FROM seen
GROUP BY user_id, as_of;
"""

_PACE = """
CREATE TEMP TABLE pace AS
SELECT
    user_id, sunday_of(day) + days AS as_of,
    median(response_time_ms) FILTER (day > sunday_of(day) + days - 14) AS m_recent,
    median(response_time_ms) FILTER (day <= sunday_of(day) + days - 14) AS m_prev
FROM attempt CROSS JOIN shift
WHERE valid AND correct AND response_time_ms IS NOT NULL
GROUP BY user_id, as_of;

CREATE TEMP TABLE recovery AS
WITH item AS (
    SELECT
        user_id, sunday_of(day) + days AS as_of,
        min(completed_ms) FILTER (NOT correct) AS first_miss,
        max(completed_ms) FILTER (correct) AS last_hit
    FROM attempt CROSS JOIN shift
    WHERE valid
    GROUP BY user_id, as_of, item_id
)
SELECT
    user_id, as_of,
    count(*) FILTER (last_hit > first_miss) / count(*) AS r
FROM item
WHERE first_miss IS NOT NULL
GROUP BY user_id, as_of;
"""

_WEEKLY = """
CREATE TABLE weekly AS
SELECT
    w.user_id,
    DATE '1970-01-01' + (w.as_of - 6) AS week_start,
    accuracy_improvement(a.n_recent, a.k_recent, a.n_prev, a.k_prev) AS I_t_accuracy,
    -- Said in full, since least and greatest pass over nulls.
    CASE WHEN p.m_prev > 0 AND p.m_recent IS NOT NULL THEN
        greatest(0::DOUBLE, least(1::DOUBLE, (p.m_prev - p.m_recent) / p.m_prev))
    END AS E_t,
    r.r AS R_t,
    CASE WHEN a.active_days > 0 THEN
        0.5::DOUBLE * least(1::DOUBLE, a.sessions / 28)
        + CASE WHEN a.active_days >= 3
            THEN 0.5::DOUBLE / (1 + a.sd_gap / a.mean_gap) ELSE 0 END
    END AS A_t,
    CASE WHEN a.active_days > 0 THEN
        0.6::DOUBLE * least(1::DOUBLE, (w.as_of - a.last_day) / 14)
        + 0.25::DOUBLE * least(1::DOUBLE, coalesce(a.mean_gap, 7) / 7)
        + 0.15::DOUBLE * (1 - least(1::DOUBLE, a.sessions / 10))
    END AS S,
    coalesce(a.n_recent, 0) AS n_recent
FROM week w
LEFT JOIN activity a USING (user_id, as_of)
LEFT JOIN pace p USING (user_id, as_of)
LEFT JOIN recovery r USING (user_id, as_of);

DROP TABLE week; DROP TABLE shift; DROP TABLE day_session; DROP TABLE activity;
DROP TABLE pace; DROP TABLE recovery;
"""


def expect_weekly(con: duckdb.DuckDBPyConnection) -> None:
    """Create table ``weekly``.

    The indicators that need abilities (P, and I_t in its theta form) cannot be recomputed from
    the file; ``n_recent`` tells where I_t must be the accuracy form.

    Parameters
    ----------
    con
        Database after :func:`stream.verify.features.expect_features`.
    """
    for step in (_WEEKS, _ACTIVITY, _PACE, _WEEKLY):
        con.execute(step)
