"""The HTTP server of a role: health, readiness, metrics, and what the role adds."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from mode import Service
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stream.app import ThetaApp
from stream.errors import StreamError

__all__ = ["Health", "HttpServer", "process_health"]

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_DEAD_SILENCE_S = 300.0
"""Seconds without the consumer group after which a restart is worth a try: longer than a broker's
restart. A client that hangs while the broker answers is ended much sooner by the app itself."""

_OPEN_PATHS = {"/healthz", "/readyz", "/metrics"}
"""Served without the token: probes and scrapers have none."""


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
    """

    def __init__(self, app: ThetaApp, health: Health) -> None:
        super().__init__(loop=app.loop)
        self._settings = app.settings
        self._health = health
        self.web = web.Application(middlewares=[self._guard])
        self.web.router.add_get("/healthz", self._healthz)
        self.web.router.add_get("/readyz", self._readyz)
        self.web.router.add_get("/metrics", self._metrics)
        self._runner: web.AppRunner | None = None

    async def on_start(self) -> None:
        """Listen; a taken port ends the start with a clear message."""
        self._runner = web.AppRunner(self.web, access_log=None)
        await self._runner.setup()
        host, port = self._settings.web_host, self._settings.web_port
        try:
            await web.TCPSite(self._runner, host, port, reuse_address=True).start()
        except OSError as error:
            raise StreamError(
                f"Cannot listen on {host}:{port}: {error.strerror or error}. "
                "Set THETASTREAM_WEB_PORT to a free port (0 takes any)."
            ) from error
        logger.info("listening on %s", self._runner.addresses)

    async def on_stop(self) -> None:
        """Close the listener."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Ask for the bearer token, and turn errors into JSON."""
        token = self._settings.api_token
        if token and request.path not in _OPEN_PATHS:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return web.json_response(
                    {"error": "a bearer token is needed: Authorization: Bearer <token>"},
                    status=401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.json_response({"error": error.reason}, status=error.status)
        except Exception:
            logger.exception("request %s failed", request.path)
            return web.json_response({"error": "internal error; see the log"}, status=500)

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
