"""A migrated database with a small school in it, and its settings."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from stream.migrate import migrate
from stream.report import Week
from stream.settings import Settings

WEEK = Week.parse("2025-W13")
"""The week of the reports: 24 to 30 March 2025."""


@pytest.fixture
def report_settings(database_url: str) -> Settings:
    """Settings of the test's own database."""
    return Settings(database_url=database_url)


@pytest.fixture
async def tables(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a migrated database."""
    await migrate(database_url)
    connection = await asyncpg.connect(database_url, server_settings={"timezone": "UTC"})
    yield connection
    await connection.close()


async def add_day(
    connection: asyncpg.Connection,
    user: str,
    day: date,
    theta: float | None,
    *,
    topic: str = "t1",
    attempts: int = 10,
    correct: int = 6,
) -> None:
    """Insert a learner's day in a topic."""
    await connection.execute(
        "insert into features_topic_daily (user_id, topic_id, date, attempts, correct, hints, "
        "theta_estimate) values ($1, $2, $3, $4, $5, 1, $6::float8::numeric)",
        *(user, topic, day, attempts, correct, theta),
    )


async def add_kpis(connection: asyncpg.Connection, user: str, week: Week, **kpis: Any) -> None:
    """Insert a learner's indicators of a week."""
    await connection.execute(
        "insert into weekly_kpi (user_id, week_start, kpis) values ($1, $2, $3)",
        *(user, week.start, json.dumps(kpis)),
    )


async def add_run(
    connection: asyncpg.Connection, run_id: str, cut: datetime, **changes: Any
) -> None:
    """Insert an applied calibration of what was answered before ``cut``, written years later."""
    spec = {
        "model": "2PL",
        "applied": True,
        "version": f"v-{run_id}",
        "linking_constants": {
            "slope": 1.02, "intercept": 0.1, "se_slope": 0.02, "se_intercept": 0.03,
            "method": "stocking_lord", "n_common": 33, "dropped": ["i9"],
        },
    }  # fmt: skip
    metrics = {
        "kind": "irt", "status": "succeeded", "outcome": "applied", "converged": True,
        "cut_time": int(cut.timestamp() * 1000), "n_observations": 5000, "n_learners": 40,
        "n_items": 3, "loglik": -2500.0, "group": {"mean": 0.1, "sd": 1.1},
    }  # fmt: skip
    await connection.execute(
        "insert into mirt_fit_meta (run_id, model_spec, metrics, fitted_at) "
        "values ($1, $2, $3, $4)",
        run_id,
        json.dumps(spec | changes.pop("spec", {})),
        json.dumps(metrics | changes.pop("metrics", {})),
        datetime(2030, 1, 1, tzinfo=UTC),
    )


async def add_item(
    connection: asyncpg.Connection, item: str, version: str, b: float, a: float = 1.0
) -> None:
    """Insert an item's parameters in a version, written years later."""
    await connection.execute(
        "insert into item_calibration (item_id, version, params, metrics, fitted_at) "
        "values ($1, $2, $3, $4, $5)",
        *(item, version, json.dumps({"a": a, "b": b, "c": 0.0})),
        *(json.dumps({"se_b": 0.2, "n": 120}), datetime(2030, 1, 1, tzinfo=UTC)),
    )


async def add_fit(
    connection: asyncpg.Connection,
    table: str,
    run_id: str,
    as_of: date | None,
    params: Any,
    metrics: Any,
) -> None:
    """Insert a run of a model."""
    await connection.execute(
        f"insert into {table} (run_id, params, metrics, fitted_at, as_of) "
        "values ($1, $2, $3, $4, $5)",
        *(run_id, json.dumps(params), json.dumps(metrics)),
        *(datetime(2030, 1, 1, tzinfo=UTC), as_of),
    )


async def add_everything(connection: asyncpg.Connection) -> None:
    """Fill every table that the report reads, for twelve weeks and forty learners."""
    learners = [f"learner-{n:02d}" for n in range(40)]
    for n, user in enumerate(learners):
        for back in range(12):
            week = WEEK.back(back)
            theta = -1.5 + 0.08 * n - 0.05 * back
            await add_day(connection, user, week.start + timedelta(days=n % 7), theta)
            await add_kpis(
                connection, user, week, I_t=0.01 * n, A_t=0.4, S=0.02 * n, E_t=None, mine=3
            )
    for back in (6, 4, 2, 1):
        await add_run(connection, f"r{back}", WEEK.back(back).cut - timedelta(hours=3))
        for n in range(60):
            await add_item(connection, f"i{n}", f"v-r{back}", -2 + 4 * n / 60)
    monday = WEEK.end + timedelta(days=1)
    starts = [str(WEEK.back(back).start) for back in range(11, -1, -1)]
    await add_fit(
        connection,
        "growth_glmm_meta",
        "g",
        monday,
        {
            "model_spec": {"formula": "score ~ week + (week | user_id) + (1 | topic_id)"},
            "fixed": [
                {"term": "(Intercept)", "estimate": 0.5, "se": 0.02, "t": 25},
                {"term": "week", "estimate": 0.01, "se": 0.002, "t": 5},
            ],
            "topics": [{"topic_id": f"t{n}", "intercept": 0.1 * n - 0.2} for n in range(5)],
            "variances": [{"group": "user_id", "term": "week", "sd": 0.02, "correlation": None}],
            "students": [
                {"user_id": user, "intercept": 0.5, "slope": 0.001 * n}
                for n, user in enumerate(learners)
            ],
        },
        {"n": 480, "students": 40, "topics": 5, "singular": False, "warnings": ["One was odd."]},
    )
    await add_fit(
        connection,
        "growth_brms_meta",
        "b",
        monday,
        {
            "model_spec": {"priors": {"week": "normal(0, 0.1)"}},
            "fixed": [
                {"term": "week", "mean": 0.01, "sd": 0.002, "lower": 0.006, "upper": 0.014,
                 "rhat": 1.002, "ess": 800},
            ],
            "summary": {"slopes": {"n": 40, "mean": 0.02, "q5": 0, "q25": 0.01, "q50": 0.02,
                                   "q75": 0.03, "q95": 0.04}},
        },
        {"max_rhat": 1.002, "min_ess": 800, "divergences": 0},
    )  # fmt: skip
    anomaly = {"week_start": starts[-1], "value": 0.09, "expected": 0.02, "z": 3.4}
    await add_fit(
        connection,
        "prophet_fit_meta",
        "f",
        monday,
        {
            "fitted": [{"week_start": s, "value": 0.02, "expected": 0.02} for s in starts],
            "forecast": [
                {"week_start": str(WEEK.back(-n).start), "expected": 0.02, "lower": 0.01,
                 "upper": 0.03}
                for n in range(1, 5)
            ],
            "anomalies": [anomaly],
        },
        {"n": 12, "mae": 0.002},
    )  # fmt: skip
    await connection.execute(
        "insert into prophet_anomalies (run_id, week_start, params, metrics) "
        "values ('f', $1, '{}', $2)",
        *(WEEK.start, json.dumps(anomaly)),
    )
    await add_fit(
        connection,
        "survival_fit_meta",
        "s",
        monday,
        {
            "dataset": {"churn_days": 14, "horizon_days": 28},
            "summary": {
                "risks": {"n": 30, "mean": 0.3, "q5": 0.1, "q25": 0.2, "q50": 0.3, "q75": 0.4,
                          "q95": 0.6},
                "highest": [{"user_id": learners[0], "risk": 0.9}],
            },
            "kaplan_meier": [
                {"time": t, "at_risk": 40 - t, "survival": 1 - t / 60, "lower": 0.9 - t / 60,
                 "upper": min(1, 1.1 - t / 60)}
                for t in range(0, 40, 4)
            ],
            "hazard_ratios": [
                {"term": "accuracy", "hazard_ratio": 0.5, "lower": 0.3, "upper": 0.8, "p": 0.001},
                {"term": "theta", "hazard_ratio": 1.1, "lower": 0.8, "upper": 1.5, "p": 0.5},
            ],
        },
        {"n": 40, "events": 10, "concordance": 0.7, "ph_p": 0.01},
    )  # fmt: skip
    await add_fit(
        connection,
        "segment_meta",
        "k",
        monday,
        {
            "centers": [
                {"segment": "A", "size": 25, "accuracy": 0.8, "A_t": 0.6},
                {"segment": "B", "size": 15, "accuracy": 0.4, "A_t": 0.2},
            ]
        },
        {"k": 2, "silhouette": 0.5},
    )
    await connection.execute(
        "insert into drift_alerts (alert_id, kind, item_id, detail, metrics, raised_at) "
        "values ('a', 'item_drift', 'i7', 'It became easier.', $1, $2)",
        *(json.dumps({"shift": 0.5, "z": 6.1}), WEEK.cut - timedelta(days=2)),
    )
