"""What a calibration leaves in the tables."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from schemas.calibration import (
    MANIFEST_KEY,
    BatchAbility,
    CalibratedItem,
    CalibrationAbilities,
    CalibrationAlert,
    CalibrationOutcome,
    CalibrationResult,
    ItemParamsRecord,
    ParamsManifest,
)
from stream.settings import Settings
from stream.sinks.calibration import (
    batch_ability_reader,
    item_params_reader,
    read_calibration_result,
)
from stream.sinks.consume import read_records
from stream.sinks.theta import theta_reader

from .conftest import make_record, theta, write

SETTINGS = Settings()
read_item_params = item_params_reader(SETTINGS)
_offsets = itertools.count()


def result(**changes) -> CalibrationResult:
    values = {
        "run_id": "run1",
        "request_id": "req1",
        "kind": "irt",
        "status": "succeeded",
        "reason": "responses",
        "cut_time": 5000,
        "cut_offsets": {"0": 77},
        "finished_at": 6000,
        "items": [CalibratedItem("i1", 1.0, 0.5, 0.0)],
        "n_abilities": 2,
        "fit_meta": {
            "run_id": "run1",
            "model_spec": {"model": "2PL", "responses": "first"},
            "metrics": {"converged": True},
            "linking_constants": {"slope": 1.0, "intercept": 0.0},
        },
    }
    return CalibrationResult(**{**values, **changes})


def params(item: str = "i1", b: float = 0.5, version: str = "c1", **more) -> ItemParamsRecord:
    return ItemParamsRecord(item, 1.25, b, 0.0, 0.125, version, n=30, **more)


def manifest() -> ParamsManifest:
    return ParamsManifest("c1", 4, "calibrated", "run1", 1, 1.25, -0.5, "stocking_lord", 7000)


def outcome(**changes) -> CalibrationOutcome:
    values = {
        "run_id": "run1",
        "request_id": "req1",
        "kind": "irt",
        "status": "applied",
        "reasons": [],
        "warnings": ["few anchors"],
        "version": "c1",
        "sequence": 4,
        "slope": 1.25,
        "intercept": -0.5,
        "se_slope": 0.125,
        "se_intercept": None,
        "method": "stocking_lord",
        "n_common": 9,
        "dropped": ["i7"],
        "n_items": 1,
        "n_abilities": 2,
        "cut_time": 5000,
        "decided_at": 7000,
    }
    return CalibrationOutcome(**{**values, **changes})


async def write_params(database, *records, read=read_item_params) -> None:
    made = [
        make_record(
            value,
            next(_offsets),
            topic="item-params",
            key=MANIFEST_KEY if isinstance(value, ParamsManifest) else value.item_id.encode(),
        )
        for value in records
    ]
    await database.write(read_records(made, read))


async def fit_meta(tables):
    row = await tables.fetchrow("select * from mirt_fit_meta")
    return json.loads(row["model_spec"]), json.loads(row["metrics"]), row


@pytest.mark.parametrize("order", ["ro", "or", "ror", "roro", "oro"])
@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_an_applied_run_holds_the_linking_constants_that_were_applied(
    tables, database, order, in_one_batch
):
    values = [result() if which == "r" else outcome() for which in order]
    for batch in [values] if in_one_batch else [[value] for value in values]:
        await write(database, read_calibration_result, *batch)
    spec, metrics, row = await fit_meta(tables)
    assert spec == {
        "model": "2PL",
        "responses": "first",
        "linking_constants": {
            "slope": 1.25,
            "intercept": -0.5,
            "se_slope": 0.125,
            "se_intercept": None,
            "method": "stocking_lord",
            "n_common": 9,
            "dropped": ["i7"],
        },
        "applied": True,
        "version": "c1",
    }
    assert metrics["converged"] is True
    assert (metrics["status"], metrics["n_items"], metrics["outcome"]) == (
        "succeeded",
        1,
        "applied",
    )
    assert metrics["cut_offsets"] == {"0": 77}
    assert metrics["outcome_warnings"] == ["few anchors"]
    assert (row["run_id"], row["params_version"]) == ("run1", "c1")
    assert row["fitted_at"] == datetime(1970, 1, 1, 0, 0, 6, tzinfo=UTC)


@pytest.mark.parametrize("status", ["refused", "dry_run"])
async def test_a_run_that_was_not_applied_holds_the_constants_of_its_fit(tables, database, status):
    decided = outcome(status=status, version="", sequence=0, reasons=["Too few responses."])
    await write(database, read_calibration_result, result(), decided)
    spec, metrics, row = await fit_meta(tables)
    assert spec["linking_constants"] == {"slope": 1.0, "intercept": 0.0}
    assert (spec["applied"], row["params_version"]) == (False, None)
    assert (metrics["outcome"], metrics["outcome_reasons"]) == (status, ["Too few responses."])


async def test_a_failed_request_is_a_row_with_its_reason(tables, database):
    failed = result(run_id="", status="failed", error="the service was away", fit_meta={}, items=[])
    await write(database, read_calibration_result, failed)
    spec, metrics, row = await fit_meta(tables)
    assert (row["run_id"], spec) == ("req1", {})
    assert (metrics["status"], metrics["error"]) == ("failed", "the service was away")


async def test_ability_parts_of_a_result_are_left_to_the_applied_abilities(tables, database):
    part = CalibrationAbilities("run1", "req1", 0, [("u1", 0.1, 0.2)])
    await write(database, read_calibration_result, part)
    assert await tables.fetchval("select count(*) from mirt_ability") == 0
    assert await tables.fetchval("select count(*) from sink_rejects") == 0


async def test_an_alert_is_a_row_and_its_repetition_is_none(tables, database):
    alert = CalibrationAlert("run1", "req1", "refused", "not converged", 8000, metrics={"n": 3})
    await write(database, read_calibration_result, alert, alert)
    [row] = await tables.fetch("select * from drift_alerts")
    assert (row["kind"], row["run_id"], row["detail"]) == ("refused", "run1", "not converged")
    assert json.loads(row["metrics"]) == {"n": 3}


async def test_drift_between_runs_is_one_row_an_item_and_version(tables, database):
    def alert(item: str, version: str) -> CalibrationAlert:
        return CalibrationAlert(
            "", "", "item_drift", "easier", 6000, item, {"z": 7.5}, version=version
        )

    seen = [alert("i1", "irt-1"), alert("i1", "irt-1"), alert("i1", "irt-2"), alert("i2", "irt-1")]
    await write(database, read_calibration_result, *seen)
    rows = await tables.fetch("select * from drift_alerts order by item_id, params_version")
    assert [(r["item_id"], r["params_version"], r["run_id"]) for r in rows] == [
        ("i1", "irt-1", None),
        ("i1", "irt-2", None),
        ("i2", "irt-1", None),
    ]
    assert json.loads(rows[0]["metrics"]) == {"z": 7.5}


async def test_parameters_in_force_are_replaced_and_their_history_kept(tables, database):
    await write_params(database, params(b=0.5), manifest())
    await write_params(database, params(b=0.75, version="c2"), manifest())
    row = await tables.fetchrow("select * from mirt_item_params")
    assert (row["item_id"], row["model"], row["version"]) == ("i1", "2PL", "c2")
    assert json.loads(row["params"]) == {"a": 1.25, "b": 0.75, "c": 0.0}
    assert row["fitted_at"] == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
    history = await tables.fetch("select * from item_calibration order by version")
    assert [(h["version"], json.loads(h["params"])["b"]) for h in history] == [
        ("c1", 0.5),
        ("c2", 0.75),
    ]
    assert json.loads(history[0]["metrics"]) == {"se_b": 0.125, "n": 30}


async def test_provisional_parameters_reach_no_table(tables, database):
    await write_params(database, params(provisional=True), manifest())
    for table in ("mirt_item_params", "item_calibration", "sink_rejects"):
        assert await tables.fetchval(f"select count(*) from {table}") == 0


async def test_questions_get_their_parameters_and_keep_the_rest(tables, database):
    await tables.execute(
        """insert into question (id, meta) values
        ('i1', '{"tags": ["anchor"], "irt": {"a": 9}}'), ('i2', null), ('i3', '[1]'), ('i4', '{}')
        """
    )
    await write_params(database, *(params(item) for item in ("i1", "i2", "i3", "unknown")))
    found = {
        row["id"]: row["meta"] and json.loads(row["meta"])
        for row in await tables.fetch("select * from question")
    }
    irt = {"a": 1.25, "b": 0.5, "c": 0.0}
    assert found == {
        "i1": {"tags": ["anchor"], "irt": irt},
        "i2": {"irt": irt},
        "i3": [1],  # not an object: the users know why
        "i4": {},
    }


async def test_questions_are_left_alone_where_the_setting_says_so(tables, database):
    await tables.execute("insert into question (id, meta) values ('i1', '{}')")
    off = item_params_reader(replace(SETTINGS, irt_update_question_meta=False))
    await write_params(database, params(), read=off)
    assert await tables.fetchval("select meta from question") == "{}"


async def test_an_applied_calibration_is_history_beside_the_live_row(tables, database):
    await write(database, theta_reader(SETTINGS), theta("u1", 0.5))
    for version, value in (("c1", 0.25), ("c2", 0.75)):
        ability = BatchAbility("u1", value, 0.3, "run1", version, 5000)
        await write(database, batch_ability_reader(SETTINGS), ability)
    rows = await tables.fetch("select * from mirt_ability order by version")
    assert [(r["version"], r["theta"], r["params_version"]) for r in rows] == [
        ("c1", 0.25, "c1"),
        ("c2", 0.75, "c2"),
        ("live", 0.5, "v1"),
    ]
    assert rows[0]["last_attempt_at"] == datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)
