"""Kinds of learners: k-means on what is known of each."""

from __future__ import annotations

from datetime import date
from typing import Any

import asyncpg

from schemas.codec import decode_any
from schemas.models import SegmentsAnswer
from stream.errors import CalibrationResponseError, EstimationError
from stream.models.kind import Dataset, ModelKind, quantiles
from stream.models.tables import whole_learners
from stream.settings import Settings

__all__ = ["SEGMENTS"]

_QUERY = """
    with
    daily as (
        select
            user_id::text as user_id, topic_id::text as topic_id, date,
            attempts::bigint as attempts, correct::bigint as correct,
            theta_estimate::numeric as theta
        from features_topic_daily
        where date < $1::date and attempts > 0
    ),
    counts as (
        select user_id, sum(attempts)::bigint as attempts, sum(correct)::bigint as correct
        from daily group by user_id
    ),
    newest as (
        select distinct on (user_id, topic_id) user_id, topic_id, theta
        from daily
        where theta is not null
        order by user_id, topic_id, date desc
    ),
    weights as (
        select user_id, topic_id, sum(attempts) as attempts from daily group by user_id, topic_id
    ),
    ability as (
        select user_id, (sum(theta * attempts) / sum(attempts))::double precision as theta
        from newest join weights using (user_id, topic_id)
        group by user_id
    ),
    weeks as (
        select
            user_id::text as user_id,
            avg((kpis::jsonb ->> 'A_t')::numeric)::double precision as a_t,
            avg((kpis::jsonb ->> 'E_t')::numeric)::double precision as e_t
        from weekly_kpi
        where week_start <= $1::date - 7
        group by user_id
    )
    select counts.*, ability.theta, weeks.a_t, weeks.e_t
    from counts left join ability using (user_id) left join weeks using (user_id)
    order by user_id collate "C"
"""
# theta is the newest one of each topic, averaged by the topics' attempts; A_t and E_t are averages
# over the weeks that have one.

_PREVIOUS = """
    select params::jsonb ->> 'centers' as centers
    from segment_meta
    where as_of < $1 and params::jsonb ? 'centers'
    order by as_of desc, source_offset desc
    limit 1
"""
# Earlier dates only: a repeat for a date must not lean on its own answer.


async def _dataset(connection: asyncpg.Connection, settings: Settings, as_of: date) -> Dataset:
    found = await connection.fetch(_QUERY, as_of)
    if not found:
        raise EstimationError(f"features_topic_daily has no attempts before {as_of}")
    rows, left_out = whole_learners(found, settings.model_max_rows, "segments")
    columns: dict[str, list[Any]] = {
        "user_id": [row["user_id"] for row in rows],
        "accuracy": [row["correct"] / row["attempts"] for row in rows],
        "attempts": [row["attempts"] for row in rows],
        # Without a week to compare, nobody has become quicker or come regularly: both are 0.
        "A_t": [row["a_t"] or 0.0 for row in rows],
        "E_t": [row["e_t"] or 0.0 for row in rows],
    }
    if all(row["theta"] is not None for row in rows):
        columns["theta"] = [row["theta"] for row in rows]
    body: dict[str, Any] = {"rows": columns, "k": _clusters(settings), "seed": 1}
    previous = await connection.fetchval(_PREVIOUS, as_of)
    centers = decode_any(previous) if previous else []
    features = set(columns) - {"user_id"}
    # Centres of other features cannot be matched; labels then start anew.
    if centers and all(features <= set(center) for center in centers):
        body["previous_centers"] = [
            {name: center[name] for name in ("segment", *sorted(features))} for center in centers
        ]
    return Dataset(
        body=body,
        learners=frozenset(columns["user_id"]),
        about={
            "rows": len(rows),
            "learners": len(rows),
            "features": sorted(features),
            "labels_from": "previous" if "previous_centers" in body else "new",
            "learners_left_out": left_out,
        },
    )


def _clusters(settings: Settings) -> int | str:
    return settings.segments_k or "auto"


def _check(answer: SegmentsAnswer, _dataset: Dataset) -> None:
    labels = [str(center.get("segment", "")) for center in answer.centers]
    if not all(labels) or len(set(labels)) != len(labels):
        raise CalibrationResponseError("the service returned centres without labels of their own")
    strange = {one.segment for one in answer.segments} - set(labels)
    if strange:
        raise CalibrationResponseError(
            f"the service put learners into segment {min(strange)!r}, which has no centre"
        )
    for center in answer.centers:
        for name, value in center.items():
            if name != "segment" and not isinstance(value, int | float):
                raise CalibrationResponseError(
                    f"the service returned {value!r} as {name} of segment {center['segment']!r}"
                )


def _summary(answer: SegmentsAnswer) -> dict[str, Any]:
    return {"distance": quantiles(one.distance for one in answer.segments)}


SEGMENTS = ModelKind(
    name="segments",
    url="r_segments_base_url",
    schedule="model_schedule",
    route="/segments/fit",
    dataset=_dataset,
    answer=SegmentsAnswer,
    learners="segments",
    check=_check,
    summary=_summary,
)
