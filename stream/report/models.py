"""What the models of growth, forecast, churn and segments found, as of a week."""

from __future__ import annotations

from typing import Any

import asyncpg

from stream.report.distribution import (
    QUANTILES,
    clipped_counts,
    described,
    histogram,
    round_edges,
)
from stream.report.runs import Horizon, latest_run, objects, unpacked

__all__ = ["churn", "forecast", "growth", "segments"]

LISTED_TOPICS = 24
"""Topics that are shown one by one: the strongest and the weakest."""

CURVE_POINTS = 400
"""Points of a survival curve: more than a figure can show."""

HIGH_RISK = 0.5
"""Probability from which a learner's risk of leaving is called high."""

_DESCRIBED = """
    select count(*) as n, avg(value) as mean, avg((value > 0)::int)::float8 as positive,
        percentile_cont($2::float8[]) within group (order by value) as quantiles,
        percentile_cont(array[.005, .995]) within group (order by value) as bulk
    from
"""
_BUCKETS = """
    select width_bucket(value, $2::float8, $3::float8, $4::int) as bucket, count(*) as n from
"""

_RISKS = """
    select avg((value >= $2 and value < 1)::int)::float8 as share,
        avg((value >= 1)::int)::float8 as gone
    from
"""

# Lax paths find the values whether rows came as objects or as columns.
_VALUES = """
    (select (value #>> '{{}}')::float8 as value
    from {table}, jsonb_path_query(params::jsonb, '{path}') as value
    where run_id = $1 and jsonb_typeof(value) = 'number') as found
"""

_TOPICS = ("topic_id", "intercept")
_FIXED = (*("term", "estimate", "se", "t", "mean", "sd", "lower", "upper", "rhat", "ess"),)
_VARIANCES = ("group", "term", "sd", "correlation")


