"""The process that answers lookups for an engine: ``python -m stream.lookup``.

It is started by the engine (:mod:`stream.lookup.process`), listens on the engine's address, reads
learners from the engine's memory and lets the engine answer for its health and metrics. It ends
when the engine does.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys

import aiohttp
import uvloop
from aiohttp import web

from stream.lookup.announcements import Announced
from stream.lookup.http import LOG_FORMAT, OPEN_PATHS, Handler, guard
from stream.lookup.store import ThetaReader
from stream.lookup.theta import theta_route
from stream.lookup.turns import take_short_turns
from stream.settings import Settings

_ENGINE_TIMEOUT_S = 3.5
"""Seconds for which the engine's own answer is waited for: less than probes wait."""

_PASSED_ON = {"content-type", "retry-after"}
"""Headers of the engine's answers that say something of the answer, not of the hop."""


def main(listener: int, connection: int, port: int) -> None:
    """Serve until the engine ends.

    Parameters
    ----------
    listener
        File of the listening socket.
    connection
        File of the socket over which the engine announces its partitions.
    port
        Of the engine's own HTTP server on this machine.
    """
    settings = Settings.from_env()
    logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT)
    # Whoever ends all processes of a service means the engine, which has a last flush to make.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    take_short_turns()
    uvloop.run(_serve(settings, listener, connection, port))


async def _serve(settings: Settings, listener: int, connection: int, port: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    engine = Announced(
        socket.socket(fileno=connection), settings.session_timeout_secs, on_end=ended.set
    )
    loop.add_reader(connection, engine.take)
    store = ThetaReader(settings)
    timeout = aiohttp.ClientTimeout(total=_ENGINE_TIMEOUT_S)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as session:
        routes = web.Application(middlewares=[guard(settings.api_token)])
        routes.router.add_get("/theta/{user_id}", theta_route(engine, store))
        for path in OPEN_PATHS:
            routes.router.add_get(path, _passed_on(session))
        runner = web.AppRunner(routes, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, socket.socket(fileno=listener)).start()
        # What is here now stays: later collections need not walk over it.
        gc.collect()
        gc.freeze()
        await ended.wait()
        loop.remove_reader(connection)
        await runner.cleanup()
        engine.close()
    await store.close()


def _passed_on(session: aiohttp.ClientSession) -> Handler:
    """Return a handler that lets the engine answer."""

    async def pass_on(request: web.Request) -> web.Response:
        try:
            async with session.get(request.path) as answer:
                return web.Response(
                    status=answer.status,
                    body=await answer.read(),
                    headers={k: v for k, v in answer.headers.items() if k.lower() in _PASSED_ON},
                )
        except (aiohttp.ClientError, TimeoutError):
            return web.json_response(
                {"status": "not ready", "reason": "the engine does not answer"},
                status=503,
                headers={"Retry-After": "2"},
            )

    return pass_on


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
