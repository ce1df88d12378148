"""One calibration: read the responses, choose anchors, have it fitted, tell the result."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from schemas.calibration import (
    CalibratedItem,
    CalibrationAbilities,
    CalibrationRequest,
    CalibrationResult,
)
from schemas.codec import encode
from stream.calibration.anchor_fit import misfitting_anchors
from stream.calibration.observations import Observations, read_observations
from stream.calibration.practice_weights import LiveFit, practice_weights
from stream.calibration.runs import Ability, Run
from stream.calibration.tagged import tagged_anchors
from stream.domain.irt import ItemParams
from stream.domain.linking import MIN_ANCHORS
from stream.errors import BrokerUnavailableError, EstimationError, StreamError
from stream.kafka.transaction import Outgoing
from stream.settings import Settings
from topics.catalogue import calibration_results_topic

__all__ = ["Fit", "Fitter", "calibrate", "failure", "superseded"]

logger = logging.getLogger(__name__)

ABILITIES_A_PART = 5000
"""Learners in one record of ``calibration-results``: about 300 KB."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a calibration service found, on the scale of the fit."""

    items: list[CalibratedItem]
    abilities: list[Ability]
    fit_meta: dict[str, Any]


class Fitter(Protocol):
    """Fits item parameters; tries again by itself where that may help."""

    async def __call__(
        self, observations: Observations, model: str, anchors: Mapping[str, ItemParams]
    ) -> Fit:
        """Fit a model; anchors' parameters are held as they are.

        Raises
        ------
        CalibrationError
            There is no usable result, after the last try.
        """


ReadObservations = Callable[[Settings, CalibrationRequest, threading.Event | None], Observations]
ReadAnchors = Callable[[Settings], Awaitable[dict[str, ItemParams] | None]]


@dataclass(frozen=True, slots=True)
class _Anchors:
    """Anchors among the fitted items, and those of them that are fixed."""

    tagged: list[str] = field(default_factory=list)
    fixed: dict[str, ItemParams] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


async def calibrate(
    settings: Settings,
    request: CalibrationRequest,
    offset: int,
    fit: Fitter,
    *,
    has_reference: bool,
    read: ReadObservations = read_observations,
    read_anchors: ReadAnchors = tagged_anchors,
) -> list[Outgoing]:
    """Answer a request.

    Parameters
    ----------
    settings
        The deployment's choices.
    request, offset
        The request and its offset, which together name the run.
    fit
        The calibration service.
    has_reference
        Whether parameters are in force: then the fit is free and linked afterwards. If not,
        tagged anchors are fixed in the fit, and their scale is the reference.
    read, read_anchors
        Where responses and tagged anchors come from.

    Returns
    -------
    list
        Records of ``calibration-results``, to be published as one transaction: the abilities in
        parts and the result, or a result that failed and says why.
    """
    try:
        observations = await _read(settings, request, read)
        _check(observations)
        anchors = await _choose_anchors(
            settings, observations, read_anchors, has_reference=has_reference
        )
        logger.info(
            "calibration %s (%s: %s): %d responses, %d learners, %d items, %d fixed anchors",
            *(request.request_id, request.reason, request.detail, len(observations)),
            *(len(observations.learners), len(observations.items), len(anchors.fixed)),
        )
        found = await fit(observations, request.model, anchors.fixed)
        live = await asyncio.to_thread(practice_weights, observations, found.items)
        misfits = await asyncio.to_thread(
            misfitting_anchors, observations, anchors.fixed, found.abilities
        )
        anchors = replace(anchors, warnings=[*anchors.warnings, *misfits])
    except StreamError as error:
        return failure(request, offset, str(error))
    except Exception as error:
        logger.exception("calibration %s failed unexpectedly", request.request_id)
        return failure(request, offset, f"unexpected {type(error).__name__}: {error}")
    return _success(request, offset, observations, anchors, found, live)


def failure(request: CalibrationRequest, offset: int, error: str) -> list[Outgoing]:
    """Return the result of a request that failed: nothing else changes."""
    logger.warning("calibration %s failed, old parameters stay: %s", request.request_id, error)
    return [_outgoing(_result(request, offset, status="failed", error=error))]


def superseded(old: Run, newer: Run) -> list[Outgoing]:
    """Return the result of a request that a newer one has overtaken while it waited."""
    assert isinstance(old.request, CalibrationRequest)
    error = f"overtaken by the newer request {newer.request.request_id}"
    return failure(old.request, old.offset, error)


