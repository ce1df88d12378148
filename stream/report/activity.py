"""What learners did and how able they were, week by week, from the live tables."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import asyncpg

from stream.report.distribution import (
    QUANTILES,
    THETA_BINS,
    THETA_HIGH,
    THETA_LOW,
    clipped_counts,
    described,
    histogram,
)
from stream.report.week import Week

__all__ = [
    "ABILITY_DAYS",
    "AT_RISK",
    "abilities",
    "indicators",
    "newest_date",
    "paired_change",
    "theta_trend",
    "weekly_activity",
]

ABILITY_DAYS = 28
"""Days up to the week's Sunday in which a learner must have been active to be counted."""

AT_RISK = 0.6
"""S from which a learner counts as likely to stop: a fortnight's silence alone gives this."""

# A learner's ability in a span of days: the mean over topics of the newest estimate in each.
_ESTIMATES = """
    select distinct on (user_id, topic_id, date_trunc('week', date::timestamp))
        user_id, topic_id, date_trunc('week', date::timestamp)::date as week_start,
        theta_estimate::float8 as theta
    from features_topic_daily
    where date between $1 and $2 and attempts > 0
        and theta_estimate is not null and theta_estimate <> 'NaN'
    order by user_id, topic_id, date_trunc('week', date::timestamp), date desc
"""

_ACTIVITY = """
    select date_trunc('week', date::timestamp)::date as week_start,
        count(distinct user_id) as learners, count(distinct topic_id) as topics,
        sum(attempts)::bigint as attempts, sum(correct)::bigint as correct,
        sum(hints)::bigint as hints
    from features_topic_daily
    where date between $1 and $2 and attempts > 0
    group by 1
"""

_NEW_LEARNERS = """
    select count(*) from (
        select distinct user_id from features_topic_daily
        where date between $1 and $2 and attempts > 0
    ) as now
    where not exists (
        select from features_topic_daily as before
        where before.user_id = now.user_id and before.date < $1
    )
"""

_TREND = f"""
    with estimate as ({_ESTIMATES}),
    ability as (
        select week_start, user_id, avg(theta) as theta from estimate group by 1, 2
    )
    select week_start, count(*) as n, avg(theta) as mean,
        percentile_cont($3::float8[]) within group (order by theta) as quantiles
    from ability group by 1
"""  # noqa: S608

_PAIRED = f"""
    with estimate as ({_ESTIMATES}),
    change as (
        select user_id, avg(now.theta - before.theta) as change
        from estimate as now join estimate as before using (user_id, topic_id)
        where now.week_start = $3 and before.week_start = $3 - 7
        group by 1
    )
    select count(*) as n, percentile_cont(.5) within group (order by change) as median,
        stddev_samp(change) as sd from change
"""  # noqa: S608

_ABILITIES = f"""
    with newest as (
        select distinct on (user_id, topic_id) user_id, theta from ({_ESTIMATES}) as estimate
        order by user_id, topic_id, week_start desc
    ),
    ability as (select user_id, avg(theta) as theta from newest group by 1),
    bucket as (
        select width_bucket(theta, {THETA_LOW}, {THETA_HIGH}, {THETA_BINS}) as bucket, count(*) as n
        from ability group by 1
    )
    select count(*) as n, avg(theta) as mean, stddev_samp(theta) as sd,
        percentile_cont($3::float8[]) within group (order by theta) as quantiles,
        (select array_agg(bucket order by bucket) from bucket) as buckets,
        (select array_agg(n order by bucket) from bucket) as counts
    from ability
"""  # noqa: S608

_INDICATOR_QUANTILES = """
    select week_start, key, count(*) as n, avg(value::float8) as mean,
        percentile_cont($2::float8[]) within group (order by value::float8) as quantiles
    from weekly_kpi, jsonb_each(kpis::jsonb) as kpi
    where week_start = $1 and jsonb_typeof(kpis::jsonb) = 'object'
        and jsonb_typeof(value) = 'number'
    group by 1, 2
"""

_INDICATOR_MEANS = """
    select week_start, key, avg(value::float8) as mean
    from weekly_kpi, jsonb_each(kpis::jsonb) as kpi
    where week_start between $1 and $2 and jsonb_typeof(kpis::jsonb) = 'object'
        and jsonb_typeof(value) = 'number'
    group by 1, 2
"""

