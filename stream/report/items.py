"""Items and their calibrations: runs, linking constants, parameters in force, targeting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import numpy as np

from stream.report.distribution import THETA_BINS, THETA_HIGH, THETA_LOW, histogram, of_values
from stream.report.runs import Horizon, cut_of, unpacked

__all__ = ["SHOWN_RUNS", "calibrations", "described_items", "items_in_force", "targeting"]

SHOWN_RUNS = 24
"""Newest runs that the report shows."""

LISTED_ITEMS = 300
"""Items up to which each is a point of its own; more are counted in bins."""

NEAR = 0.5
"""Logits within which an item tells much about a learner."""

ENOUGH_ITEMS = 5
"""Items near a learner's ability from which the learner counts as well served."""

_RUNS = """
    select run_id, fitted_at::timestamptz as fitted_at, model_spec,
        case jsonb_typeof(metrics::jsonb) when 'object'
            then metrics::jsonb - array['cut_offsets', 'tagged_anchors', 'fixed_anchors']
        end as metrics,
        case jsonb_typeof(metrics::jsonb -> 'fixed_anchors') when 'array'
            then jsonb_array_length(metrics::jsonb -> 'fixed_anchors') end as fixed_anchors
    from mirt_fit_meta order by fitted_at desc nulls last, run_id limit 500
"""

# The newest known row of each item, by the end of its calibration's data where that is known.
_ITEMS = """
    with row as (
        select item_id, version, params::jsonb as params, metrics::jsonb as metrics,
            fitted_at::timestamptz as fitted_at, true as history
        from item_calibration
        union all
        select item_id, version, params::jsonb, null, fitted_at::timestamptz, false
        from mirt_item_params
    )
    select distinct on (item_id) item_id, version, (params ->> 'a')::float8 as a,
        (params ->> 'b')::float8 as b, (params ->> 'c')::float8 as c,
        (metrics ->> 'se_b')::float8 as se_b, (metrics ->> 'n')::float8 as n
    from row
    where jsonb_typeof(params -> 'b') = 'number' and jsonb_typeof(params -> 'a') = 'number'
        and (version = any($1::text[])
            or (version = any($2::text[])) is not true and ($3 or fitted_at <= $4))
    order by item_id, array_position($1::text[], version) desc nulls last,
        fitted_at desc nulls last, history desc
"""


