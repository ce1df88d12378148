"""The demo's last part with real R: each model once, what it left in the tables, the report."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from stream.models.registry import KINDS
from stream.settings import Settings

__all__ = ["MODEL_DEFAULTS", "fit_models", "print_models", "write_report"]

MODEL_DEFAULTS = {
    # Each model is asked for once, at the end.
    "THETASTREAM_GLMM_SCHEDULE": "",
    "THETASTREAM_MODEL_SCHEDULE": "",
    "GLMM_UPDATE_KPI": "true",
    # Sampling from a posterior is slow; a few dozen learners show how it goes.
    "THETASTREAM_GROWTH_MAX_ROWS": "1000",
    # A file of few weeks is to show something, though less surely than a deployment would ask for.
    "THETASTREAM_FORECAST_MIN_WEEKS": "4",
    "THETASTREAM_FORECAST_Z": "1",
}
"""Settings of the demo with R, where they are not set."""

_TABLES = (
    *("growth_glmm_meta", "growth_brms_meta", "prophet_fit_meta", "prophet_anomalies"),
    *("survival_fit_meta", "segment_meta", "user_segment"),
)


def fit_models(env: Mapping[str, str], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Ask for each model in turn; return what each command said, and the seconds it took."""
    told = []
    for kind in KINDS:
        say(f"fitting the model {kind}")
        began = time.monotonic()
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "stream", "model", "now", kind, "--json"],
            env=dict(env),
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            told.append(json.loads(done.stdout))
        except ValueError:
            error = done.stderr.strip()[-500:]
            told.append({"kind": kind, "status": "failed", "error": error})
        told[-1]["seconds"] = time.monotonic() - began
    return told


def print_models(out: Console, settings: Settings, told: list[dict[str, Any]]) -> bool:
    """Print each model's outcome and the rows of its tables.

    Returns
    -------
    bool
        Whether every model was fitted and every table has rows.
    """
    table = Table(
        *("model", "status", "as of", "rows", "learners", "seconds"),
        title="Models",
        title_justify="left",
    )
    for one in told:
        rows = one.get("dataset", {}).get("rows", "-")
        table.add_row(
            one["kind"],
            one["status"],
            one.get("as_of", "-"),
            str(rows),
            str(one.get("n_learners", "-")),
            f"{one['seconds']:.1f}",
        )
    out.print(table)
    for one in told:
        if one["status"] != "succeeded":
            out.print(f"{one['kind']}: {one.get('error', 'no reason given')}", highlight=False)
    counts = asyncio.run(_counts(settings))
    table = Table("table", "rows", title="What models left", title_justify="left")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    out.print(table)
    return all(one["status"] == "succeeded" for one in told) and all(counts.values())


def write_report(out: Console, env: Mapping[str, str], path: Path) -> bool:
    """Write the weekly report of the newest week, and print what it lacks.

    Returns
    -------
    bool
        Whether it was written.
    """
    command = [sys.executable, "-m", "stream", "report", "--out", str(path), "--json"]
    done = subprocess.run(  # noqa: S603 - our own command
        command, env=dict(env), capture_output=True, text=True, check=False
    )
    if done.returncode:
        out.print(f"The weekly report was not written: {done.stderr.strip()}", markup=False)
        return False
    told = json.loads(done.stdout)
    out.print(f"weekly report of {told['week']}: {path}", highlight=False, soft_wrap=True)
    for section, why in told["missing"].items():
        out.print(f"  without {section}: {why}", highlight=False, markup=False, soft_wrap=True)
    return True


async def _counts(settings: Settings) -> dict[str, int]:
    connection = await asyncpg.connect(settings.database_url)
    try:
        await connection.execute(f'set search_path to "{settings.db_schema}"')
        counts = {
            name: await connection.fetchval(f"select count(*) from {name}")  # noqa: S608 - ours
            for name in _TABLES
        }
        growth = await connection.fetchval("select count(*) from weekly_kpi where kpis ? 'G_t'")
        return {**counts, "weekly_kpi with G_t": growth}
    finally:
        await connection.close()
