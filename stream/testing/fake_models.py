"""Model services that misbehave on cue: a real HTTP server for all kinds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from aiohttp import web

__all__ = [
    "FakeModels",
    "answered",
    "changed",
    "good_answer",
    "html",
    "killed",
    "slow",
    "status",
    "truncated",
]

Step = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
"""Answers a request, whose decoded body it gets beside it."""


def status(code: int, reason: str = "scripted", **headers: str) -> Step:
    """Answer with a status code and a reason; ``Retry_After="3"`` becomes Retry-After: 3."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def step(_request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": reason}, status=code, headers=named)

    return step


def slow(seconds: float) -> Step:
    """Answer well, but late."""

    async def step(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response(good_answer(request.path, body))

    return step


async def answered(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Answer well."""
    return web.json_response(good_answer(request.path, body))


async def killed(request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """Break the connection off in mid-fit, as a process that is killed does."""
    assert request.transport is not None
    request.transport.abort()
    raise web.HTTPInternalServerError


async def truncated(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Answer 200 with the first half of a good answer."""
    text = json.dumps(good_answer(request.path, body))
    return web.Response(text=text[: len(text) // 2], content_type="application/json")


async def html(_request: web.Request, _body: dict[str, Any]) -> web.StreamResponse:
    """Answer 200 with a web page, as a misconfigured proxy does."""
    return web.Response(text="<html><body>Sign in</body></html>", content_type="text/html")


def changed(change: Callable[[dict[str, Any]], object]) -> Step:
    """Answer with a good answer that ``change`` has spoilt; NaN is written as ``NaN``."""

    async def step(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        answer = good_answer(request.path, body)
        change(answer)
        return web.json_response(answer)

    return step


@dataclass
class FakeModels:
    """All model services in one server.

    Attributes
    ----------
    script
        What to answer to each POST, in turn; after the last one, `answered`.
    token
        Bearer token that is asked for; "" for none.
    bodies
        Route and decoded body of every POST received.
    url
        Base URL while `running`.
    """

    script: list[Step] = field(default_factory=list)
    token: str = ""
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def then(self, steps: Iterable[Step]) -> None:
        """Add steps to the script."""
        self.script.extend(steps)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeModels]:
        """Serve on a free port of this machine."""
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/healthz", self._health)
        app.router.add_post("/{kind}/{what}", self._post)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"})

    async def _post(self, request: web.Request) -> web.StreamResponse:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "the token is another"}, status=401)
        # aiohttp has decompressed it.
        body: dict[str, Any] = await request.json()
        self.bodies.append((request.path, body))
        step = self.script.pop(0) if self.script else answered
        return await step(request, body)


def good_answer(route: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of the right form about the request's own learners and weeks."""
    made = {
        "/glmm/fit_progress": _glmm,
        "/growth/fit": _growth,
        "/forecast/fit": _forecast,
        "/survival/fit": _survival,
        "/segments/fit": _segments,
    }[route](request)
    return {
        "status": "ok",
        "fit_meta": {
            "run_id": request["run_id"],
            "model_spec": {"package": "fake"},
            "metrics": {"n": 1, "nothing": None},
        },
        "warnings": ["made up"],
        **made,
    }


def _users(request: dict[str, Any]) -> list[str]:
    return sorted(set(request["rows"]["user_id"]))


def _lines(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"user_id": user, "intercept": 0.5, "slope": 0.01 * place}
        for place, user in enumerate(_users(request))
    ]


def _glmm(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "fixed": [
            {"term": term, "estimate": 0.5, "se": 0.1, "t": 5.0} for term in ("(Intercept)", "week")
        ],
        "students": _lines(request),
        "topics": [
            {"topic_id": topic, "intercept": 0.0}
            for topic in sorted(set(request["rows"]["topic_id"]))
        ],
        "variances": [
            {"group": "user_id", "term": "(Intercept)", "sd": 0.2, "correlation": None},
            {"group": "Residual", "term": "Residual", "sd": 0.3},
        ],
    }


def _growth(request: dict[str, Any]) -> dict[str, Any]:
    effect = {"mean": 0.1, "sd": 0.1, "lower": -0.1, "upper": 0.3, "rhat": 1.0, "ess": 900}
    return {
        "fixed": [{"term": term, **effect} for term in ("(Intercept)", "week")],
        "students": [
            {**line, "slope_lower": line["slope"] - 0.1, "slope_upper": line["slope"] + 0.1}
            for line in _lines(request)
        ],
    }


def _forecast(request: dict[str, Any]) -> dict[str, Any]:
    series = request["series"]
    fitted = [
        {"week_start": week, "value": value, "expected": 0.0}
        for week, value in zip(series["week_start"], series["value"], strict=True)
    ]
    last = date.fromisoformat(series["week_start"][-1])
    return {
        "forecast": [
            {
                "week_start": (last + timedelta(weeks=n + 1)).isoformat(),
                "expected": 0.1,
                "lower": 0.0,
                "upper": 0.2,
            }
            for n in range(request["horizon"])
        ],
        "fitted": fitted,
        "anomalies": [{**fitted[0], "z": 3.0}],
    }


def _survival(request: dict[str, Any]) -> dict[str, Any]:
    rows = request["rows"]
    return {
        "hazard_ratios": [
            {"term": "accuracy", "hazard_ratio": 0.5, "lower": 0.2, "upper": 1.2, "p": 0.1}
        ],
        "kaplan_meier": [{"time": 14, "at_risk": 9, "survival": 0.9, "lower": 0.8, "upper": 1.0}],
        "risks": [
            {"user_id": user, "risk": 1.0 if event else 0.25}
            for user, event in zip(rows["user_id"], rows["event"], strict=True)
        ],
    }


def _segments(request: dict[str, Any]) -> dict[str, Any]:
    users = _users(request)
    features = [name for name in request["rows"] if name != "user_id"]
    return {
        "segments": [
            {"user_id": user, "segment": "AB"[place % 2], "distance": 0.5}
            for place, user in enumerate(users)
        ],
        "centers": [
            {"segment": label, "size": len(users) // 2, **dict.fromkeys(features, 0.5)}
            for label in "AB"
        ],
    }
