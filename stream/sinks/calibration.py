"""What calibrations leave in the database.

- ``item-params``: parameters in force (mirt_item_params, question.meta.irt) and their history
  (item_calibration).
- ``batch-abilities``: one row a learner and applied calibration in mirt_ability.
- ``calibration-results``: every run, failed ones too, in mirt_fit_meta, and what was decided on
  it; alerts in drift_alerts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.calibration import (
    MANIFEST_KEY,
    BatchAbility,
    CalibrationAlert,
    CalibrationOutcome,
    CalibrationResult,
    ItemParamsRecord,
)
from schemas.codec import decode
from stream.database import quoted
from stream.settings import Settings
from stream.sinks.consume import Reader
from stream.sinks.theta import mirt_ability
from stream.sinks.upsert import Batch, Column, Table

__all__ = [
    "batch_ability_reader",
    "decided_run",
    "drift_alerts",
    "item_calibration",
    "item_params_reader",
    "mirt_fit_meta",
    "mirt_item_params",
    "question",
    "read_calibration_result",
]

_SOURCE = (
    Column("source_partition", "int"),
    Column("source_offset", "int"),
    Column("params_version", "text"),
)

mirt_item_params = Table(
    "mirt_item_params",
    key=(Column("item_id", "text"),),
    columns=(
        Column("model", "text"),
        Column("params", "json"),
        Column("version", "text"),
        Column("fitted_at", "ms"),
        *_SOURCE,
    ),
    computed="fitted_at",
)
item_calibration = Table(
    "item_calibration",
    key=(Column("item_id", "text"), Column("version", "text")),
    columns=(
        Column("params", "json"),
        Column("metrics", "json"),
        Column("fitted_at", "ms"),
        *_SOURCE,
    ),
    computed="fitted_at",
)
mirt_fit_meta = Table(
    "mirt_fit_meta",
    key=(Column("run_id", "text"),),
    columns=(
        # A result that is read again must not take back what was decided on it since.
        Column("model_spec", "json", stored="joined"),
        Column("metrics", "json", stored="merged"),
        Column("fitted_at", "ms"),
        Column("source_partition", "int"),
        Column("source_offset", "int"),
    ),
    computed="fitted_at",
)
decided_run = Table(
    "mirt_fit_meta",
    key=(Column("run_id", "text"),),
    columns=(
        Column("model_spec", "json", stored="merged"),
        Column("metrics", "json", stored="merged"),
        Column("fitted_at", "ms", stored="kept"),
        Column("params_version", "text"),
    ),
)
"""The same table, as the outcome of a run writes to it: beside what the fit reported."""

drift_alerts = Table(
    "drift_alerts",
    key=(Column("alert_id", "text"),),
    columns=(
        Column("kind", "text"),
        Column("run_id", "text"),
        Column("item_id", "text"),
        Column("detail", "text"),
        Column("metrics", "json"),
        Column("raised_at", "ms"),
        *_SOURCE,
    ),
    computed="raised_at",
)


class _QuestionTable(Table):
    """``question``: the users' catalogue, to whose rows parameters are added; none is made."""

    def statement(self, schema: str, types: Mapping[str, str]) -> str:
        """Return the update of some questions' ``meta.irt`` from mirt_item_params.

        From that table rather than from the record: it holds the newest, whoever wrote it.
        """
        super().statement(schema, types)  # for its complaint about missing columns
        meta = "coalesce(q.meta::jsonb, '{}')"
        return (
            f"update {quoted(schema)}.question as q "  # noqa: S608 - quoted
            f"set meta = jsonb_set({meta}, '{{irt}}', p.params::jsonb)::{types['meta']} "
            f"from unnest($1::text[], $2::text[]) as x (id, meta) "
            f"join {quoted(schema)}.mirt_item_params as p on p.item_id::text = x.id "
            f"where q.id::text = x.id and jsonb_typeof({meta}) = 'object' "
            f"and {meta} -> 'irt' is distinct from p.params::jsonb"
        )


question = _QuestionTable("question", (Column("id", "text"),), (Column("meta", "json"),))


class _Kind(msgspec.Struct):
    type: str


