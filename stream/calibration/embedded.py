"""The embedded calibration service: the R contract over HTTP, without R.

``python -m stream.calibration.embedded --port 8001``. The Bearer token is read from
R_IRT_INTERNAL_TOKEN; without one the service is open. A fit runs in a process of its own, so
that ``GET /healthz`` answers during it; one at a time, a few may wait.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from stream.calibration.answer import answer_calibrate, answer_score
from stream.calibration.contract import Failure, Health
from stream.errors import EstimationError

__all__ = ["MAX_BODY_BYTES", "MAX_WAITING", "create_app", "main"]

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 512 * 1024 * 1024
"""Largest request body after decompression: about 6,000,000 observations as rows."""

MAX_WAITING = 4
"""Requests that may be in the service at once; one more is told to come back."""

_RETRY_AFTER_S = 10

Answer = Callable[[bytes], bytes]


class _Fitter:
    """One process that fits, made when first needed and again if it died."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self.inside = 0

    async def run(self, answer: Answer, body: bytes) -> bytes:
        self.inside += 1
        try:
            pool = self._pool or self._start()
            return await asyncio.get_running_loop().run_in_executor(pool, answer, body)
        except BrokenProcessPool:
            self._pool = None
            raise
        finally:
            self.inside -= 1

    def _start(self) -> ProcessPoolExecutor:
        # Spawned, not forked: the server's event loop and sockets must not come along.
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_end_with_parent
        )
        return self._pool

    def close(self) -> None:
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:  # a fit under way has nobody to answer to any more
            process.terminate()


def _end_with_parent() -> None:
    """Let the fitting process end when the server does, even by kill -9."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_end, args=(parent,), daemon=True).start()


def _wait_and_end(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


_FITTER = web.AppKey("fitter", _Fitter)


def create_app(token: str = "", max_body_bytes: int = MAX_BODY_BYTES) -> web.Application:
    """Build the service.

    Parameters
    ----------
    token
        Bearer token that every request must carry; empty: none is asked for.
    max_body_bytes
        Largest body after decompression; above it 413.
    """
    app = web.Application(
        client_max_size=max_body_bytes, middlewares=[_failures_as_json, _authorise(token)]
    )
    app[_FITTER] = _Fitter()
    app.router.add_get("/healthz", _health)
    app.router.add_post("/irt/calibrate", _fitting(answer_calibrate))
    app.router.add_post("/irt/score", _fitting(answer_score))
    app.on_cleanup.append(_close)
    return app


async def _close(app: web.Application) -> None:
    app[_FITTER].close()


@web.middleware
async def _failures_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge as error:
        return _failure(413, f"the body is too large: {error.text}")
    except web.HTTPException as error:
        return _failure(error.status, error.text or error.reason)
    except web.RequestPayloadError as error:
        return _failure(400, f"the body cannot be read (gzip broken or cut off?): {error}")


def _authorise(token: str) -> Middleware:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def authorise(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "replace")
        if token and not hmac.compare_digest(given, expected):
            return _failure(401, "the Bearer token is missing or not R_IRT_INTERNAL_TOKEN's")
        return await handler(request)

    return authorise


async def _health(request: web.Request) -> web.Response:
    busy = request.app[_FITTER].inside > 0
    return _json(200, Health("ok", "thetastream embedded", ["rows", "columns"], busy))


def _fitting(answer: Answer) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        fitter = request.app[_FITTER]
        if fitter.inside >= MAX_WAITING:
            busy = _failure(429, f"{fitter.inside} requests are being answered; come back later")
            busy.headers["Retry-After"] = str(_RETRY_AFTER_S)
            return busy
        body = await request.read()
        started = time.monotonic()
        try:
            answered = await fitter.run(answer, body)
        except EstimationError as error:
            logger.info("%s refused: %s", request.path, error)
            return _failure(400, str(error))
        except BrokenProcessPool:
            logger.exception("%s: the fitting process died", request.path)
            return _failure(503, "the fitting process died (out of memory?); it starts anew")
        except Exception as error:
            logger.exception("%s failed", request.path)
            return _failure(500, f"unexpected {type(error).__name__}: {error}")
        logger.info(
            "%s: %d bytes answered with %d in %.2f s",
            *(request.path, len(body), len(answered), time.monotonic() - started),
        )
        return web.Response(body=answered, content_type="application/json")

    return handle


def _failure(status: int, reason: str) -> web.Response:
    return _json(status, Failure(reason))


def _json(status: int, record: msgspec.Struct) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(record), content_type="application/json"
    )


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m stream.calibration.embedded", description=__doc__
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument(
        "--max-body-mib",
        type=int,
        default=MAX_BODY_BYTES // 2**20,
        help="largest request body after decompression, MiB",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    token = os.environ.get("R_IRT_INTERNAL_TOKEN", "").strip()
    if not token:
        logger.warning("R_IRT_INTERNAL_TOKEN is not set: anybody who reaches the port may fit")
    app = create_app(token, options.max_body_mib * 2**20)
    # A client that does not read must not hold up the end.
    web.run_app(
        app,
        host=options.host,
        port=options.port,
        access_log=None,
        print=None,
        shutdown_timeout=1.0,
    )


if __name__ == "__main__":
    main()