async def _read(
    settings: Settings, request: CalibrationRequest, read: ReadObservations
) -> Observations:
    """Read the responses in a thread; a broker that is away is waited for."""
    cancelled = threading.Event()
    try:
        while True:
            try:
                return await asyncio.to_thread(read, settings, request, cancelled)
            except BrokerUnavailableError as error:
                logger.warning("calibration %s waits: %s", request.request_id, error)
                await asyncio.sleep(5.0)
    finally:
        cancelled.set()


def _check(observations: Observations) -> None:
    right = int(observations.correct.sum())
    if not len(observations):
        raise EstimationError(
            f"there are no responses in the window (left out: {observations.skipped or 'none'})"
        )
    if right in (0, len(observations)):
        raise EstimationError(
            f"all {len(observations)} responses are {'right' if right else 'wrong'}: "
            "they tell no item from another"
        )


async def _choose_anchors(
    settings: Settings,
    observations: Observations,
    read_anchors: ReadAnchors,
    *,
    has_reference: bool,
) -> _Anchors:
    tagged = await read_anchors(settings)
    if tagged is None:
        warning = "PostgreSQL was away: tagged anchors were not used."
        return _Anchors(warnings=[warning])
    here = [item for item in observations.items if item in tagged]
    if has_reference or not tagged:
        return _Anchors(tagged=here)
    if len(here) < MIN_ANCHORS:
        warning = (
            f"Only {len(here)} of {len(tagged)} tagged anchors have responses, "
            f"{MIN_ANCHORS} are needed to set the scale: this fit's own scale is the "
            "reference."
        )
        return _Anchors(tagged=here, warnings=[warning])
    return _Anchors(tagged=here, fixed={item: tagged[item] for item in here})


def _success(
    request: CalibrationRequest,
    offset: int,
    observations: Observations,
    anchors: _Anchors,
    found: Fit,
    live: LiveFit,
) -> list[Outgoing]:
    parts = [
        found.abilities[start : start + ABILITIES_A_PART]
        for start in range(0, len(found.abilities), ABILITIES_A_PART)
    ]
    fit_meta = dict(found.fit_meta)
    fit_meta["observations"] = {
        "responses": observations.responses,
        "n": len(observations),
        "learners": len(observations.learners),
        "items": len(observations.items),
        "lookback_days": request.lookback_days,
        "skipped": observations.skipped,
    }
    counts = observations.item_counts()
    for item in found.items:
        item.n = counts.get(item.item_id, item.n)
        if of_live := live.items.get(item.item_id):
            item.live, item.recall = (of_live.a, of_live.b, of_live.se_b), of_live.recall
    result = _result(
        request,
        offset,
        status="succeeded",
        cut_time=observations.cut_time,
        items=found.items,
        ability_parts=len(parts),
        n_abilities=len(found.abilities),
        fit_meta=fit_meta,
        n_observations=len(observations),
        n_learners=len(observations.learners),
        tagged_anchors=anchors.tagged,
        fixed_anchors=sorted(anchors.fixed),
        warnings=[*anchors.warnings, *_warnings(found)],
        weights=live.weights,
        filter=live.filter,
    )
    return [
        *(
            _outgoing(CalibrationAbilities(result.run_id, request.request_id, number, part))
            for number, part in enumerate(parts)
        ),
        _outgoing(result),
    ]


def _warnings(found: Fit) -> list[str]:
    """Return what the service itself warns of."""
    metrics = found.fit_meta.get("metrics")
    warnings = metrics.get("warnings") if isinstance(metrics, dict) else None
    return [str(warning) for warning in warnings] if isinstance(warnings, list) else []


def _result(request: CalibrationRequest, offset: int, **fields: Any) -> CalibrationResult:
    values: dict[str, Any] = {
        "run_id": f"{request.kind}-{request.request_id[:10]}-{offset}",
        "request_id": request.request_id,
        "kind": request.kind,
        "reason": request.reason,
        "cut_time": 0,
        "cut_offsets": request.cut_offsets,
        "finished_at": int(time.time() * 1000),
        "request_offset": offset,
    }
    return CalibrationResult(**{**values, **fields})


def _outgoing(record: CalibrationAbilities | CalibrationResult) -> Outgoing:
    return Outgoing(calibration_results_topic.name, record.request_id.encode(), encode(record), 0)
