"""The report's data: one object, read from PostgreSQL in one snapshot.

Its shape is described in ``docs/guides/weekly-report.md``. It holds counts, quantiles and
parameters of models; no learner is named in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from asyncpg.exceptions import ClientConfigurationError, InterfaceError, PostgresError

from stream.database import CONNECT_TIMEOUT_S, SESSION, convert_error, quoted
from stream.report import activity, items, models
from stream.report.alerts import alerts
from stream.report.runs import Horizon, share_of
from stream.report.week import Week
from stream.settings import Settings

__all__ = ["SCHEMA", "collect", "write_data"]

SCHEMA = "thetastream-weekly-report/1"
"""Kind and version of the data file; a new version may rename, the same one only adds."""

STATEMENT_TIMEOUT_S = 600.0
"""Seconds one query may take."""

_MISSING = {
    "summary": "Nobody answered anything in this week, so there is nothing to sum up.",
    "theta_trend": "No abilities were estimated in these weeks. They come with the first attempts: "
    "`thetastream run` with a sink.",
    "distributions": "There are neither abilities of learners active in the last 28 days nor "
    "calibrated items.",
    "item_map": "An item map needs both abilities and calibrated items. `thetastream calibrate "
    "now --wait` calibrates what has been answered.",
    "calibration": "No calibration was known as of this week. `thetastream calibrate now --wait` "
    "asks for one.",
    "linking": "No calibration was linked to the reference scale as of this week. The first "
    "applied one defines the scale; every later one is put on it.",
    "growth": "No growth model was fitted as of this week. `thetastream model now glmm` fits one "
    "where R_GLMM_BASE_URL is set, `thetastream model now growth` the Bayesian one "
    "(R_GROWTH_BASE_URL).",
    "forecast": "No forecast was made as of this week; it takes eight weeks with improvement. "
    "`thetastream model now forecast` makes one where R_FORECAST_BASE_URL is set.",
    "churn": "No survival model was fitted as of this week. `thetastream model now survival` fits "
    "one where R_SURVIVAL_BASE_URL is set.",
    "segments": "No segments were made as of this week; they take ten learners. `thetastream model "
    "now segments` makes them where R_SEGMENTS_BASE_URL is set.",
    "alerts": "No alert was raised up to this week: no calibration was refused, and no item was "
    "seen to drift.",
}


async def collect(settings: Settings, week: Week | None, weeks: int = 12) -> dict[str, Any]:
    """Read the report of a week.

    Parameters
    ----------
    settings
        Where the database is.
    week
        Which; None: the newest that is over and has attempts, else the newest with attempts.
    weeks
        How many weeks the trends go back, this one included; 2 or more.

    Returns
    -------
    dict
        The data; dates are `datetime.date`, moments `datetime.datetime`.

    Raises
    ------
    DatabaseUnavailableError, DatabaseSchemaError
        PostgreSQL cannot be used, or a table is missing.
    """
    try:
        connection = await asyncpg.connect(
            settings.database_url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=STATEMENT_TIMEOUT_S,
            server_settings=SESSION,
        )
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await connection.execute(f"set local search_path to {quoted(settings.db_schema)}")
                return await _collect(connection, week, weeks)
        finally:
            await connection.close()
    except (PostgresError, InterfaceError, ClientConfigurationError, OSError) as error:
        raise convert_error(error, settings.database_url) from error


def write_data(data: Mapping[str, Any], path: Path) -> None:
    """Write the data as JSON; a number that is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))


async def _collect(connection: asyncpg.Connection, week: Week | None, weeks: int) -> dict[str, Any]:
    newest = await activity.newest_date(connection)
    today = datetime.now(UTC).date()
    week = week or _default_week(newest, today)
    horizon = Horizon(week.cut, newest is None or newest <= week.end)

    by_week = await activity.weekly_activity(connection, week, weeks)
    trend = await activity.theta_trend(connection, week, weeks)
    kpis, at_risk = await activity.indicators(connection, week, weeks)
    abilities = await activity.abilities(connection, week)
    runs, known, every = await items.calibrations(connection, horizon)
    in_force = await items.items_in_force(connection, horizon, known, every)
    applied = [run for run in runs if run["applied"]]

    data: dict[str, Any] = {
        "schema": SCHEMA,
        "generated_at": datetime.now(UTC).replace(microsecond=0),
        "week": {
            "iso": str(week),
            "start": week.start,
            "end": week.end,
            "over": week.end < today,
            "newest_activity": newest,
        },
        "weeks": weeks,
        "summary": {
            "weeks": by_week,
            "paired_change": await activity.paired_change(connection, week),
            "theta": _two(trend, week),
            "indicators": kpis,
            "at_risk": at_risk,
            "items_calibrated": len(in_force),
        },
        "theta_trend": {
            "weeks": trend,
            "calibrations": [
                run["at"] for run in applied if run["at"] and run["at"] >= _begin(week, weeks)
            ],
        },
        "distributions": {
            "active_days": activity.ABILITY_DAYS,
            "abilities": abilities,
            **items.described_items(in_force),
        },
        "item_map": items.targeting(abilities["histogram"]["counts"], in_force),
        "calibration": {
            "runs": runs[-items.SHOWN_RUNS :],
            "n_runs": len(runs),
            "in_force": applied[-1] if applied else None,
        },
        "linking": {
            "runs": [run for run in applied if run["slope"] is not None][-items.SHOWN_RUNS :]
        },
        "growth": {
            "glmm": await models.growth(connection, horizon, "growth_glmm_meta"),
            "bayes": await models.growth(connection, horizon, "growth_brms_meta"),
        },
        "forecast": {"run": await models.forecast(connection, horizon)},
        "churn": {"run": await models.churn(connection, horizon)},
        "segments": {"run": await models.segments(connection, horizon)},
        "alerts": await alerts(connection, horizon, {run["run_id"]: run["at"] for run in runs}),
    }
    present = {
        "summary": by_week[-1]["attempts"] > 0,
        "theta_trend": bool(trend),
        "distributions": bool(abilities["n"] or in_force),
        "item_map": bool(abilities["n"] and in_force),
        "calibration": bool(runs),
        "linking": bool(data["linking"]["runs"]),
        "growth": bool(data["growth"]["glmm"] or data["growth"]["bayes"]),
        **{name: data[name]["run"] is not None for name in ("forecast", "churn", "segments")},
        "alerts": data["alerts"]["total"] > 0,
    }
    for name, there in present.items():
        data[name]["missing"] = None if there else _MISSING[name]
    data["summary"]["accuracy"] = [
        share_of(row["correct"], row["attempts"]) for row in by_week[-2:]
    ]
    return data


def _default_week(newest: date | None, today: date) -> Week:
    """Return the last week that is over, or the newest with attempts where that is earlier."""
    over = Week.of(today).back(1)
    return over if newest is None else min(over, Week.of(newest))


def _begin(week: Week, weeks: int) -> datetime:
    return week.cut - timedelta(weeks=weeks)


def _two(trend: list[dict[str, Any]], week: Week) -> list[dict[str, Any] | None]:
    """Return the trend's rows of the week before and of the week; None where there is none."""
    by_start = {row["week_start"]: row for row in trend}
    return [by_start.get(week.back(1).start), by_start.get(week.start)]
