"""What the demo shows at its end: tables, calibrations, recovery, one learner, the check."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
from rich.console import Console
from rich.table import Table

from stream.settings import Settings

if TYPE_CHECKING:
    from stream.verify import Report

__all__ = ["MIN_ATTEMPTS", "agreement", "print_report"]

MIN_ATTEMPTS = 30
"""Attempts from which on a learner's live and batch ability are compared."""

_TABLES = (
    "features_topic_daily",
    "weekly_kpi",
    "student_topic_theta",
    "mirt_ability",
    "mirt_item_params",
    "mirt_fit_meta",
    "topic_totals",
    "item_totals",
)


def print_report(
    out: Console,
    settings: Settings,
    url: str,
    calibration: Mapping[str, Any],
    truth: Mapping[str, Any] | None,
    report: Report,
) -> None:
    """Print the summary.

    Parameters
    ----------
    out
        Where to.
    settings
        Where the tables are.
    url
        Of the lookup API, to show.
    calibration
        What `calibrate now` said of the last calibration.
    truth
        Of the simulated school, else None.
    report
        Of the verification.
    """
    found = asyncio.run(_read(settings))
    table = Table("table", "rows", title="Tables in PostgreSQL", title_justify="left")
    for name, count in found["counts"].items():
        table.add_row(name, f"{count:,}")
    out.print(table)
    _print_calibrations(out, found["fits"])
    live = found["agreement"]
    if live is not None:
        out.print(
            f"live against batch abilities, {live['n']:,} learners with >= {MIN_ATTEMPTS} "
            f"attempts: mean |difference| {live['mean_abs']:.3f}, largest {live['max_abs']:.3f}",
            highlight=False,
        )
    if truth is not None:
        _print_recovery(out, truth, found)
    _print_path(out, found["path"], url)
    verdict = "[green]0 mismatches[/green]" if report.ok else "[red]MISMATCHES[/red]"
    for part in report.tables:
        out.print(
            f"{part.table}: {part.compared_rows:,} rows compared, {part.mismatches} mismatches",
            highlight=False,
        )
    out.print(
        f"verification: {verdict} (last run {calibration.get('run_id', '-')})", highlight=False
    )


def agreement(live: Mapping[str, float], batch: Mapping[str, float]) -> dict[str, float] | None:
    """Compare live with batch abilities of the learners that have both.

    Returns
    -------
    dict or None
        ``n``, ``mean_abs`` and ``max_abs`` (logits); None without a common learner.
    """
    common = live.keys() & batch.keys()
    if not common:
        return None
    differences = np.array([abs(live[user] - batch[user]) for user in common])
    return {
        "n": len(common),
        "mean_abs": float(differences.mean()),
        "max_abs": float(differences.max()),
    }


def _print_calibrations(out: Console, fits: list[dict[str, Any]]) -> None:
    table = Table(
        "run", "applied", "slope", "intercept", "method", "responses", "log-likelihood",
        title="Calibrations", title_justify="left",
    )  # fmt: skip
    for fit in fits:
        spec, metrics = fit["model_spec"], fit["metrics"]
        constants = spec.get("linking_constants") or {}
        table.add_row(
            fit["run_id"][:20],
            "yes" if spec.get("applied") else "no",
            _number(constants.get("slope")),
            _number(constants.get("intercept")),
            str(constants.get("method", "-")),
            str(metrics.get("n_responses", "-")),
            _number(metrics.get("loglik") or metrics.get("log_likelihood")),
        )
    out.print(table)


def _print_recovery(out: Console, truth: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    table = Table(
        "parameter",
        "n",
        "correlation",
        "RMSE",
        title="Recovered against true",
        title_justify="left",
    )
    true_items = {item["item_id"]: item for item in truth["items"]}
    items = {i: p for i, p in found["items"].items() if i in true_items}
    for name in ("a", "b"):
        pairs = [(true_items[i][name], params[name]) for i, params in items.items()]
        _add_recovery(table, f"item {name}", pairs)
    true_thetas = {
        learner["user_id"]: learner["theta_end"]
        for learner in truth["learners"]
        if learner["theta_end"] is not None
    }
    pairs = [(true_thetas[u], t) for u, t in found["live"].items() if u in true_thetas]
    _add_recovery(table, f"theta now (>= {MIN_ATTEMPTS} attempts)", pairs)
    out.print(table)


def _add_recovery(table: Table, name: str, pairs: list[tuple[float, float]]) -> None:
    if len(pairs) < 2:
        return
    true, estimate = np.array(pairs).T
    rmse = float(np.sqrt(np.mean((true - estimate) ** 2)))
    correlation = float(np.corrcoef(true, estimate)[0, 1])
    table.add_row(name, str(len(pairs)), f"{correlation:.3f}", f"{rmse:.3f}")


def _print_path(out: Console, path: list[Any], url: str) -> None:
    if not path:
        return
    user_id = path[0]["user_id"]
    table = Table(
        "date", "attempts", "theta", "sd", "I_t",
        title=f"Theta path of learner {user_id}, topic {path[0]['topic_id']} "
        f"(now: {url}/theta/{user_id})",
        title_justify="left",
    )  # fmt: skip
    for row in path:
        table.add_row(
            str(row["date"]),
            str(row["attempts"]),
            _number(row["theta_estimate"]),
            _number(row["theta_sd"]),
            _number(row["improvement"]),
        )
    out.print(table)


def _number(value: Any) -> str:
    return "-" if value is None else f"{float(value):.3f}"


async def _read(settings: Settings) -> dict[str, Any]:
    schema = f'"{settings.db_schema}"'
    connection = await asyncpg.connect(settings.database_url)
    try:
        await connection.execute(f"set search_path to {schema}")
        counts = {
            name: await connection.fetchval(f"select count(*) from {name}")  # noqa: S608
            for name in _TABLES
        }
        fits = [
            {
                "run_id": row["run_id"],
                "model_spec": json.loads(row["model_spec"] or "{}"),
                "metrics": json.loads(row["metrics"] or "{}"),
            }
            for row in await connection.fetch("select * from mirt_fit_meta order by fitted_at")
        ]
        attempts = await connection.fetch(
            "select user_id from features_topic_daily group by user_id having sum(attempts) >= $1",
            MIN_ATTEMPTS,
        )
        enough = {row["user_id"] for row in attempts}
        live: dict[str, float] = {}
        batch: dict[str, float] = {}
        for row in await connection.fetch(
            "select distinct on (user_id, version = 'live') user_id, version, theta "
            "from mirt_ability order by user_id, version = 'live', fitted_at desc"
        ):
            if row["user_id"] in enough:
                (live if row["version"] == "live" else batch)[row["user_id"]] = row["theta"]
        items = {
            row["item_id"]: json.loads(row["params"])
            for row in await connection.fetch("select item_id, params from mirt_item_params")
        }
        path = await connection.fetch(
            "with one as (select user_id, topic_id from features_topic_daily "
            "group by 1, 2 order by count(*) desc, 1, 2 limit 1) "
            "select f.* from features_topic_daily f join one using (user_id, topic_id) "
            "order by date desc limit 8"
        )
    finally:
        await connection.close()
    return {
        "counts": counts,
        "fits": fits,
        "live": live,
        "agreement": agreement(live, batch),
        "items": items,
        "path": list(reversed(path)),
    }