async def calibrations(
    connection: asyncpg.Connection, horizon: Horizon
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Return the calibrations known as of a week.

    Returns
    -------
    tuple
        Runs, oldest first by the end of their data; versions in force up to then; all versions.
    """
    runs, every = [], []
    for row in await connection.fetch(_RUNS):
        spec, metrics = unpacked(row["model_spec"]), unpacked(row["metrics"])
        if metrics.get("kind", "irt") != "irt":
            continue
        event = cut_of(metrics)
        if spec.get("version"):
            every.append(str(spec["version"]))
        if horizon.knows(event, row["fitted_at"]):
            runs.append(_run(row, spec, metrics, event))
    runs.sort(key=lambda run: (str(run["at"]), str(run["fitted_at"])))
    known = [run["version"] for run in runs if run["version"]]
    return runs, known, every


def _run(
    row: Mapping[str, Any], spec: dict[str, Any], metrics: dict[str, Any], event: datetime | None
) -> dict[str, Any]:
    constants = unpacked(spec.get("linking_constants"))
    group = unpacked(metrics.get("group"))
    status = str(metrics.get("outcome") or metrics.get("status") or "succeeded")
    # Rows of other writers do not say whether they were applied: a success was.
    applied = bool(spec.get("applied", status == "succeeded"))
    reasons = metrics.get("outcome_reasons") or ([metrics["error"]] if metrics.get("error") else [])
    warnings = [*(metrics.get("warnings") or ()), *(metrics.get("outcome_warnings") or ())]
    return {
        "run_id": row["run_id"],
        "at": event or row["fitted_at"],
        "fitted_at": row["fitted_at"],
        "status": "applied" if applied else status,
        "applied": applied,
        "version": spec.get("version"),
        "model": spec.get("model"),
        "estimator": spec.get("estimator"),
        "reason": metrics.get("reason"),
        "responses": metrics.get("n_observations")
        or metrics.get("n_responses")
        or metrics.get("n"),
        "learners": metrics.get("n_learners"),
        "items": metrics.get("n_items"),
        "flagged": metrics.get("n_flagged"),
        "fixed_anchors": row["fixed_anchors"],
        "converged": metrics.get("converged"),
        "iterations": metrics.get("iterations"),
        "log_likelihood": metrics.get("loglik", metrics.get("log_likelihood")),
        "group_mean": group.get("mean"),
        "group_mean_se": group.get("mean_se"),
        "group_sd": group.get("sd"),
        "group_sd_se": group.get("sd_se"),
        "slope": constants.get("slope"),
        "se_slope": constants.get("se_slope"),
        "intercept": constants.get("intercept"),
        "se_intercept": constants.get("se_intercept"),
        "method": constants.get("method"),
        "common_items": constants.get("n_common"),
        "dropped": [str(item) for item in constants.get("dropped") or ()],
        "reasons": [str(reason) for reason in reasons],
        "warnings": list(dict.fromkeys(str(warning) for warning in warnings)),
    }


async def items_in_force(
    connection: asyncpg.Connection, horizon: Horizon, known: Sequence[str], every: Sequence[str]
) -> list[dict[str, Any]]:
    """Return every calibrated item with the parameters known as of a week.

    Parameters
    ----------
    known, every
        Versions applied up to then, and all there are: a row of another version counts by its
        time of writing.
    """
    rows = await connection.fetch(_ITEMS, list(known), list(every), horizon.newest, horizon.cut)
    return [dict(row) for row in rows]


def described_items(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the distributions of difficulties, slopes and standard errors."""
    b, a, se_b = (_column(items, name) for name in ("b", "a", "se_b"))
    return {
        "difficulty": {
            **of_values(b),
            "histogram": histogram(THETA_LOW, THETA_HIGH, _theta_counts(b)),
        },
        "slope": of_values(a),
        "se_b": {
            **of_values(se_b),
            "histogram": histogram(0.0, 1.0, _counts(se_b, 0.0, 1.0, 20)),
        },
        "list": [
            {name: item[name] for name in ("item_id", "a", "b", "se_b", "n")} for item in items
        ]
        if len(items) <= LISTED_ITEMS
        else [],
    }


def targeting(learners: Sequence[int], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Say how well the items' difficulties meet the learners' abilities.

    Parameters
    ----------
    learners
        Learners a bin of ability, `THETA_BINS` of them.
    items
        With their difficulty ``b``.

    Returns
    -------
    dict
        near (items within `NEAR` logits of each bin's middle), served (share of learners with at
        least `ENOUGH_ITEMS`), and the bounds used.
    """
    width = (THETA_HIGH - THETA_LOW) / THETA_BINS
    middles = THETA_LOW + width * (np.arange(THETA_BINS) + 0.5)
    b = np.sort(_column(items, "b"))
    near = np.searchsorted(b, middles + NEAR, "right") - np.searchsorted(b, middles - NEAR)
    counts = np.asarray(learners)
    total = int(counts.sum())
    served = float(counts[near >= ENOUGH_ITEMS].sum() / total) if total else None
    return {
        "near": near.tolist(),
        "served": served,
        "within": NEAR,
        "enough": ENOUGH_ITEMS,
    }


def _column(items: Sequence[Mapping[str, Any]], name: str) -> Any:
    values = np.array([item[name] for item in items if item[name] is not None], float)
    return values[np.isfinite(values)]


def _counts(values: Any, low: float, high: float, bins: int) -> list[int]:
    clipped = np.clip(values, low, np.nextafter(high, low))
    counts: list[int] = np.histogram(clipped, bins, (low, high))[0].tolist()
    return counts


def _theta_counts(values: Any) -> list[int]:
    return _counts(values, THETA_LOW, THETA_HIGH, THETA_BINS)
