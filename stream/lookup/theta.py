"""``GET /theta/{user_id}``: a learner's abilities, live from the engine or from PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web
from asyncpg.exceptions import InterfaceError, PostgresError

from stream.lookup.abilities import Abilities, BeingChangedError, hash_of
from stream.lookup.announcements import Announced
from stream.lookup.http import Handler
from stream.lookup.store import ThetaReader, rfc3339

__all__ = ["theta_route"]

_AT_ONCE = 20
"""Tries before a processor is left to others: a change takes some microseconds."""
_PAUSE_S = 0.001
_PATIENCE_S = 2.0
"""Seconds after which a change that does not end belongs to an engine that does not run."""


def theta_route(engine: Announced, store: ThetaReader) -> Handler:
    """Return the handler of lookups.

    Parameters
    ----------
    engine
        Whose partitions are read.
    store
        Asked for learners that this engine does not hold.
    """

    async def theta(request: web.Request) -> web.Response:
        user_id = request.match_info["user_id"]
        engine.take()
        try:
            found = await _live(engine, user_id)
        except BeingChangedError:
            return web.json_response(
                {"error": "the engine stands still in the middle of a change; try again soon"},
                status=503,
                headers={"Retry-After": "2"},
            )
        body = None if found is None else _told(user_id, found)
        if body is None and not engine.ready and not engine.silent:
            return web.json_response(
                {"error": "loading state, try again soon"}, status=503, headers={"Retry-After": "2"}
            )
        if body is None:
            # Another engine may hold the learner; its rows are in PostgreSQL within seconds.
            try:
                body = await store.read(user_id)
            except (OSError, TimeoutError, PostgresError, InterfaceError):
                return web.json_response(
                    {"error": "not held by this engine, and PostgreSQL does not answer"},
                    status=503,
                    headers={"Retry-After": "5"},
                )
        if body is None:
            return web.json_response(
                {"error": f"no attempt of learner {user_id!r} is known"}, status=404
            )
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    return theta


async def _live(engine: Announced, user_id: str) -> Abilities | None:
    """Read a learner from the engine's memory, as often as the engine gets in between."""
    key = user_id.encode("utf-8", "surrogatepass")
    hashed = hash_of(key)
    ends_at = time.monotonic() + _PATIENCE_S
    tries = 0
    while not engine.silent:
        try:
            for partition in engine.partitions.values():
                found = partition.read(key, hashed)
                if found is not None:
                    return found
        except BeingChangedError:
            if time.monotonic() > ends_at:
                raise
            tries += 1
            if tries % _AT_ONCE == 0:
                await asyncio.sleep(_PAUSE_S)
                engine.take()
        else:
            return None
    return None


def _told(user_id: str, found: Abilities) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "theta": found.theta,
        "se": found.se,
        "n": found.n,
        "correct": found.correct,
        "last_attempt_at": _rfc3339(found.latest_ms),
        "as_of": _rfc3339(int(time.time() * 1000)),
        "params_version": found.params_version,
        "source": "live",
        "staleness_ms": 0,
        "topics": [
            {
                "topic_id": topic.topic_id,
                "theta": topic.theta,
                "se": topic.se,
                "n": topic.n,
                "last_attempt_at": _rfc3339(topic.last_attempt_at),
            }
            for topic in found.topics
        ],
    }


def _rfc3339(ms: int) -> str | None:
    return rfc3339(datetime.fromtimestamp(ms / 1000, UTC))
