"""Growth of learners, Bayesian: the same model with priors, on fewer learners."""

from __future__ import annotations

from datetime import date
from typing import Any

import asyncpg

from schemas.models import GrowthAnswer
from stream.errors import CalibrationResponseError
from stream.models.kind import Dataset, ModelKind, quantiles
from stream.models.progress import weekly_scores
from stream.settings import Settings

__all__ = ["GROWTH"]


async def _dataset(connection: asyncpg.Connection, settings: Settings, as_of: date) -> Dataset:
    # Sampling takes minutes for thousands of rows; the population's growth needs no more.
    dataset = await weekly_scores(connection, settings, as_of, settings.growth_max_rows)
    # The service would else leave learners out once more, others from date to date.
    dataset.body["max_observations"] = settings.growth_max_rows
    return dataset


def _check(answer: GrowthAnswer, _dataset: Dataset) -> None:
    if "week" not in {effect.term for effect in answer.fixed}:
        raise CalibrationResponseError("the service returned no fixed effect of week")


def _summary(answer: GrowthAnswer) -> dict[str, Any]:
    certain = [
        line
        for line in answer.students
        if line.slope_lower is not None and line.slope_upper is not None
    ]
    return {
        "slopes": quantiles(line.slope for line in answer.students),
        "surely_growing": sum((line.slope_lower or 0.0) > 0.0 for line in certain),
        "surely_declining": sum((line.slope_upper or 0.0) < 0.0 for line in certain),
    }


GROWTH = ModelKind(
    name="growth",
    url="r_growth_base_url",
    schedule="model_schedule",
    route="/growth/fit",
    dataset=_dataset,
    answer=GrowthAnswer,
    learners="students",
    check=_check,
    summary=_summary,
)