async def growth(
    connection: asyncpg.Connection, horizon: Horizon, table: str
) -> dict[str, Any] | None:
    """Return the growth model in ``growth_glmm_meta`` or ``growth_brms_meta``; None without one."""
    run = await latest_run(connection, table, horizon)
    if run is None:
        return None
    params, summary = run.pop("params"), run.pop("summary")
    topics = sorted(
        (row for row in _rows(params.get("topics"), _TOPICS) if row["intercept"] is not None),
        key=lambda row: float(row["intercept"]),
    )
    shown = topics
    if len(topics) > LISTED_TOPICS:
        shown = topics[: LISTED_TOPICS // 2] + topics[-LISTED_TOPICS // 2 :]
    return run | {
        "fixed": _rows(params.get("fixed"), _FIXED),
        "variances": _rows(params.get("variances"), _VARIANCES),
        "slopes": await _distribution(connection, table, run["run_id"], "$.students[*].slope[*]")
        or _told(summary.get("slopes")),
        "topics": shown,
        "n_topics": len(topics),
    }


async def forecast(connection: asyncpg.Connection, horizon: Horizon) -> dict[str, Any] | None:
    """Return the newest forecast with its anomalies; None without one."""
    run = await latest_run(connection, "prophet_fit_meta", horizon)
    if run is None:
        return None
    params = run.pop("params")
    run.pop("summary")
    anomalies = await connection.fetch(
        "select week_start, params, metrics from prophet_anomalies where run_id = $1 "
        "order by week_start",
        run["run_id"],
    )
    stored = [
        {**unpacked(row["metrics"]), **unpacked(row["params"]), "week_start": row["week_start"]}
        for row in anomalies
    ]
    return run | {
        "fitted": _rows(params.get("fitted"), ("week_start", "value", "expected")),
        "forecast": _rows(params.get("forecast"), ("week_start", "expected", "lower", "upper")),
        "anomalies": _rows(
            stored or params.get("anomalies"), ("week_start", "value", "expected", "z")
        ),
    }


async def churn(connection: asyncpg.Connection, horizon: Horizon) -> dict[str, Any] | None:
    """Return the newest survival fit: curve, hazard ratios, risks; None without one."""
    table = "survival_fit_meta"
    run = await latest_run(connection, table, horizon)
    if run is None:
        return None
    params, summary = run.pop("params"), run.pop("summary")
    curve = _rows(params.get("kaplan_meier"), ("time", "at_risk", "survival", "lower", "upper"))
    every = -(-len(curve) // CURVE_POINTS)
    path = "$.risks[*].risk[*]"
    values = _VALUES.format(table=table, path=path)
    high = await connection.fetchrow(_RISKS + values, run["run_id"], HIGH_RISK)
    n, events = run["metrics"].get("n"), run["metrics"].get("events")
    if high["gone"] is None and n and events is not None:
        high = {"share": None, "gone": events / n}
    return run | {
        "kaplan_meier": curve[::every] + (curve[-1:] if (len(curve) - 1) % every else [])
        if curve
        else [],
        "hazard_ratios": _rows(
            params.get("hazard_ratios"), ("term", "hazard_ratio", "lower", "upper", "p")
        ),
        "risks": await _distribution(connection, table, run["run_id"], path, (0.0, 1.0, 20))
        or _told(summary.get("risks")),
        "high_risk": {"from": HIGH_RISK, **dict(high)},
        "churn_days": run["dataset"].get("churn_days", run["spec"].get("churn_days")),
        "horizon_days": run["dataset"].get("horizon_days", run["spec"].get("horizon_days")),
    }


async def segments(connection: asyncpg.Connection, horizon: Horizon) -> dict[str, Any] | None:
    """Return the newest segments: their centres and sizes; None without any."""
    run = await latest_run(connection, "segment_meta", horizon)
    if run is None:
        return None
    run.pop("summary")
    centers = objects(run.pop("params").get("centers"))
    counted = await connection.fetch(
        "select segment, count(*) as n from user_segment "
        "where run_id = $1 and segment is not null group by 1 order by 1",
        run["run_id"],
    )
    sizes = {str(row["segment"]): row["n"] for row in counted}
    features = list(
        dict.fromkeys(
            name
            for center in centers
            for name, value in center.items()
            if name not in ("segment", "size") and isinstance(value, int | float)
        )
    )
    if not centers:
        centers = [{"segment": name} for name in sizes]
    rows = [
        {
            "segment": str(center.get("segment", "")),
            "size": center.get("size", sizes.get(str(center.get("segment")))),
            "center": {name: center.get(name) for name in features},
        }
        for center in centers
    ]
    return run | {
        "features": features,
        "segments": sorted(rows, key=lambda row: str(row["segment"])),
    }


def _rows(value: Any, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return rows with exactly these columns; None where a row lacks one."""
    return [{name: row.get(name) for name in columns} for row in objects(value)]


async def _distribution(
    connection: asyncpg.Connection,
    table: str,
    run_id: str,
    path: str,
    edges: tuple[float, float, int] | None = None,
) -> dict[str, Any] | None:
    """Describe numbers that a run holds, a learner each, without fetching them; None of none."""
    values = _VALUES.format(table=table, path=path)
    row = await connection.fetchrow(_DESCRIBED + values, run_id, list(QUANTILES))
    if not row["n"]:
        return None
    low, high, bins = edges or round_edges(*row["bulk"])
    counts = await connection.fetch(_BUCKETS + values + " group by 1", run_id, low, high, bins)
    return described(row["n"], row["quantiles"], row["mean"]) | {
        "positive": row["positive"],
        "histogram": histogram(low, high, clipped_counts([tuple(r) for r in counts], bins)),
    }


def _told(summary: Any) -> dict[str, Any]:
    """Describe the learners' values by what the run itself says of them: no histogram."""
    told = unpacked(summary)
    quantiles = [told.get(f"q{round(100 * share)}") for share in QUANTILES]
    known = described(int(told.get("n") or 0), quantiles, told.get("mean"))
    return known | {"positive": told.get("positive"), "histogram": told.get("histogram")}
