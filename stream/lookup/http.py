"""What every HTTP server here shares: the listening socket, the token, errors as JSON."""

from __future__ import annotations

import hmac
import logging
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from stream.errors import StreamError
from stream.settings import Settings

__all__ = ["LOG_FORMAT", "OPEN_PATHS", "Handler", "guard", "listen"]

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

OPEN_PATHS = {"/healthz", "/readyz", "/metrics"}
"""Served without the token: probes and scrapers have none."""

_BACKLOG = 128


def listen(settings: Settings) -> socket.socket:
    """Listen where the settings say, and tell the log.

    Raises
    ------
    StreamError
        The port is taken or the address is not this machine's.
    """
    host, port = settings.web_host, settings.web_port
    try:
        families = [found[0] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        # A name may have both kinds of addresses; most clients try the older kind.
        family = socket.AF_INET if socket.AF_INET in families else families[0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise StreamError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}. "
            "Set THETASTREAM_WEB_PORT to a free port (0 takes any)."
        ) from error
    logger.info("listening on %s", [listener.getsockname()])
    return listener


def guard(token: str) -> Middleware:
    """Ask for the bearer token, if there is one, and turn errors into JSON."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token and request.path not in OPEN_PATHS:
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

    return guarded
