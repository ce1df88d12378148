"""``kpi-updates`` into weekly_kpi, whose keys they do not know stay."""

from __future__ import annotations

from typing import Any

from schemas.codec import decode
from schemas.outputs import KpiUpdate
from stream.sinks.upsert import Batch, Column, Table

__all__ = ["read_kpis", "weekly_kpi"]

weekly_kpi = Table(
    "weekly_kpi",
    key=(Column("user_id", "text"), Column("week_start", "day")),
    columns=(
        # What a model put among them stays: a week that is computed again takes nothing back.
        Column("kpis", "json", stored="merged", under="model_kpis"),
        Column("created_at", "ms", stored="kept"),
        Column("updated_at", "ms"),
        Column("source_partition", "int"),
        Column("source_offset", "int"),
        Column("params_version", "text"),
    ),
    computed="updated_at",
)


def read_kpis(record: Any, batch: Batch) -> None:
    """Put the weekly rows of one update into a batch."""
    update = decode(record.value, KpiUpdate)
    made_at = update.computed_at
    source = (update.source_partition, update.source_offset, update.params_version)
    for row in update.rows:
        batch.add(
            weekly_kpi,
            (update.user_id, row.week_start, row.kpis, made_at, made_at, *source),
            record,
        )
