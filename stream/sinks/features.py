"""``feature-updates`` into features_topic_daily."""

from __future__ import annotations

from typing import Any

from schemas.codec import decode
from schemas.outputs import FeatureUpdate
from stream.sinks.upsert import Batch, Column, Table

__all__ = ["features_topic_daily", "read_features"]

features_topic_daily = Table(
    "features_topic_daily",
    key=(Column("user_id", "text"), Column("topic_id", "text"), Column("date", "day")),
    columns=(
        Column("attempts", "int"),
        Column("correct", "int"),
        Column("hints", "int"),
        Column("avg_time_ms", "real"),
        Column("rt_median", "real"),
        Column("theta_estimate", "real"),
        Column("theta_sd", "real"),
        Column("improvement", "real"),
        Column("improvement_accuracy", "real"),
        Column("last_seen_at", "ms"),
        Column("computed_at", "ms"),
        Column("source_partition", "int"),
        Column("source_offset", "int"),
        Column("params_version", "text"),
    ),
    computed="computed_at",
)


def read_features(record: Any, batch: Batch) -> None:
    """Put the daily rows of one update into a batch."""
    update = decode(record.value, FeatureUpdate)
    source = (
        update.computed_at,
        update.source_partition,
        update.source_offset,
        update.params_version,
    )
    for row in update.rows:
        batch.add(
            features_topic_daily,
            (
                *(update.user_id, row.topic_id, row.date),
                *(row.attempts, row.correct, row.hints, row.avg_time_ms, row.rt_median),
                *(row.theta_estimate, row.theta_sd, row.improvement, row.improvement_accuracy),
                *(row.last_seen_at, *source),
            ),
            record,
        )
