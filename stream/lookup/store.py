"""Abilities read back from PostgreSQL, for learners that this engine does not hold."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg

from stream.settings import Settings

__all__ = ["ThetaReader", "rfc3339"]

_TIMEOUT_S = 2.0


def rfc3339(moment: datetime | None) -> str | None:
    """Return a UTC time as text, to the millisecond."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ThetaReader:
    """Reads a learner's live row and topic rows.

    Parameters
    ----------
    settings
        Where the database is; it is reached at the first read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool | None = None
        self._lock = asyncio.Lock()

    async def read(self, user_id: str) -> dict[str, Any] | None:
        """Return the reply of a lookup, or None for an unknown learner."""
        schema = '"' + self._settings.db_schema.replace('"', '""') + '"'
        pool = await self._connected()
        async with pool.acquire(timeout=_TIMEOUT_S) as connection:
            row = await connection.fetchrow(
                f"select * from {schema}.mirt_ability "  # noqa: S608
                "where user_id::text = $1 and version = 'live'",
                user_id,
                timeout=_TIMEOUT_S,
            )
            if row is None:
                return None
            topics = await connection.fetch(
                f"select topic_id, theta, se, last_attempt_at from {schema}.student_topic_theta "  # noqa: S608
                "where user_id::text = $1 order by topic_id",
                user_id,
                timeout=_TIMEOUT_S,
            )
        now = datetime.now(UTC)
        return {
            "user_id": user_id,
            "theta": float(row["theta"]),
            "se": float(row["se"]),
            "n": None,
            "correct": None,
            "last_attempt_at": rfc3339(row["last_attempt_at"]),
            "as_of": rfc3339(row["fitted_at"]),
            "params_version": row["params_version"],
            "source": "store",
            "staleness_ms": max(0, int((now - row["fitted_at"]).total_seconds() * 1000)),
            "topics": [
                {
                    "topic_id": topic["topic_id"],
                    "theta": float(topic["theta"]),
                    "se": float(topic["se"]),
                    "n": None,
                    "last_attempt_at": rfc3339(topic["last_attempt_at"]),
                }
                for topic in topics
            ],
        }

    async def close(self, _app: object = None) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.close()

    async def _connected(self) -> asyncpg.Pool:
        async with self._lock:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._settings.database_url,
                    min_size=0,
                    max_size=4,
                    timeout=_TIMEOUT_S,
                    command_timeout=_TIMEOUT_S,
                )
            return self._pool