def item_params_reader(settings: Settings) -> Reader:
    """Return the reader of ``item-params``. Provisional parameters are no table's business."""

    def read(record: Any, batch: Batch) -> None:
        if record.key == MANIFEST_KEY:
            return
        item = decode(record.value, ItemParamsRecord)
        if item.provisional:
            return
        params = {"a": item.a, "b": item.b, "c": item.c}
        made_at = record.timestamp
        # This topic has one partition: its own offsets tell older from newer.
        source = (record.partition, record.offset, item.version)
        batch.add(
            mirt_item_params,
            (item.item_id, settings.mirt_model, params, item.version, made_at, *source),
            record,
        )
        batch.add(
            item_calibration,
            (
                item.item_id,
                item.version,
                params,
                {"se_b": item.se_b, "n": item.n},
                made_at,
                *source,
            ),
            record,
        )
        if settings.irt_update_question_meta:
            batch.add(question, (item.item_id, None), record)

    return read


def batch_ability_reader(settings: Settings) -> Reader:
    """Return the reader of ``batch-abilities``."""

    def read(record: Any, batch: Batch) -> None:
        ability = decode(record.value, BatchAbility)
        batch.add(
            mirt_ability,
            (
                *(ability.user_id, ability.version, ability.theta, ability.se),
                *(settings.mirt_model, record.timestamp, ability.cut_time),
                *(record.partition, record.offset, ability.version),
            ),
            record,
        )

    return read


def read_calibration_result(record: Any, batch: Batch) -> None:
    """Put a calibration's end, what was decided on it, or an alert into a batch.

    Its abilities are of interest once applied; they come on ``batch-abilities``.
    """
    kind = decode(record.value, _Kind).type
    if kind == "result":
        _read_result(record, batch)
    elif kind == "outcome":
        _read_outcome(record, batch)
    elif kind == "alert":
        alert = decode(record.value, CalibrationAlert)
        batch.add(
            drift_alerts,
            (
                # What is seen between runs is told once a version.
                f"{alert.run_id or alert.request_id or alert.version}:{alert.kind}:"
                f"{alert.item_id or ''}",
                *(alert.kind, alert.run_id or None, alert.item_id, alert.detail, alert.metrics),
                *(alert.raised_at, record.partition, record.offset, alert.version or None),
            ),
            record,
        )


def _read_result(record: Any, batch: Batch) -> None:
    result = decode(record.value, CalibrationResult)
    model_spec = _mapping(result.fit_meta.get("model_spec"), "model")
    if "linking_constants" in result.fit_meta:
        model_spec["linking_constants"] = result.fit_meta["linking_constants"]
    metrics = _mapping(result.fit_meta.get("metrics"), "value") | {
        "status": result.status,
        "reason": result.reason,
        "error": result.error,
        "kind": result.kind,
        "request_id": result.request_id,
        "n_items": len(result.items),
        "n_abilities": result.n_abilities,
        "n_observations": result.n_observations,
        "n_learners": result.n_learners,
        "tagged_anchors": result.tagged_anchors,
        "fixed_anchors": result.fixed_anchors,
        "warnings": result.warnings,
        "cut_time": result.cut_time,
        "cut_offsets": result.cut_offsets,
    }
    batch.add(
        mirt_fit_meta,
        (
            # A request that failed before a run began has none of its own.
            *(result.run_id or result.request_id, model_spec, metrics),
            *(result.finished_at, record.partition, record.offset),
        ),
        record,
    )


def _read_outcome(record: Any, batch: Batch) -> None:
    outcome = decode(record.value, CalibrationOutcome)
    spec: dict[str, Any] = {"applied": outcome.status == "applied"}
    if outcome.status == "applied":
        # In place of the constants of the fit itself: these led to the scale in force.
        spec["version"] = outcome.version
        spec["linking_constants"] = {
            "slope": outcome.slope,
            "intercept": outcome.intercept,
            "se_slope": outcome.se_slope,
            "se_intercept": outcome.se_intercept,
            "method": outcome.method,
            "n_common": outcome.n_common,
            "dropped": outcome.dropped,
        }
    decision = {
        "outcome": outcome.status,
        "outcome_reasons": outcome.reasons,
        "outcome_warnings": outcome.warnings,
        "decided_at": outcome.decided_at,
    }
    batch.add(
        decided_run,
        (outcome.run_id, spec, decision, outcome.decided_at, outcome.version or None),
        record,
    )


def _mapping(value: Any, name: str) -> dict[str, Any]:
    """Return what the service sent as an object; anything else under a name."""
    if isinstance(value, dict):
        return dict(value)
    return {} if value is None else {name: value}