_AT_RISK = """
    select count(*) filter (where (kpis ->> 'S')::float8 >= $2)::float8 / nullif(count(*), 0)
    from weekly_kpi where week_start = $1 and jsonb_typeof(kpis::jsonb -> 'S') = 'number'
"""


async def newest_date(connection: asyncpg.Connection) -> date | None:
    """Return the latest day with an attempt; None where there is none."""
    newest: date | None = await connection.fetchval(
        "select max(date) from features_topic_daily where attempts > 0"
    )
    return newest


async def weekly_activity(
    connection: asyncpg.Connection, week: Week, weeks: int
) -> list[dict[str, Any]]:
    """Return learners, attempts, correct, hints and topics of the weeks up to one.

    Weeks without attempts are there too, with zeros.
    """
    found = await connection.fetch(_ACTIVITY, week.back(weeks - 1).start, week.end)
    by_week = {row["week_start"]: dict(row) for row in found}
    none = {"learners": 0, "topics": 0, "attempts": 0, "correct": 0, "hints": 0}
    starts = [week.back(back).start for back in reversed(range(weeks))]
    rows = [none | by_week.get(start, {}) | {"week_start": start} for start in starts]
    for row, start in zip(rows[-2:], starts[-2:], strict=True):
        row["new_learners"] = await connection.fetchval(
            _NEW_LEARNERS, start, start + timedelta(days=6)
        )
    return rows


async def theta_trend(
    connection: asyncpg.Connection, week: Week, weeks: int
) -> list[dict[str, Any]]:
    """Return a week's number of learners with an ability, its mean and quantiles, logits.

    Weeks without one are left out.
    """
    rows = await connection.fetch(_TREND, week.back(weeks - 1).start, week.end, list(QUANTILES))
    return [
        {"week_start": row["week_start"], **described(row["n"], row["quantiles"], row["mean"])}
        for row in sorted(rows, key=lambda row: row["week_start"])
    ]


async def paired_change(connection: asyncpg.Connection, week: Week) -> dict[str, Any]:
    """Return how the same learners moved from the week before, in the topics of both weeks.

    Returns
    -------
    dict
        n, median (logits) and sd of the learners' changes.
    """
    row = await connection.fetchrow(_PAIRED, week.back(1).start, week.end, week.start)
    return dict(row)


async def abilities(connection: asyncpg.Connection, week: Week) -> dict[str, Any]:
    """Return the distribution of abilities of the learners active in `ABILITY_DAYS`."""
    since = week.end - timedelta(days=ABILITY_DAYS - 1)
    row = await connection.fetchrow(_ABILITIES, since, week.end, list(QUANTILES))
    pairs = list(zip(row["buckets"] or (), row["counts"] or (), strict=True))
    return {
        **described(row["n"], row["quantiles"], row["mean"]),
        "sd": row["sd"],
        "histogram": histogram(THETA_LOW, THETA_HIGH, clipped_counts(pairs, THETA_BINS)),
    }


async def indicators(
    connection: asyncpg.Connection, week: Week, weeks: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the indicators of ``weekly_kpi``, and the share of learners at risk.

    Returns
    -------
    tuple
        An object an indicator: key, n, mean and quantiles, ``previous_mean`` and
        ``previous_median`` of the week before, ``means`` of all weeks; and
        {share, previous} of learners with S of `AT_RISK` or more.
    """
    now, before = [
        {
            row["key"]: row
            for row in await connection.fetch(_INDICATOR_QUANTILES, start, [*QUANTILES])
        }
        for start in (week.start, week.back(1).start)
    ]
    means: dict[str, dict[date, float]] = {}
    for row in await connection.fetch(_INDICATOR_MEANS, week.back(weeks - 1).start, week.start):
        means.setdefault(row["key"], {})[row["week_start"]] = row["mean"]
    starts = [week.back(back).start for back in reversed(range(weeks))]
    rows = []
    for key in sorted(means):
        row, old = now.get(key), before.get(key)
        rows.append(
            {
                "key": key,
                **(
                    described(row["n"], row["quantiles"], row["mean"])
                    if row
                    else described(0, None, None)
                ),
                "previous_mean": old["mean"] if old else None,
                "previous_median": old["quantiles"][2] if old else None,
                "means": [{"week_start": start, "mean": means[key].get(start)} for start in starts],
            }
        )
    risk = {
        "share": await connection.fetchval(_AT_RISK, week.start, AT_RISK),
        "previous": await connection.fetchval(_AT_RISK, week.back(1).start, AT_RISK),
        "from": AT_RISK,
    }
    return rows, risk
