"""A calibration service that misbehaves on cue."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterable
from typing import Any

import httpx

__all__ = [
    "FakeRIrt",
    "connection_error",
    "good_calibration",
    "html",
    "json_text",
    "status",
    "timeout",
]

Step = Callable[[httpx.Request], httpx.Response]


def status(code: int, reason: str = "scripted", **headers: str) -> Step:
    """Answer with a status code and a reason; ``Retry_After="3"`` becomes Retry-After: 3."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request: httpx.Response(code, json={"error": reason}, headers=named)


def timeout(request: httpx.Request) -> httpx.Response:
    """Let the read time out."""
    raise httpx.ReadTimeout("scripted", request=request)


def connection_error(request: httpx.Request) -> httpx.Response:
    """Refuse the connection."""
    raise httpx.ConnectError("scripted", request=request)


def html(request: httpx.Request) -> httpx.Response:
    """Answer 200 with a web page, as a misconfigured proxy does."""
    return httpx.Response(200, html="<html><body>Sign in</body></html>", request=request)


def json_text(text: str) -> Step:
    """Answer 200 with this text: truncated JSON, NaN, wrong ids."""
    return lambda _request: httpx.Response(
        200, text=text, headers={"Content-Type": "application/json"}
    )


class FakeRIrt:
    """A scripted service; pass ``transport`` to `stream.calibration.client.RIrtClient`.

    Parameters
    ----------
    script
        What to answer to each POST, in turn; after the last one, `good_calibration`.
    accepts
        Forms of observations that its health says it takes.

    Attributes
    ----------
    requests
        Every POST received, body not decompressed.
    waits
        Seconds the client slept, when ``sleep`` is passed to it.
    """

    def __init__(self, script: Iterable[Step] = (), accepts: Iterable[str] = ("rows",)) -> None:
        self._script = list(script)
        self._accepts = list(accepts)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        self.transport = httpx.MockTransport(self._answer)

    async def sleep(self, seconds: float) -> None:
        """Take no time, and remember."""
        self.waits.append(seconds)
        await asyncio.sleep(0)

    def body(self, number: int = -1) -> Any:
        """Return a request's JSON."""
        request = self.requests[number]
        content = request.content
        if request.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        return json.loads(content)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/healthz":
            return httpx.Response(200, json={"status": "ok", "observations": self._accepts})
        self.requests.append(request)
        if self._script:
            return self._script.pop(0)(request)
        return httpx.Response(200, json=good_calibration(self.body()))


def good_calibration(request: dict[str, Any]) -> dict[str, Any]:
    """Return a response of the right form: a = 1, b by the items' order, theta 0."""
    observations = request["observations"]
    if isinstance(observations, dict):
        items, users = set(observations["item_id"]), set(observations["user_id"])
    else:
        items = {row["item_id"] for row in observations}
        users = {row["user_id"] for row in observations}
    return {
        "status": "succeeded",
        "item_params": [
            {
                "item_id": item,
                "params": {"a": 1.0, "b": 0.1 * place, "c": 0.0},
                "se": {"a": 0.1, "b": 0.1},
                "model": request.get("model", "2PL"),
                "version": "fake",
            }
            for place, item in enumerate(sorted(items))
        ],
        "abilities": [{"user_id": user, "theta": 0.0, "se": 0.5} for user in sorted(users)],
        "fit_meta": {
            "run_id": "fake",
            "model_spec": {},
            "metrics": {"converged": True},
            "linking_constants": {"slope": 1.0, "intercept": 0.0},
        },
    }
