"""The whole way of a calibration in one process: the embedded service, gates, link, parameters.

Nothing is faked but the network: the client's requests are answered by the service's own code.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.calibration import (
    CalibrationAbilities,
    CalibrationAlert,
    CalibrationOutcome,
    CalibrationRequest,
    CalibrationResult,
)
from schemas.codec import decode
from stream.calibration import apply, run
from stream.calibration.answer import answer_calibrate
from stream.calibration.contract import Failure, Health
from stream.calibration.fitting import service_fitter
from stream.calibration.observations import Observations
from stream.calibration.runs import Ability
from stream.calibration.state import ParamsInForce
from stream.domain.irt import ItemParams
from stream.errors import EstimationError
from stream.settings import Settings

Floats = NDArray[np.float64]
Service = Callable[[httpx.Request], httpx.Response]

SETTINGS = Settings(r_irt_base_url="http://service", mirt_max_retries=1)


def embedded(request: httpx.Request) -> httpx.Response:
    """Answer as the embedded service does."""
    if request.method == "GET":
        health = Health("ok", "embedded", ["rows", "columns"], False)
        return httpx.Response(200, content=msgspec.json.encode(health))
    body = request.content
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    try:
        return httpx.Response(200, content=answer_calibrate(body))
    except EstimationError as error:
        return httpx.Response(400, content=msgspec.json.encode(Failure(str(error))))


def observations(
    answers: NDArray[np.bool_], names: list[str], asked: NDArray[np.bool_] | None = None
) -> Observations:
    """Return (n_learners, n_items) answers as they would be read, those asked for alone."""
    learner, item = np.nonzero(np.ones_like(answers) if asked is None else asked)
    used = np.unique(item)
    return Observations(
        learners=[f"u{n:05}" for n in range(len(answers))],
        items=[names[i] for i in used],
        learner=learner,
        item=np.searchsorted(used, item),
        correct=answers[learner, item],
        responded_at=np.arange(len(item)),
        cut_time=77,
        responses="first",
        skipped={},
    )


def answers(
    rng: np.random.Generator, theta: Floats, a: Floats, b: Floats, c: float = 0.0
) -> NDArray[np.bool_]:
    """Draw (n_learners, n_items) answers of a 3PL model."""
    p = c + (1.0 - c) / (1.0 + np.exp(-a * (theta[:, None] - b)))
    return np.asarray(rng.random(p.shape) < p)


class School:
    """Parameters in force, and what the last calibration told.

    Attributes
    ----------
    params
        In force.
    result, outcome, alerts
        Of the last calibration; the outcome is None where the fit failed.
    abilities
        As the fit gave them.
    """

    def __init__(self, service: Service = embedded, settings: Settings = SETTINGS) -> None:
        self.settings = settings
        self.params = ParamsInForce()
        self.result: CalibrationResult
        self.outcome: CalibrationOutcome | None = None
        self.alerts: list[CalibrationAlert] = []
        self.abilities: list[Ability] = []
        self._fit = service_fitter(settings, httpx.MockTransport(service))
        self._runs = 0

    async def calibrate(
        self,
        found: Observations,
        *,
        tagged: dict[str, ItemParams] | None = None,
        service: Service | None = None,
        model: str = "2PL",
    ) -> str:
        """Calibrate as the calibrator does; return ``failed`` or the outcome's status."""

        def read(_s: Settings, _r: CalibrationRequest, _c: threading.Event | None) -> Observations:
            return found

        async def read_anchors(_settings: Settings) -> dict[str, ItemParams] | None:
            return tagged or {}

        self._runs += 1
        fit = service_fitter(self.settings, httpx.MockTransport(service)) if service else self._fit
        *parts, result = await run.calibrate(
            self.settings,
            CalibrationRequest(f"request-{self._runs}", "irt", "manual", "", {}, model, 30, 0),
            self._runs,
            fit,
            has_reference=bool(self.params.calibrated()),
            read=read,
            read_anchors=read_anchors,
        )
        self.result = decode(result.value or b"", CalibrationResult)
        self.outcome, self.alerts = None, []
        if self.result.status == "failed":
            return "failed"
        decoded = [decode(part.value or b"", CalibrationAbilities) for part in parts]
        self.abilities = [ability for part in decoded for ability in part.abilities]
        messages = apply.decide(self.result, self.abilities, self.params, self.settings, 99)
        told = [m.value or b"" for m in messages if m.topic == "calibration-results"]
        self.outcome = decode(told[0], CalibrationOutcome)
        self.alerts = [decode(value, CalibrationAlert) for value in told[1:]]
        for message in messages:
            if message.topic == "item-params":
                self.params.add(message.key, message.value)
        return self.outcome.status
