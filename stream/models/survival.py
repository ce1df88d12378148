"""Who stops, and when: Cox and Kaplan-Meier on the time from first attempt to churn."""

from __future__ import annotations

from datetime import date
from typing import Any

import asyncpg

from schemas.models import SurvivalAnswer
from stream.errors import CalibrationResponseError, EstimationError
from stream.models.kind import Dataset, ModelKind, quantiles
from stream.models.tables import whole_learners
from stream.settings import Settings

__all__ = ["CHURN_DAYS", "SURVIVAL"]

CHURN_DAYS = 14
"""Whole days without an attempt after which a learner counts as gone."""

HORIZON_DAYS = 28
"""A learner's risk is the probability to be gone within so many days from the date of the fit."""

EARLY_DAYS = 7
"""Days from the first attempt whose attempts describe a learner.

Fewer than CHURN_DAYS, so that they are over before anybody can be gone: figures of the whole time
would be consequences of how long it was.
"""

HIGHEST_SHOWN = 50

_QUERY = f"""
    with
    daily as (
        select
            user_id::text as user_id, topic_id::text as topic_id, date,
            attempts::bigint as attempts, correct::bigint as correct,
            theta_estimate::numeric as theta
        from features_topic_daily
        where date < $1::date and attempts > 0
    ),
    spans as (
        select user_id, min(date) as first_day, max(date) as last_day from daily group by user_id
    ),
    early as (
        select daily.* from daily join spans using (user_id)
        where date < first_day + {EARLY_DAYS}
    ),
    counts as (
        select
            user_id, count(distinct date) as days,
            sum(attempts)::bigint as attempts, sum(correct)::bigint as correct
        from early group by user_id
    ),
    newest as (
        select distinct on (user_id, topic_id) user_id, topic_id, theta
        from early
        where theta is not null
        order by user_id, topic_id, date desc
    ),
    weights as (
        select user_id, topic_id, sum(attempts) as attempts from early group by user_id, topic_id
    ),
    ability as (
        select user_id, (sum(theta * attempts) / sum(attempts))::double precision as theta
        from newest join weights using (user_id, topic_id)
        group by user_id
    )
    select spans.*, counts.days, counts.attempts, counts.correct, ability.theta
    from spans join counts using (user_id) left join ability using (user_id)
    order by user_id collate "C"
"""  # noqa: S608 - a constant of ours


async def _dataset(connection: asyncpg.Connection, settings: Settings, as_of: date) -> Dataset:
    found = await connection.fetch(_QUERY, as_of)
    if not found:
        raise EstimationError(f"features_topic_daily has no attempts before {as_of}")
    rows, left_out = whole_learners(found, settings.model_max_rows, "survival")
    times = [_time(row["first_day"], row["last_day"], as_of) for row in rows]
    seen = [min(EARLY_DAYS, (as_of - row["first_day"]).days) for row in rows]
    columns: dict[str, list[Any]] = {
        "user_id": [row["user_id"] for row in rows],
        "duration_days": [days for days, _ in times],
        "event": [event for _, event in times],
        "accuracy": [row["correct"] / row["attempts"] for row in rows],
        "attempts_a_week": [row["attempts"] for row in rows],
        # 1 for who came every day, all of the days for who came on one.
        "mean_gap_days": [days / row["days"] for row, days in zip(rows, seen, strict=True)],
    }
    if all(row["theta"] is not None for row in rows):
        columns["theta"] = [row["theta"] for row in rows]
    return Dataset(
        body={
            "rows": columns,
            "churn_days": CHURN_DAYS,
            "horizon_days": HORIZON_DAYS,
            "seed": 1,
        },
        learners=frozenset(columns["user_id"]),
        about={
            "rows": len(rows),
            "learners": len(rows),
            "events": sum(columns["event"]),
            "churn_days": CHURN_DAYS,
            "horizon_days": HORIZON_DAYS,
            "early_days": EARLY_DAYS,
            "learners_left_out": left_out,
        },
    )


def _time(first: date, last: date, as_of: date) -> tuple[int, int]:
    """Return days from the first attempt to churn and 1, or to ``as_of`` and 0.

    A learner is gone when CHURN_DAYS whole days have passed after the day of the last attempt;
    until then nobody knows, and the time is censored at ``as_of``.
    """
    gone = (as_of - last).days > CHURN_DAYS
    until = (last - first).days + CHURN_DAYS + 1 if gone else (as_of - first).days
    return until, int(gone)


def _check(answer: SurvivalAnswer, _dataset: Dataset) -> None:
    for one in answer.risks:
        if not 0.0 <= one.risk <= 1.0:
            raise CalibrationResponseError(
                f"the service returned a risk of {one.risk} for learner {one.user_id!r}; a "
                "probability lies between 0 and 1"
            )
    for step in answer.kaplan_meier:
        if not 0.0 <= step.survival <= 1.0:
            raise CalibrationResponseError(
                f"the service returned a survival of {step.survival} at {step.time:g} days"
            )


def _summary(answer: SurvivalAnswer) -> dict[str, Any]:
    """Return quantiles and the highest risks of those who have not stopped."""
    here = [one for one in answer.risks if one.risk < 1.0]
    highest = sorted(here, key=lambda one: (-one.risk, one.user_id))[:HIGHEST_SHOWN]
    return {
        "risks": quantiles(one.risk for one in here),
        "highest": [{"user_id": one.user_id, "risk": one.risk} for one in highest],
    }


SURVIVAL = ModelKind(
    name="survival",
    url="r_survival_base_url",
    schedule="model_schedule",
    route="/survival/fit",
    dataset=_dataset,
    answer=SurvivalAnswer,
    learners="risks",
    check=_check,
    summary=_summary,
)
