"""What fitted models leave in the database, from ``calibration-results``.

Every run has a row in its kind's table, failed ones too. Beside it: odd weeks in
prophet_anomalies, each learner's segment in user_segment, and where a setting says so a learner's
growth and churn risk among the indicators of the week that the fit ended with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

import msgspec

from schemas.codec import decode
from schemas.models import LearnerLine, LearnerRisk, LearnerSegment, ModelLearners, ModelResult
from stream.database import quoted
from stream.errors import DatabaseSchemaError
from stream.settings import Settings
from stream.sinks.consume import Reader
from stream.sinks.upsert import Batch, Column, Table

__all__ = ["GROWTH_KEY", "RISK_KEY", "TABLES", "model_result_reader"]

GROWTH_KEY = "G_t"
"""Key in weekly_kpi.kpis: change of the share of right answers a week, by the growth model."""

RISK_KEY = "S"
"""Key in weekly_kpi.kpis whose value, a rule's, the churn risk replaces."""

_COLUMNS = (
    Column("params", "json"),
    Column("metrics", "json"),
    Column("fitted_at", "ms"),
    Column("as_of", "day"),
    Column("source_partition", "int"),
    Column("source_offset", "int"),
    Column("params_version", "text"),
)


def _runs_table(name: str) -> Table:
    return Table(name, (Column("run_id", "text"),), _COLUMNS, computed="fitted_at")


_RUNS: dict[str, Table] = {
    "glmm": _runs_table("growth_glmm_meta"),
    "growth": _runs_table("growth_brms_meta"),
    "forecast": _runs_table("prophet_fit_meta"),
    "survival": _runs_table("survival_fit_meta"),
    "segments": _runs_table("segment_meta"),
}
"""Where a kind's runs go, one row each."""

prophet_anomalies = Table(
    "prophet_anomalies",
    key=(Column("run_id", "text"), Column("week_start", "day")),
    columns=_COLUMNS,
    computed="fitted_at",
)
user_segment = Table(
    "user_segment",
    key=(Column("user_id", "text"),),
    columns=(Column("run_id", "text"), Column("segment", "text"), *_COLUMNS),
    computed="fitted_at",
    # A learner's segment is the newest date's: a fit of an old date does not take it back.
    speaks_of="as_of",
)


class _ModelKpiTable(Table):
    """Rows of ``weekly_kpi`` that are there, to which what a model says is added; none is made."""

    def statement(self, schema: str, types: Mapping[str, str]) -> str:
        """Return the update of some rows, unless a newer result wrote them."""
        super().statement(schema, types)  # for its complaint about missing columns
        if "kpis" not in types:
            raise DatabaseSchemaError(
                f"Table {schema}.{self.name} has no column kpis: run `thetastream migrate`."
            )
        return (
            f"update {quoted(schema)}.weekly_kpi as t "  # noqa: S608 - quoted
            f"set model_kpis = coalesce(t.model_kpis::jsonb, '{{}}') || x.model_kpis::jsonb, "
            f"kpis = (coalesce(t.kpis::jsonb, '{{}}') || x.model_kpis::jsonb)::{types['kpis']}, "
            f"model_offset = x.model_offset "
            f"from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[]) "
            f"as x (user_id, week_start, model_kpis, model_offset) "
            f"where t.user_id::text = x.user_id "
            f"and t.week_start = (date '1970-01-01' + x.week_start::int) "
            f"and (t.model_offset is null or t.model_offset <= x.model_offset)"
        )


model_kpi = _ModelKpiTable(
    "weekly_kpi",
    key=(Column("user_id", "text"), Column("week_start", "day")),
    columns=(Column("model_kpis", "json", stored="merged"), Column("model_offset", "int")),
)

TABLES: tuple[Table, ...] = (*_RUNS.values(), prophet_anomalies, user_segment, model_kpi)
"""All that is written to here."""


class _Kind(msgspec.Struct):
    type: str = ""


def model_result_reader(settings: Settings) -> Reader:
    """Return the reader of the models' records; others it passes over."""
    learners: dict[str, Callable[[ModelLearners, Any, Batch], None]] = {"segments": _read_segments}
    if settings.glmm_update_kpi:
        learners["glmm"] = _read_growth
    if settings.survival_update_kpi:
        learners["survival"] = _read_risks

    def read(record: Any, batch: Batch) -> None:
        kind = decode(record.value, _Kind).type
        if kind == "model_result":
            _read_result(decode(record.value, ModelResult), record, batch)
        elif kind == "model_learners":
            part = decode(record.value, ModelLearners)
            if part.kind in learners:
                learners[part.kind](part, record, batch)

    return read


def _read_result(result: ModelResult, record: Any, batch: Batch) -> None:
    table = _RUNS.get(result.kind)
    if table is None:
        raise ValueError(f"no table takes results of the kind {result.kind!r}")
    answer = dict(result.answer)
    fit_meta = answer.pop("fit_meta", {})
    warnings = answer.pop("warnings", [])
    answer.pop("status", None)
    params = {
        "model_spec": fit_meta.get("model_spec", {}),
        "dataset": result.dataset,
        "summary": result.summary,
        **answer,
    }
    metrics = {
        **fit_meta.get("metrics", {}),
        "status": result.status,
        "reason": result.reason,
        "error": result.error,
        "request_id": result.request_id,
        "n_learners": result.n_learners,
        "warnings": warnings,
        "cut_offsets": result.cut_offsets,
    }
    when = (result.finished_at, _day(result.as_of))
    source = (record.partition, record.offset, result.base_version)
    batch.add(table, (result.run_id, params, metrics, *when, *source), record)
    for one in answer.get("anomalies", ()):
        found = {"value": one["value"], "expected": one["expected"], "z": one["z"]}
        batch.add(
            prophet_anomalies,
            (result.run_id, _day(one["week_start"]), {}, found, *when, *source),
            record,
        )


def _read_segments(part: ModelLearners, record: Any, batch: Batch) -> None:
    source = (record.partition, record.offset, part.base_version)
    for one in msgspec.convert(part.learners, list[LearnerSegment]):
        batch.add(
            user_segment,
            (
                *(one.user_id, part.run_id, one.segment, {}, {"distance": one.distance}),
                *(part.finished_at, _day(part.as_of), *source),
            ),
            record,
        )


def _read_growth(part: ModelLearners, record: Any, batch: Batch) -> None:
    for one in msgspec.convert(part.learners, list[LearnerLine]):
        _add_kpi(part, one.user_id, GROWTH_KEY, one.slope, record, batch)


def _read_risks(part: ModelLearners, record: Any, batch: Batch) -> None:
    for one in msgspec.convert(part.learners, list[LearnerRisk]):
        _add_kpi(part, one.user_id, RISK_KEY, one.risk, record, batch)


def _add_kpi(
    part: ModelLearners, user_id: str, key: str, value: float, record: Any, batch: Batch
) -> None:
    last = date.fromisoformat(part.as_of) - timedelta(days=1)
    week = _day((last - timedelta(days=last.weekday())).isoformat())
    batch.add(model_kpi, (user_id, week, {key: value}, record.offset), record)


def _day(text: str) -> int:
    """Return a day as days since 1970-01-01; raises ValueError where it is none."""
    return (date.fromisoformat(text) - date(1970, 1, 1)).days
