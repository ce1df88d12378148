"""Weekly scores of learners in curriculum topics: what both growth models are fitted on."""

from __future__ import annotations

from datetime import date, timedelta

import asyncpg

from stream.errors import EstimationError
from stream.models.kind import Dataset
from stream.models.tables import monday, whole_learners
from stream.settings import Settings

__all__ = ["weekly_scores"]

_QUERY = """
    select
        user_id::text as user_id,
        topic_id::text as topic_id,
        date_trunc('week', date::timestamp)::date as week_start,
        sum(correct)::bigint as correct,
        sum(attempts)::bigint as attempts
    from features_topic_daily
    where date >= $1 and date < $2 and attempts > 0
    group by 1, 2, 3
    order by user_id::text collate "C", topic_id::text collate "C", 3
"""


async def weekly_scores(
    connection: asyncpg.Connection, settings: Settings, as_of: date, most_rows: int
) -> Dataset:
    """Return a row a learner, topic and week with attempts: the share of right answers.

    Whole weeks only: the last is the one that ended before ``as_of`` or on it, and there are
    GLMM_LOOKBACK_WEEKS of them. Week 0 is the first that has a row.

    Raises
    ------
    EstimationError
        There are fewer rows than GLMM_MIN_OBSERVATIONS.
    """
    end = monday(as_of)
    begin = end - timedelta(weeks=settings.glmm_lookback_weeks)
    found = await connection.fetch(_QUERY, begin, end)
    if not found:
        raise EstimationError(
            f"features_topic_daily has no attempts in the weeks from {begin} to before {end}"
        )
    rows, left_out = whole_learners(found, most_rows, "progress")
    least = settings.glmm_min_observations
    if len(rows) < least:
        raise EstimationError(
            f"there are {len(rows)} rows (learner, topic, week) in the weeks from {begin} to "
            f"before {end}; GLMM_MIN_OBSERVATIONS asks for {least}"
        )
    first = min(row["week_start"] for row in rows)
    learners = [row["user_id"] for row in rows]
    return Dataset(
        body={
            "rows": {
                "user_id": learners,
                "topic_id": [row["topic_id"] for row in rows],
                "week": [(row["week_start"] - first).days // 7 for row in rows],
                "score": [row["correct"] / row["attempts"] for row in rows],
            },
            "min_observations": max(3, least),
            "seed": 1,
        },
        learners=frozenset(learners),
        about={
            "rows": len(rows),
            "learners": len(set(learners)),
            "first_week": first.isoformat(),
            "last_week": max(row["week_start"] for row in rows).isoformat(),
            "lookback_weeks": settings.glmm_lookback_weeks,
            "learners_left_out": left_out,
        },
    )
