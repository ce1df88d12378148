"""``GET /theta/{user_id}``: a learner's abilities, live from the engine or from PostgreSQL."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from asyncpg.exceptions import InterfaceError, PostgresError

from stream.engine.engine import Engine
from stream.engine.outputs import topic_thetas
from stream.lookup.server import Health, HttpServer, process_health
from stream.lookup.store import ThetaReader, rfc3339

__all__ = ["add_theta_routes", "engine_health"]

_STUCK_S = 300.0
"""Seconds that a change may wait for its commit before the process counts as stuck: longer than
a broker's restart, shorter than anybody's patience."""


def engine_health(engine: Engine) -> Health:
    """Alive while changes get committed, ready when every partition's state is loaded."""
    common = process_health(engine.app, lambda: None if engine.ready else "loading state")

    def alive() -> str | None:
        age = engine.oldest_change_s()
        stuck = age > _STUCK_S
        return f"the oldest change has waited {age:.0f} s" if stuck else common.alive()

    return Health(alive=alive, ready=common.ready)


def add_theta_routes(server: HttpServer, engine: Engine) -> None:
    """Add the lookup to the engine's HTTP server."""
    store = ThetaReader(engine.settings)
    server.web.on_cleanup.append(store.close)

    async def theta(request: web.Request) -> web.Response:
        user_id = request.match_info["user_id"]
        body = _live(engine, user_id)
        if body is None and not engine.ready:
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
        return web.json_response(body)

    server.web.router.add_get("/theta/{user_id}", theta)


def _live(engine: Engine, user_id: str) -> dict[str, Any] | None:
    found = engine.find(user_id)
    if found is None:
        return None
    learner, state = found
    return {
        "user_id": user_id,
        "theta": learner.g,
        "se": learner.vg**0.5,
        "n": learner.attempts,
        "correct": learner.correct,
        "last_attempt_at": _rfc3339(learner.latest_ms),
        "as_of": _rfc3339(int(time.time() * 1000)),
        "params_version": state.position.params_version,
        "source": "live",
        "staleness_ms": 0,
        "topics": [
            {
                "topic_id": row.topic_id,
                "theta": row.theta,
                "se": row.se,
                "n": row.n,
                "last_attempt_at": _rfc3339(row.last_attempt_at),
            }
            for row in topic_thetas(learner)
        ],
    }


def _rfc3339(ms: int) -> str | None:
    return rfc3339(datetime.fromtimestamp(ms / 1000, UTC))
