"""What a person was asked to look at, as of a week."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from stream.report.runs import Horizon, unpacked

__all__ = ["alerts"]

LISTED_ALERTS = 40
"""Newest alerts that are shown; the rest is counted."""

_ALERTS = """
    select alert_id, kind, run_id, item_id, detail, metrics, raised_at::timestamptz as raised_at,
        params_version
    from drift_alerts order by raised_at desc nulls last, alert_id limit 5000
"""


async def alerts(
    connection: asyncpg.Connection, horizon: Horizon, run_ends: Mapping[str, datetime | None]
) -> dict[str, Any]:
    """Return the alerts known as of a week.

    Parameters
    ----------
    run_ends
        The end of the data of each known run: its alerts are as old as that.

    Returns
    -------
    dict
        total, week (raised in the week, of all kinds), by_kind, rows (newest first, at most
        `LISTED_ALERTS`).
    """
    found = []
    for row in await connection.fetch(_ALERTS):
        event = run_ends.get(row["run_id"] or "")
        if not horizon.knows(event, row["raised_at"]):
            continue
        metrics = unpacked(row["metrics"])
        found.append(
            {
                "at": event or row["raised_at"],
                "kind": row["kind"] or "other",
                "item_id": row["item_id"],
                "run_id": row["run_id"],
                "version": row["params_version"],
                "detail": row["detail"] or "",
                "shift": _number(metrics.get("shift")),
                "z": _number(metrics.get("z")),
                "n": _number(metrics.get("n")),
            }
        )
    found.sort(key=lambda alert: str(alert["at"]), reverse=True)
    by_kind: dict[str, int] = {}
    for alert in found:
        by_kind[alert["kind"]] = by_kind.get(alert["kind"], 0) + 1
    begins = horizon.cut - timedelta(days=7)
    return {
        "total": len(found),
        "week": sum(1 for a in found if a["at"] is not None and a["at"] >= begins),
        "by_kind": [{"kind": kind, "n": n} for kind, n in sorted(by_kind.items())],
        "rows": found[:LISTED_ALERTS],
    }


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
