"""One client for every fitting service: retries, time-outs, strict reading of answers."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self, TypeVar

import httpx
import msgspec

from stream.errors import (
    CalibrationRefusedError,
    CalibrationResponseError,
    CalibrationUnavailableError,
)

__all__ = ["GZIP_FROM_BYTES", "LONGEST_RETRY_AFTER_S", "ServiceClient"]

logger = logging.getLogger(__name__)

GZIP_FROM_BYTES = 64 * 1024
"""Bodies from this size on are gzipped: observations shrink about twentyfold."""

LONGEST_RETRY_AFTER_S = 600.0
"""A service that asks for a longer wait is taken to be away: the next trigger asks again."""

_CONNECT_TIMEOUT_S = 10.0

R = TypeVar("R")


class _Failure(msgspec.Struct):
    """The body of a 4xx or 5xx: why a service did not do it."""

    error: str


class ServiceClient:
    """Speaks JSON with one service.

    Connection errors, time-outs, 429 and 5xx are tried again; other answers never are.

    Parameters
    ----------
    base_url
        Of the service, for example ``http://r-irt:8001``.
    token
        Bearer token; none is sent if empty.
    timeout_s
        Seconds one try may take as a whole.
    max_retries
        Tries altogether, >= 1.
    retry_delay_s
        Wait after the first failed try; after the k-th it is k times this, or what the
        service's Retry-After asks for if that is longer.
    setting
        Name of the setting that holds ``base_url``, for messages.
    transport, sleep
        For tests.
    """

    service = "service"
    """What messages call it."""

    def __init__(
        self,
        base_url: str,
        token: str = "",
        timeout_s: float = 300.0,
        max_retries: int = 3,
        retry_delay_s: float = 5.0,
        setting: str = "R_IRT_BASE_URL",
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._timeout_s = timeout_s
        self._tries = max(1, max_retries)
        self._retry_delay_s = retry_delay_s
        self._setting = setting
        self._sleep = sleep
        try:
            self._http = httpx.AsyncClient(
                base_url=base_url,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
                transport=transport,
                trust_env=False,  # an internal service: no proxy from the environment
            )
        except httpx.InvalidURL as error:
            raise CalibrationRefusedError(
                f"{setting} is {base_url!r}: {error}. Give http://host:port."
            ) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def post(self, path: str, request: object, expected: type[R]) -> R:
        """Send a request, again where that may help; return its answer.

        Parameters
        ----------
        path
            Route of the service.
        request
            Encoded as JSON.
        expected
            Type of the answer.

        Raises
        ------
        CalibrationUnavailableError
            Every try failed for a reason that may pass.
        CalibrationRefusedError
            The service refused the request; the message carries its reason.
        CalibrationResponseError
            The answer is not what was expected.
        """
        body, headers = await asyncio.to_thread(_encode, request)
        for attempt in range(1, self._tries + 1):
            try:
                response = await self.send("POST", path, body, headers)
            except CalibrationUnavailableError as error:
                wait = self._wait(error, attempt)
                if attempt == self._tries or wait is None:
                    raise CalibrationUnavailableError(
                        f"{error} (try {attempt} of {self._tries}, the last)"
                    ) from error
                logger.warning(
                    "POST %s, try %d of %d: %s; trying again in %g s",
                    *(path, attempt, self._tries, error, wait),
                )
                await self._sleep(wait)
            else:
                logger.info(
                    "POST %s, try %d of %d: %d bytes sent, %d received",
                    *(path, attempt, self._tries, len(body), len(response.content)),
                )
                return await asyncio.to_thread(_decode, response, expected, self.service)
        raise AssertionError("unreachable: the last try returns or raises")

    def _wait(self, error: CalibrationUnavailableError, attempt: int) -> float | None:
        """Seconds until the next try; None if the service asks for longer than is sensible."""
        wait = self._retry_delay_s * attempt
        asked = getattr(error, "retry_after_s", None)
        if asked is None or asked <= wait:
            return wait
        return asked if asked <= LONGEST_RETRY_AFTER_S else None

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send once; return a 2xx answer or raise as `post` does."""
        where = f"{method} {self._http.base_url.join(path)}"
        try:
            # httpx limits each read; a fit's limit is for the whole try.
            async with asyncio.timeout(self._timeout_s):
                response = await self._http.request(method, path, content=body, headers=headers)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise CalibrationUnavailableError(
                f"{where} did not answer within {self._timeout_s:g} s"
            ) from error
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise CalibrationRefusedError(
                f"{where} cannot be sent: {error}. Check {self._setting} (http://host:port) and "
                "R_IRT_INTERNAL_TOKEN."
            ) from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise CalibrationUnavailableError(f"{where} failed: {reason}") from error
        except httpx.HTTPError as error:
            raise CalibrationResponseError(f"{where}: the answer is broken: {error}") from error
        if response.is_success:
            return response
        said = f"{where} answered {response.status_code}: {_reason(response)}"
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            unavailable = CalibrationUnavailableError(said)
            unavailable.retry_after_s = _retry_after(response)
            raise unavailable
        if response.is_client_error:
            raise CalibrationRefusedError(said)
        raise CalibrationResponseError(said)


def _encode(request: object) -> tuple[bytes, dict[str, str]]:
    body = msgspec.json.encode(request)
    headers = {"Content-Type": "application/json"}
    if len(body) >= GZIP_FROM_BYTES:
        # Level 1: a tenth of the time of 9 for a body a third larger.
        body = gzip.compress(body, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return body, headers


def _decode(response: httpx.Response, expected: type[R], service: str) -> R:
    try:
        return msgspec.json.decode(response.content, type=expected)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        start = response.content[:80].decode("utf-8", "replace")
        raise CalibrationResponseError(
            f"the {service}'s answer to {response.request.url.path} is not the "
            f"contract's: {error}. It has {len(response.content)} bytes and starts with {start!r}."
        ) from error


def _reason(response: httpx.Response) -> str:
    """Return what a service says about its refusal, at most a few hundred characters."""
    try:
        return msgspec.json.decode(response.content, type=_Failure).error[:500]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return response.text.strip()[:200] or response.reason_phrase or "no reason given"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that a Retry-After header asks for (a number or a date); None without one."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
