"""The report's data against a real PostgreSQL: right, as of its week, and tolerant."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest

from schemas.codec import encode
from schemas.models import ModelLearners, ModelResult
from stream.errors import DatabaseSchemaError
from stream.report import Week, collect, write_data
from stream.settings import Settings
from stream.sinks.consume import read_records
from stream.sinks.models import model_result_reader
from stream.sinks.pool import SinkDatabase
from tests.sinks.conftest import make_record

from .conftest import WEEK, add_day, add_everything, add_fit, add_item, add_kpis, add_run

SECTIONS = (
    "summary", "theta_trend", "distributions", "item_map", "calibration", "linking", "growth",
    "forecast", "churn", "segments", "alerts",
)  # fmt: skip


def timeless(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out what may differ between two readings of the same week."""
    data = dict(data)
    data.pop("generated_at")
    data["week"] = data["week"] | {"newest_activity": None}
    return data


async def test_an_empty_database_gives_a_report_that_says_what_is_missing(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    data = await collect(report_settings, WEEK)
    assert {name: bool(data[name]["missing"]) for name in SECTIONS} == dict.fromkeys(SECTIONS, True)
    assert data["week"]["newest_activity"] is None
    for name in ("growth", "forecast", "churn", "segments"):
        assert "`thetastream model now " in data[name]["missing"]


async def test_a_full_database_leaves_no_section_empty(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    await add_everything(tables)
    data = await collect(report_settings, WEEK)
    assert {name: data[name]["missing"] for name in SECTIONS} == dict.fromkeys(SECTIONS)


async def test_the_data_file_names_no_learner(
    tables: asyncpg.Connection, report_settings: Settings, tmp_path: Path
) -> None:
    await add_everything(tables)
    write_data(await collect(report_settings, WEEK), tmp_path / "report.json")
    assert b"learner-" not in (tmp_path / "report.json").read_bytes()


async def test_later_weeks_do_not_change_an_earlier_report(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    await add_everything(tables)
    # The newest week knows whatever was written; from now on this is an earlier one.
    await add_day(tables, "learner-00", WEEK.end + timedelta(days=9), 3.0)
    before = timeless(await collect(report_settings, WEEK))
    for n in range(40):
        await add_day(tables, f"learner-{n:02d}", WEEK.end + timedelta(days=2), 4.0)
        await add_kpis(tables, f"learner-{n:02d}", WEEK.back(-1), I_t=1.0)
    await add_run(tables, "later", WEEK.cut + timedelta(days=1))
    for n in range(60):
        await add_item(tables, f"i{n}", "v-later", 3.0)
    as_of = WEEK.back(-1).end + timedelta(days=1)
    for table in ("growth_glmm_meta", "prophet_fit_meta", "survival_fit_meta", "segment_meta"):
        await add_fit(tables, table, "later", as_of, {}, {})
    await tables.execute(
        "insert into drift_alerts (alert_id, kind, raised_at) values ('z', 'item_drift', $1)",
        WEEK.cut + timedelta(hours=1),
    )
    assert timeless(await collect(report_settings, WEEK)) == before


async def test_without_a_week_the_newest_with_attempts_that_is_over_is_taken(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    await add_day(tables, "u", date(2025, 3, 5), 0.0)
    assert (await collect(report_settings, None))["week"]["iso"] == "2025-W10"
    await add_day(tables, "u", datetime.now(UTC).date(), 0.0)
    this_week = Week.of(datetime.now(UTC).date())
    assert (await collect(report_settings, None))["week"]["iso"] == str(this_week.back(1))


async def test_the_trend_is_the_quantiles_of_the_mean_over_topics_of_the_newest_estimates(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    monday, learners = WEEK.start, []
    for n in range(21):
        theta = 0.25 * n - 2
        await add_day(tables, f"u{n}", monday, 9.0, topic="t1")  # older in the week: not used
        await add_day(tables, f"u{n}", monday + timedelta(days=3), theta, topic="t1")
        await add_day(tables, f"u{n}", monday + timedelta(days=1), theta + 1, topic="t2")
        learners.append(theta + 0.5)
    await add_day(tables, "voided", monday, 5.0, attempts=0, correct=0)
    await add_day(tables, "unknown", monday, None)
    (row,) = (await collect(report_settings, WEEK))["theta_trend"]["weeks"]
    assert (row["week_start"], row["n"]) == (monday, 21)
    found = [row[name] for name in ("q05", "q25", "median", "q75", "q95")]
    assert found == pytest.approx(np.quantile(learners, [0.05, 0.25, 0.5, 0.75, 0.95]))


async def test_every_able_learner_is_in_the_histogram_once(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    for n, theta in enumerate([-7.0, -4.0, 0.1, 0.2, 3.9, 12.0]):
        await add_day(tables, f"u{n}", WEEK.end - timedelta(days=27), theta)
    await add_day(tables, "long gone", WEEK.end - timedelta(days=28), 0.0)
    abilities = (await collect(report_settings, WEEK))["distributions"]["abilities"]
    counts = abilities["histogram"]["counts"]
    assert (abilities["n"], sum(counts)) == (6, 6)
    assert (counts[0], counts[16], counts[-1]) == (2, 2, 2)


async def test_the_summary_compares_with_the_week_before(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    last = WEEK.back(1)
    for user, change in (("a", 0.25), ("b", 0.5), ("c", -0.125)):
        await add_day(tables, user, last.end, 0.5, attempts=20, correct=5)
        await add_day(tables, user, WEEK.start, 0.5 + change, attempts=10, correct=8)
    await add_day(tables, "new", WEEK.end, 2.0, topic="t2", attempts=4, correct=2)
    await add_kpis(tables, "a", WEEK, S=0.7, I_t=0.5)
    await add_kpis(tables, "b", WEEK, S=0.6, I_t=None)
    await add_kpis(tables, "c", WEEK, S=0.5, I_t=0.25)
    await add_kpis(tables, "a", last, S=0.1)
    summary = (await collect(report_settings, WEEK))["summary"]
    before, now = summary["weeks"][-2:]
    assert (before["learners"], before["attempts"], before["new_learners"]) == (3, 60, 3)
    assert (now["learners"], now["attempts"], now["new_learners"]) == (4, 34, 1)
    assert (now["correct"], now["topics"]) == (26, 2)
    assert summary["paired_change"]["n"] == 3
    assert summary["paired_change"]["median"] == pytest.approx(0.25)
    assert summary["at_risk"]["share"] == pytest.approx(2 / 3)
    assert summary["at_risk"]["previous"] == 0.0
    kpis = {row["key"]: row for row in summary["indicators"]}
    assert (kpis["I_t"]["n"], kpis["I_t"]["mean"]) == (2, pytest.approx(0.375))
    assert kpis["S"]["previous_mean"] == pytest.approx(0.1)
    assert len(kpis["S"]["means"]) == 12


async def test_items_and_constants_are_those_of_the_calibrations_up_to_the_week(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    await add_run(tables, "old", WEEK.back(3).cut - timedelta(hours=1))
    await add_run(tables, "new", WEEK.cut - timedelta(hours=1), spec={"model": "1PL"})
    await add_run(
        tables,
        "bad",
        WEEK.cut - timedelta(minutes=1),
        spec={"applied": False, "version": None},
        metrics={"outcome": "refused", "outcome_reasons": ["The link is weak."]},
    )
    await add_item(tables, "i1", "v-old", -1.0)
    await add_item(tables, "i1", "v-new", 0.5)
    await add_item(tables, "i2", "v-old", 2.0)
    await add_day(tables, "u", WEEK.back(-2).start, 0.0)
    now, then, early = [
        await collect(report_settings, week) for week in (WEEK, WEEK.back(2), WEEK.back(8))
    ]
    assert [item["b"] for item in now["distributions"]["list"]] == [0.5, 2.0]
    assert [item["b"] for item in then["distributions"]["list"]] == [-1.0, 2.0]
    assert early["distributions"]["list"] == []
    assert [run["status"] for run in now["calibration"]["runs"]] == [
        "applied",
        "applied",
        "refused",
    ]
    assert now["calibration"]["in_force"]["run_id"] == "new"
    (last,) = now["linking"]["runs"][1:]
    assert (last["slope"], last["se_intercept"], last["dropped"]) == (1.02, 0.03, ["i9"])
    assert [run["run_id"] for run in then["linking"]["runs"]] == ["old"]
    assert early["calibration"]["missing"]


async def test_parameters_of_other_writers_count_by_their_time_of_writing(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    await tables.execute(
        "insert into mirt_item_params (item_id, params, version, fitted_at) values "
        "('i1', '{\"a\": 1.5, \"b\": 0.25}', '7', $1), ('i2', '{\"a\": 1, \"b\": 1}', '8', $2)",
        *(WEEK.cut - timedelta(days=1), WEEK.cut + timedelta(days=1)),
    )
    await tables.execute(
        "insert into mirt_fit_meta (run_id, model_spec, metrics, fitted_at) "
        'values (\'m\', \'{"linking_constants": {"slope": 1.1, "intercept": 0.2}}\', null, $1)',
        WEEK.cut - timedelta(days=1),
    )
    await add_day(tables, "u", WEEK.back(-2).start, 0.0)
    data = await collect(report_settings, WEEK)
    assert [item["item_id"] for item in data["distributions"]["list"]] == ["i1"]
    assert [run["slope"] for run in data["linking"]["runs"]] == [1.1]


async def test_the_newest_fit_of_the_week_is_shown_and_a_failure_since_is_told(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    monday = WEEK.end + timedelta(days=1)
    await add_fit(tables, "growth_glmm_meta", "a", monday - timedelta(days=7), {}, {"n": 1})
    await add_fit(tables, "growth_glmm_meta", "b", monday, {"fixed": []}, {"n": 2})
    await add_fit(tables, "survival_fit_meta", "c", monday - timedelta(days=7), {}, {"n": 3})
    await tables.execute(
        "insert into survival_fit_meta (run_id, params, metrics, fitted_at, as_of) "
        "values ('d', '{}', $1, $2, $3)",
        *(json.dumps({"status": "failed", "error": "singular"}), datetime(2031, 1, 1, tzinfo=UTC)),
        monday,
    )
    data = await collect(report_settings, WEEK)
    assert data["growth"]["glmm"]["run_id"] == "b"
    assert data["growth"]["glmm"]["failed"] is None
    assert data["churn"]["run"]["run_id"] == "c"
    assert data["churn"]["run"]["failed"]["error"] == "singular"


@pytest.mark.parametrize("columns", [False, True])
async def test_a_large_fit_is_described_and_not_copied(
    tables: asyncpg.Connection, report_settings: Settings, tmp_path: Path, columns: bool
) -> None:
    slopes = np.random.default_rng(1).normal(0.05, 0.02, 20_000)
    rows = [{"user_id": f"u{n}", "slope": slope} for n, slope in enumerate(slopes.tolist())]
    students = {"user_id": [r["user_id"] for r in rows], "slope": slopes.tolist()}
    params = {"students": students if columns else rows}
    await add_fit(tables, "growth_glmm_meta", "g", WEEK.end, params, {})
    data = await collect(report_settings, WEEK)
    found = data["growth"]["glmm"]["slopes"]
    assert (found["n"], sum(found["histogram"]["counts"])) == (20_000, 20_000)
    assert found["median"] == pytest.approx(np.median(slopes))
    assert found["positive"] == pytest.approx((slopes > 0).mean())
    write_data(data, tmp_path / "report.json")
    assert (tmp_path / "report.json").stat().st_size < 60_000


@pytest.mark.parametrize("params", [None, [], "text", 3, {"fixed": "none", "students": 7}])
async def test_a_fit_of_another_shape_is_shown_as_far_as_it_goes(
    tables: asyncpg.Connection, report_settings: Settings, params: Any
) -> None:
    tables_of_fits = ("growth_glmm_meta", "prophet_fit_meta", "survival_fit_meta", "segment_meta")
    for table in tables_of_fits:
        await add_fit(tables, table, "odd", None, params, params)
    data = await collect(report_settings, WEEK)
    assert data["growth"]["glmm"]["fixed"] == []
    assert data["forecast"]["run"]["forecast"] == []
    assert data["churn"]["run"]["kaplan_meier"] == []
    assert data["segments"]["run"]["segments"] == []


async def test_what_the_sink_writes_of_a_model_is_what_the_report_reads(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    monday = str(WEEK.end + timedelta(days=1))
    answers = {
        "glmm": {"fixed": [{"term": "week", "estimate": 0.25, "se": 0.125, "t": 2.0}],
                 "topics": [], "variances": []},
        "forecast": {"fitted": [], "forecast": [{"week_start": monday, "expected": 0.5,
                                                 "lower": 0.25, "upper": 0.75}],
                     "anomalies": [{"week_start": str(WEEK.start), "value": 1.0, "expected": 0.5,
                                    "z": 3.0}]},
        "survival": {"hazard_ratios": [], "kaplan_meier": [
            {"time": 3, "at_risk": 9, "survival": 0.5, "lower": 0.25, "upper": 0.75}]},
        "segments": {"centers": [{"segment": "A", "size": 12, "accuracy": 0.5}]},
    }  # fmt: skip
    summaries = {
        "glmm": {"slopes": {"n": 5, "mean": 2.0, "q5": 0, "q25": 1, "q50": 2, "q75": 3, "q95": 4}},
        "survival": {"risks": {"n": 0}, "highest": []},
    }
    records = [
        make_record(
            encode(
                ModelResult(
                    f"run-{kind}", "request", kind, "succeeded", "manual", monday, "v1", 5, 7,
                    answer=answer
                    | {
                        "status": "ok",
                        "warnings": ["Mind this."],
                        "fit_meta": {"run_id": "x", "model_spec": {"formula": "y ~ x"},
                                     "metrics": {"n": 8, "events": 2, "silhouette": 0.5}},
                    },
                    summary=summaries.get(kind, {}),
                    dataset={"churn_days": 14},
                )
            ),
            offset,
        )
        for offset, (kind, answer) in enumerate(answers.items())
    ]  # fmt: skip
    part = ModelLearners(
        "run-segments", "request", "segments", monday, "v1", 5, 0,
        [{"user_id": "u1", "segment": "A", "distance": 0.5}],
    )  # fmt: skip
    records.append(make_record(encode(part), len(records)))
    database = SinkDatabase(report_settings)
    await database.write(read_records(records, model_result_reader(report_settings)))
    await database.on_stop()

    data = await collect(report_settings, WEEK)
    glmm, forecast = data["growth"]["glmm"], data["forecast"]["run"]
    assert glmm["fixed"][0]["estimate"] == 0.25
    assert (glmm["slopes"]["n"], glmm["slopes"]["median"]) == (5, 2)
    assert (glmm["spec"], glmm["warnings"]) == ({"formula": "y ~ x"}, ["Mind this."])
    assert glmm["as_of"] == WEEK.end + timedelta(days=1)
    assert forecast["forecast"][0]["upper"] == 0.75
    assert forecast["anomalies"] == [
        {"week_start": WEEK.start, "value": 1.0, "expected": 0.5, "z": 3.0}
    ]
    churn = data["churn"]["run"]
    assert (churn["kaplan_meier"][0]["survival"], churn["churn_days"]) == (0.5, 14)
    assert churn["high_risk"]["gone"] == 0.25
    segments = data["segments"]["run"]
    assert segments["segments"] == [{"segment": "A", "size": 12, "center": {"accuracy": 0.5}}]
    # Before the Monday that the fits speak of, none of them was known.
    await add_day(tables, "u", WEEK.end, 0.0)
    assert (await collect(report_settings, WEEK.back(1)))["growth"]["glmm"] is None


async def test_columns_of_the_users_own_types_are_read_as_ours(
    tables: asyncpg.Connection, report_settings: Settings
) -> None:
    await add_everything(tables)
    expected = timeless(await collect(report_settings, WEEK))
    for table, column in (
        ("weekly_kpi", "kpis"), ("growth_glmm_meta", "params"), ("mirt_fit_meta", "metrics"),
        ("item_calibration", "params"), ("survival_fit_meta", "params"),
    ):  # fmt: skip
        await tables.execute(f"alter table {table} alter column {column} type json")
    await tables.execute("alter table mirt_fit_meta alter column fitted_at type timestamp")
    assert timeless(await collect(report_settings, WEEK)) == expected


async def test_missing_tables_end_in_what_to_do(report_settings: Settings) -> None:
    with pytest.raises(DatabaseSchemaError, match="thetastream migrate"):
        await collect(report_settings, WEEK)


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    write_data({"x": float("nan"), "day": date(2025, 3, 24)}, tmp_path / "deep" / "r.json")
    assert json.loads((tmp_path / "deep" / "r.json").read_text()) == {
        "x": None,
        "day": "2025-03-24",
    }
