"""Requests for fits, their results, and what became of those.

A calibration's result is decided on afterwards; a model's is final.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import msgspec

from schemas.calibration import (
    CalibrationAbilities,
    CalibrationAlert,
    CalibrationOutcome,
    CalibrationRequest,
    CalibrationResult,
)
from schemas.codec import decode
from schemas.models import ModelRequest, ModelResult

__all__ = ["Ability", "Request", "Result", "Run", "Runs"]

logger = logging.getLogger(__name__)

_RUNS_KEPT = 200
"""Decided runs remembered a kind; older ones answer no question a trigger asks."""

Ability = tuple[str, float, float]
"""user_id, theta, se."""

Request = CalibrationRequest | ModelRequest
Result = CalibrationResult | ModelResult


@dataclass(slots=True)
class Run:
    """What was asked for, and what has become of it.

    Attributes
    ----------
    request, offset
        The newest request with this id; -1 while it was published but has not come back yet.
    result
        Its newest. Without items once there is an outcome: they are on ``item-params`` then.
    outcome
        Of that result; a model's has none.
    """

    request: Request
    offset: int
    result: Result | None = None
    outcome: CalibrationOutcome | None = None

    @property
    def ended(self) -> bool:
        """Whether the request is answered: by its own result, or by one that serves as well."""
        if self.result is None:
            return False
        return self.result.request_offset >= self.offset or not self._may_repeat

    @property
    def decided(self) -> bool:
        """Whether nothing is left to do: it failed, is final, or was applied or refused."""
        final = isinstance(self.result, ModelResult)
        return self.ended and (self.failed or final or self.outcome is not None)

    @property
    def fruitful(self) -> bool:
        """Whether it led to something: a model, or parameters that were not refused."""
        if isinstance(self.result, ModelResult):
            return not self.failed
        return self.outcome is not None and self.outcome.status != "refused"

    @property
    def failed(self) -> bool:
        """Whether the fit gave no result."""
        return self.result is not None and self.result.status == "failed"

    @property
    def _may_repeat(self) -> bool:
        """Whether the same again may end otherwise: after a failure, or if a person insists."""
        if self.failed:
            return True
        refused = self.outcome is not None and self.outcome.status != "applied"
        return refused and self.request.reason == "manual"


@dataclass(slots=True)
class Runs:
    """Requests, results and outcomes, in the order of the requests.

    Attributes
    ----------
    by_request
        request_id -> its run.
    abilities
        run_id -> part -> abilities, of results not decided yet.
    drift_told
        Items and parameter versions of which an alert was published between runs.
    """

    by_request: dict[str, Run] = field(default_factory=dict)
    abilities: dict[str, dict[int, list[Ability]]] = field(default_factory=dict)
    drift_told: set[tuple[str, str]] = field(default_factory=set)
    _decided: set[str] = field(default_factory=set)
    _early: dict[str, list[Result | CalibrationOutcome]] = field(default_factory=dict)

    def add_request(self, request: Request, offset: int = -1) -> None:
        """Note a request; a repeat opens the run again only where that would be of use."""
        known = self.by_request.get(request.request_id)
        if known is None:
            self.by_request[request.request_id] = Run(request, offset)
            for early in self._early.pop(request.request_id, []):
                self._add(early)
            self._forget(request.kind)
        elif offset > known.offset:
            known.request, known.offset = request, offset
            if not known.ended:
                self.by_request[request.request_id] = self.by_request.pop(request.request_id)

    def add_result_record(self, value: bytes | None) -> None:
        """Note a record of ``calibration-results``: a part, a result, an outcome or an alert."""
        if value is None:
            return
        kind = decode(value, _Typed).type
        if kind == "abilities":
            part = decode(value, CalibrationAbilities)
            if part.run_id not in self._decided:
                self.abilities.setdefault(part.run_id, {})[part.part] = part.abilities
        elif kind == "result":
            self._add(decode(value, CalibrationResult))
        elif kind == "outcome":
            self._add(decode(value, CalibrationOutcome))
        elif kind == "model_result":
            self._add(decode(value, ModelResult))
        elif kind == "alert":
            alert = decode(value, CalibrationAlert)
            if alert.item_id is not None and alert.version:
                self.drift_told.add((alert.item_id, alert.version))
        elif kind != "model_learners":  # those are the sink's business
            logger.warning("a record of calibration-results has the unknown type %r", kind)

    def of_kind(self, kind: str) -> list[Run]:
        """Return the runs of a kind in the order of their requests."""
        return [run for run in self.by_request.values() if run.request.kind == kind]

    def unanswered(self, kind: str) -> list[Run]:
        """Return the runs that wait for a result, the newest last.

        What was asked before a calibration that is answered already is covered by it. Models are
        fitted as of a day each, so that none covers another.
        """
        waiting: list[Run] = []
        for run in reversed(self.of_kind(kind)):
            if run.ended:
                if isinstance(run.request, ModelRequest):
                    continue
                break
            if run.offset >= 0:
                waiting.insert(0, run)
        return waiting

    def undecided(self) -> list[CalibrationResult]:
        """Return the results that are neither applied nor refused yet, the oldest first."""
        return [
            run.result
            for run in self.by_request.values()
            if isinstance(run.result, CalibrationResult) and not run.failed and run.outcome is None
        ]

    def last_calibration(self, kind: str) -> tuple[CalibrationRequest, CalibrationResult] | None:
        """Return the newest calibration that gave a result, whether it was applied or not."""
        for run in reversed(self.of_kind(kind)):
            request, result = run.request, run.result
            if isinstance(request, CalibrationRequest) and isinstance(result, CalibrationResult):
                if run.failed:
                    continue
                return request, result
        return None

    def _add(self, event: Result | CalibrationOutcome) -> None:
        if isinstance(event, CalibrationOutcome):
            self._decided.add(event.run_id)
            self.abilities.pop(event.run_id, None)
        run = self.by_request.get(event.request_id)
        if run is None:
            # Topics are read one beside the other: the request may still come.
            self._early.setdefault(event.request_id, []).append(event)
        elif not isinstance(event, CalibrationOutcome):
            newest = run.result
            if newest is None or (
                event.run_id != newest.run_id and event.request_offset >= newest.request_offset
            ):
                run.result, run.outcome = event, None
                if isinstance(event, ModelResult):
                    event.answer = {}  # the sink's business
        elif isinstance(run.result, CalibrationResult) and run.result.run_id == event.run_id:
            run.outcome = event
            run.result.items = []

    def _forget(self, kind: str) -> None:
        runs = self.of_kind(kind)
        for run in runs[:-_RUNS_KEPT]:
            if run.decided:
                del self.by_request[run.request.request_id]


class _Typed(msgspec.Struct):
    type: str = "result"
