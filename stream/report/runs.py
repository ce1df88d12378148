"""Which runs of a model were known as of a week, and what they said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

import asyncpg
import msgspec

__all__ = ["Horizon", "cut_of", "latest_run", "objects", "share_of", "unpacked"]

_LARGE = ("students", "risks", "segments")
"""Parts of ``params`` with a row a learner: never fetched, only described where they are."""

_HEADS = """
    select run_id, fitted_at::timestamptz as fitted_at, as_of, metrics
    from {} order by fitted_at desc nulls last, run_id limit 1000
"""
_PARAMS = """
    select case jsonb_typeof(params::jsonb) when 'object' then params::jsonb - $2::text[] end
    from {} where run_id = $1
"""


@dataclass(frozen=True, slots=True)
class Horizon:
    """What was known as of a week.

    Parameters
    ----------
    cut
        The moment the week was over.
    newest
        Whether nothing happened after the week. What bears no event time, only a time of
        writing, then counts whenever it was written: a replayed log is older than its rows.
    """

    cut: datetime
    newest: bool

    def knows(self, event_at: datetime | None, written_at: datetime | None) -> bool:
        """Tell whether something with these times was known then."""
        if event_at is not None:
            return event_at <= self.cut
        return self.newest or (written_at is not None and written_at <= self.cut)


def unpacked(value: Any) -> dict[str, Any]:
    """Return a json(b) column's object; empty where it holds none."""
    decoded = msgspec.json.decode(value) if isinstance(value, str | bytes) else value
    return dict(decoded) if isinstance(decoded, Mapping) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """Return rows given as objects or as an object of columns; empty for anything else."""
    if isinstance(value, list):
        return [dict(row) for row in value if isinstance(row, Mapping)]
    if isinstance(value, Mapping):
        columns = {name: column for name, column in value.items() if isinstance(column, list)}
        return [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)
        ]
    return []


def share_of(part: float, whole: float) -> float | None:
    """Return part / whole; None of nothing."""
    return part / whole if whole else None


def cut_of(metrics: Mapping[str, Any]) -> datetime | None:
    """Return the event time up to which a calibration's data go: ``cut_time``, epoch ms."""
    ms = metrics.get("cut_time")
    if isinstance(ms, int | float) and not isinstance(ms, bool) and ms > 0:
        return datetime.fromtimestamp(ms / 1000.0, UTC)
    return None


async def latest_run(
    connection: asyncpg.Connection, table: str, horizon: Horizon
) -> dict[str, Any] | None:
    """Return the newest usable run of a model's table.

    Of several, the one with the latest ``as_of`` (what happened before that day entered the fit),
    and of those the one fitted last.

    Returns
    -------
    dict or None
        run_id, fitted_at, as_of, params (without the parts that have a row a learner), metrics,
        spec, dataset, summary, warnings, and ``failed``: {fitted_at, error} of a failure since, or
        None. None: no run was known then.
    """
    chosen: tuple[Any, ...] | None = None
    failed: dict[str, Any] | None = None
    for head in await connection.fetch(_HEADS.format(table)):
        as_of, fitted_at = head["as_of"], head["fitted_at"]
        event = datetime.combine(as_of, time(), UTC) if as_of else None
        if not horizon.knows(event, fitted_at):
            continue
        metrics = unpacked(head["metrics"])
        if metrics.get("status") == "failed":
            if chosen is None and failed is None:
                failed = {"fitted_at": fitted_at, "error": str(metrics.get("error") or "")}
            continue
        order = event or fitted_at or datetime.min.replace(tzinfo=UTC)
        if chosen is None or order > chosen[0]:
            chosen = (order, head["run_id"], fitted_at, as_of, metrics)
    if chosen is None:
        return None
    _, run_id, fitted_at, as_of, metrics = chosen
    params = unpacked(await connection.fetchval(_PARAMS.format(table), run_id, list(_LARGE)))
    return {
        "run_id": run_id,
        "fitted_at": fitted_at,
        "as_of": as_of,
        "params": params,
        "metrics": {k: v for k, v in metrics.items() if not isinstance(v, dict | list)},
        "spec": unpacked(params.pop("model_spec", None)),
        "dataset": unpacked(params.pop("dataset", None)),
        "summary": unpacked(params.pop("summary", None)),
        "warnings": [str(one) for one in metrics.get("warnings") or ()],
        "failed": failed,
    }
