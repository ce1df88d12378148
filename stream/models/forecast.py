"""Where the learners' improvement is heading: weekly mean I_t, four weeks ahead, and odd weeks."""

from __future__ import annotations

from datetime import date, timedelta

import asyncpg

from schemas.models import ForecastAnswer
from stream.errors import CalibrationResponseError, EstimationError
from stream.models.kind import Dataset, ModelKind, check_names
from stream.settings import Settings

__all__ = ["FORECAST"]

HORIZON_WEEKS = 4

_QUERY = """
    select
        week_start,
        avg((kpis::jsonb ->> 'I_t')::numeric)::double precision as value,
        count(*) as learners
    from weekly_kpi
    where week_start <= $1 and kpis::jsonb ->> 'I_t' is not null
    group by week_start
    order by week_start
"""


async def _dataset(connection: asyncpg.Connection, settings: Settings, as_of: date) -> Dataset:
    # A week's row speaks of its Sunday: it is known when the week has ended.
    found = await connection.fetch(_QUERY, as_of - timedelta(weeks=1))
    if len(found) < settings.forecast_min_weeks:
        raise EstimationError(
            f"{len(found)} weeks that ended before {as_of} have an I_t in weekly_kpi; "
            f"THETASTREAM_FORECAST_MIN_WEEKS asks for {settings.forecast_min_weeks}"
        )
    return Dataset(
        body={
            "series": {
                "week_start": [row["week_start"].isoformat() for row in found],
                "value": [row["value"] for row in found],
            },
            "horizon": HORIZON_WEEKS,
            "z": settings.forecast_z,
            "min_weeks": settings.forecast_min_weeks,
            "seed": 1,
        },
        about={
            "rows": len(found),
            "learners": max(row["learners"] for row in found),
            "first_week": found[0]["week_start"].isoformat(),
            "last_week": found[-1]["week_start"].isoformat(),
        },
    )


def _check(answer: ForecastAnswer, dataset: Dataset) -> None:
    weeks = dataset.body["series"]["week_start"]
    check_names("week", (week.week_start for week in answer.fitted), weeks)
    check_names("week", (week.week_start for week in answer.anomalies), weeks)
    last = date.fromisoformat(weeks[-1])
    ahead = [(last + timedelta(weeks=n + 1)).isoformat() for n in range(HORIZON_WEEKS)]
    if [week.week_start for week in answer.forecast] != ahead:
        raise CalibrationResponseError(
            f"the service forecast other weeks than the {HORIZON_WEEKS} after {last}"
        )
    for week in answer.forecast:
        if not week.lower <= week.expected <= week.upper:
            raise CalibrationResponseError(
                f"the service's forecast of {week.week_start} lies outside its own interval"
            )


FORECAST = ModelKind(
    name="forecast",
    url="r_forecast_base_url",
    schedule="model_schedule",
    route="/forecast/fit",
    dataset=_dataset,
    answer=ForecastAnswer,
    check=_check,
)
