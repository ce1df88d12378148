"""The HTTP server of a role: health, readiness, metrics, and what the role adds."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from mode import Service
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stream.app import ThetaApp
from stream.lookup.http import guard, listen

__all__ = ["Health", "HttpServer", "process_health"]

_DEAD_SILENCE_S = 300.0
"""Seconds without the consumer group after which a restart is worth a try: longer than a broker's
restart. A client that hangs while the broker answers is ended much sooner by the app itself."""


def process_health(app: ThetaApp, ready: Callable[[], str | None] = lambda: None) -> Health:
    """Return the health that every role has, with what the role itself needs to be ready.

    A process that has not heard of its consumer group for longer than the session time-out is
    not ready: another may hold its partitions by now. Nor is one that has not joined it yet.
    """
    session_s = app.settings.session_timeout_secs

    def is_alive() -> str | None:
        silence = app.silence_s()
        if silence > _DEAD_SILENCE_S:
            return f"the consumer group was not heard of for {silence:.0f} s"
        return None

    def is_ready() -> str | None:
        if app.failure is not None or app.crashed:
            return "ending after an error; see the log"
        if not app.has_joined:
            return "not yet in the consumer group: Kafka is away, or others are joining"
        silence = app.silence_s()
        if silence > session_s:
            return f"the consumer group was not heard of for {silence:.0f} s"
        return ready()

    return Health(alive=is_alive, ready=is_ready)


@dataclass(frozen=True)
class Health:
    """What a role says of itself; each question is answered by None (yes) or by what is amiss.

    Attributes
    ----------
    alive
        Does the process make progress? A supervisor restarts one that does not.
    ready
        Can it do its work? No requests are sent to one that cannot.
    """

    alive: Callable[[], str | None] = lambda: None
    ready: Callable[[], str | None] = lambda: None


class HttpServer(Service):
    """Serves HTTP from before the first partition is assigned until the process ends.

    Parameters
    ----------
    app
        Whose settings give host, port and token.
    health
        Answers ``/healthz`` and ``/readyz``.
    behind
        Whether another process of ours takes the requests and passes them on: it listens on a
        port of this machine that nobody else is told.
    """

    def __init__(self, app: ThetaApp, health: Health, *, behind: bool = False) -> None:
        super().__init__(loop=app.loop)
        self._settings = app.settings
        self._health = health
        self._behind = behind
        self.routes = web.Application(middlewares=[guard(app.settings.api_token)])
        self.routes.router.add_get("/healthz", self._healthz)
        self.routes.router.add_get("/readyz", self._readyz)
        self.routes.router.add_get("/metrics", self._metrics)
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def on_start(self) -> None:
        """Listen; a taken port ends the start with a clear message."""
        if self._behind:
            listener = socket.create_server(("127.0.0.1", 0))
        else:
            listener = listen(self._settings)
        self.port = listener.getsockname()[1]
        self._runner = web.AppRunner(self.routes, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def on_stop(self) -> None:
        """Close the listener."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _verdict(self._health.alive(), "alive")

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _verdict(self._health.ready(), "ready")

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _verdict(problem: str | None, word: str) -> web.Response:
    if problem is None:
        return web.json_response({"status": word})
    return web.json_response(
        {"status": f"not {word}", "reason": problem}, status=503, headers={"Retry-After": "2"}
    )
