"""Growth of learners by a mixed model: score ~ week + (week|learner) + (1|topic)."""

from __future__ import annotations

from datetime import date
from typing import Any

import asyncpg

from schemas.models import GlmmAnswer
from stream.errors import CalibrationResponseError
from stream.models.kind import Dataset, ModelKind, check_names, quantiles
from stream.models.progress import weekly_scores
from stream.settings import Settings

__all__ = ["GLMM"]


async def _dataset(connection: asyncpg.Connection, settings: Settings, as_of: date) -> Dataset:
    return await weekly_scores(connection, settings, as_of, settings.model_max_rows)


def _check(answer: GlmmAnswer, dataset: Dataset) -> None:
    if not {"(Intercept)", "week"} <= {effect.term for effect in answer.fixed}:
        raise CalibrationResponseError("the service returned no fixed effect of week")
    check_names("topic", (t.topic_id for t in answer.topics), dataset.body["rows"]["topic_id"])


def _summary(answer: GlmmAnswer) -> dict[str, Any]:
    return {"slopes": quantiles(line.slope for line in answer.students)}


GLMM = ModelKind(
    name="glmm",
    url="r_glmm_base_url",
    schedule="glmm_schedule",
    route="/glmm/fit_progress",
    dataset=_dataset,
    answer=GlmmAnswer,
    learners="students",
    check=_check,
    summary=_summary,
)
