"""What models leave in the tables: once, the newest, and nothing of others' taken away."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from schemas.models import ModelLearners, ModelResult
from stream.settings import Settings
from stream.sinks.consume import read_records
from stream.sinks.kpi import read_kpis
from stream.sinks.models import model_result_reader
from tests.sinks.conftest import kpis, make_record

SETTINGS = replace(Settings(), glmm_update_kpi=True, survival_update_kpi=True)
WEEK = 19_800
"""2024-03-18, the week of `kpis`; what models say as of the Monday after belongs to it."""
AS_OF = "2024-03-25"


def result(kind: str, run_id: str = "run1", as_of: str = AS_OF, **changes: Any) -> ModelResult:
    values: dict[str, Any] = {
        "run_id": run_id,
        "request_id": "req1",
        "kind": kind,
        "status": "succeeded",
        "reason": "schedule",
        "as_of": as_of,
        "base_version": "irt-1",
        "finished_at": 6000,
        "request_offset": 1,
        "answer": {
            "status": "ok",
            "fit_meta": {"run_id": run_id, "model_spec": {"m": 1}, "metrics": {"n": 9}},
            "warnings": ["few"],
            "fixed": [{"term": "week"}],
        },
        "summary": {"slopes": {"n": 2}},
        "dataset": {"rows": 9},
        "n_learners": 2,
    }
    return ModelResult(**{**values, **changes})


def learners(
    kind: str, *rows: dict[str, Any], run_id: str = "run1", as_of: str = AS_OF
) -> ModelLearners:
    return ModelLearners(run_id, "req1", kind, as_of, "irt-1", 6000, 0, list(rows))


async def write(
    database: Any, *values: Any, offset: int = 0, settings: Settings = SETTINGS
) -> None:
    """Write some values as one batch of calibration-results, from an offset on."""
    records = [make_record(value, offset + i) for i, value in enumerate(values)]
    await database.write(read_records(records, model_result_reader(settings)))


async def kpis_of(tables: Any, user: str = "u1") -> dict[str, Any]:
    return json.loads(await tables.fetchval("select kpis from weekly_kpi where user_id = $1", user))


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("glmm", "growth_glmm_meta"),
        ("growth", "growth_brms_meta"),
        ("forecast", "prophet_fit_meta"),
        ("survival", "survival_fit_meta"),
        ("segments", "segment_meta"),
    ],
)
async def test_a_run_is_one_row_of_its_kinds_table_however_often_it_comes(
    tables, database, kind, table
):
    for offset in (0, 0, 3):
        await write(database, result(kind), offset=offset)
    (row,) = await tables.fetch(f"select * from {table}")
    assert json.loads(row["params"]) == {
        "model_spec": {"m": 1},
        "dataset": {"rows": 9},
        "summary": {"slopes": {"n": 2}},
        "fixed": [{"term": "week"}],
    }
    metrics = json.loads(row["metrics"])
    assert (metrics["n"], metrics["status"], metrics["warnings"]) == (9, "succeeded", ["few"])
    assert (row["as_of"].isoformat(), row["params_version"]) == (AS_OF, "irt-1")
    assert row["source_offset"] == 3


async def test_a_failed_run_has_a_row_that_says_why(tables, database):
    failed = result("glmm", status="failed", error="singular", answer={}, summary={})
    await write(database, failed)
    metrics = json.loads(await tables.fetchval("select metrics from growth_glmm_meta"))
    assert (metrics["status"], metrics["error"]) == ("failed", "singular")


async def test_odd_weeks_have_a_row_each(tables, database):
    found = [
        {"week_start": f"2024-03-{day}", "value": 0.5, "expected": 0.1, "z": 3.0}
        for day in ("04", "11")
    ]
    for _ in range(2):
        await write(database, result("forecast", answer={"anomalies": found}))
    rows = await tables.fetch("select * from prophet_anomalies order by week_start")
    assert [row["week_start"].isoformat() for row in rows] == ["2024-03-04", "2024-03-11"]
    assert json.loads(rows[0]["metrics"]) == {"value": 0.5, "expected": 0.1, "z": 3.0}


def segment(label: str) -> dict[str, Any]:
    return {"user_id": "u1", "segment": label, "distance": 0.5}


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_a_fit_of_an_old_date_does_not_take_a_segment_back(tables, database, in_one_batch):
    newest = learners("segments", segment("B"), run_id="new", as_of="2024-03-25")
    old = learners("segments", segment("A"), run_id="old", as_of="2024-03-18")
    if in_one_batch:
        await write(database, newest, old)
    else:
        await write(database, newest, offset=0)
        await write(database, old, offset=1)
    (row,) = await tables.fetch("select * from user_segment")
    assert (row["segment"], row["run_id"]) == ("B", "new")
    # The same date, fitted again, does.
    await write(database, learners("segments", segment("C"), run_id="again"), offset=2)
    assert await tables.fetchval("select segment from user_segment") == "C"
    # A sink that wakes with an earlier batch changes nothing.
    await write(database, newest, offset=0)
    assert await tables.fetchval("select segment from user_segment") == "C"


GROWTH = learners("glmm", {"user_id": "u1", "intercept": 0.5, "slope": 0.02})
RISK = learners("survival", {"user_id": "u1", "risk": 0.75})


async def test_growth_and_risk_join_the_indicators_of_the_week_before(tables, database):
    await tables.execute(
        "insert into weekly_kpi (user_id, week_start, kpis) values "
        "('u1', '2024-03-18', '{\"mine\": 1, \"S\": 0.1}'), ('u1', '2024-03-11', '{}')"
    )
    await write(database, GROWTH, RISK)
    rows = await tables.fetch("select kpis from weekly_kpi order by week_start")
    assert [json.loads(row["kpis"]) for row in rows] == [
        {},
        {"mine": 1, "S": 0.75, "G_t": 0.02},
    ]


async def test_a_week_that_is_computed_again_keeps_what_models_said(tables, database):
    async def compute(values: dict[str, float], offset: int) -> None:
        record = make_record(kpis(values, offset=offset, at=offset))
        await database.write(read_records([record], read_kpis))

    await compute({"S": 0.1, "A_t": 0.3}, 10)
    await write(database, GROWTH, RISK)
    await compute({"S": 0.2, "A_t": 0.4}, 11)
    assert await kpis_of(tables) == {"S": 0.75, "A_t": 0.4, "G_t": 0.02}
    assert await tables.fetchval("select source_offset from weekly_kpi") == 11


async def test_an_older_result_does_not_overwrite_a_newer_one_among_the_indicators(
    tables, database
):
    await tables.execute("insert into weekly_kpi (user_id, week_start) values ('u1', '2024-03-18')")
    newer = learners("glmm", {"user_id": "u1", "intercept": 0.5, "slope": 0.09})
    await write(database, newer, offset=5)
    await write(database, GROWTH, offset=3)
    assert await kpis_of(tables) == {"G_t": 0.09}


async def test_a_learner_without_a_row_of_that_week_gets_none(tables, database):
    await write(database, GROWTH, RISK)
    assert await tables.fetchval("select count(*) from weekly_kpi") == 0


async def test_indicators_are_left_alone_unless_a_setting_says_so(tables, database):
    await tables.execute(
        "insert into weekly_kpi (user_id, week_start, kpis) "
        "values ('u1', '2024-03-18', '{\"S\": 1}')"
    )
    await write(database, GROWTH, RISK, settings=Settings())
    assert await kpis_of(tables) == {"S": 1}


async def test_users_json_columns_are_merged_too(tables, database):
    await tables.execute("alter table weekly_kpi alter column kpis type json using kpis::json")
    await tables.execute(
        "insert into weekly_kpi (user_id, week_start, kpis) "
        "values ('u1', '2024-03-18', '{\"a\": 1}')"
    )
    await write(database, GROWTH)
    assert await kpis_of(tables) == {"a": 1, "G_t": 0.02}


async def test_a_kind_without_a_table_is_set_aside(tables, database):
    await write(database, result("weather"))
    assert "no table takes" in await tables.fetchval("select error from sink_rejects")
