"""One fit: read the dataset, have it fitted, check the answer, tell the result."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import httpx
import msgspec

from schemas.codec import encode
from schemas.models import ModelAnswer, ModelLearners, ModelRequest, ModelResult
from stream.errors import (
    CalibrationRefusedError,
    CalibrationResponseError,
    DatabaseUnavailableError,
    StreamError,
)
from stream.kafka.transaction import Outgoing
from stream.models.kind import Dataset, ModelKind, check_names
from stream.models.registry import KINDS
from stream.models.tables import read_dataset
from stream.service_client import ServiceClient
from stream.settings import Settings
from topics.catalogue import calibration_results_topic

__all__ = ["fit_model"]

logger = logging.getLogger(__name__)

LEARNERS_A_PART = 5000
"""Learners in one record of ``calibration-results``: at most about 700 KB."""

DATABASE_WAIT_S = 10.0
DATABASE_TRIES = 60
"""While PostgreSQL is away a fit waits for ten minutes before it fails."""

_NOT_NUMBERS = {"nan", "inf", "-inf", "infinity", "-infinity", "na"}
"""What a service may write where it has no number, in fields that may hold anything."""

Sleep = Callable[[float], Awaitable[None]]


async def fit_model(
    settings: Settings,
    request: ModelRequest,
    offset: int,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    sleep: Sleep = asyncio.sleep,
) -> list[Outgoing]:
    """Answer a request.

    Parameters
    ----------
    settings
        The deployment's choices.
    request, offset
        The request and its offset, which together name the run.
    transport, sleep
        For tests.

    Returns
    -------
    list
        Records of ``calibration-results``, to be published as one transaction: the learners in
        parts and the result, or a result that failed and says why. With DRY_RUN the result alone.
    """
    dataset = Dataset({})
    run_id = f"{request.kind}-{request.request_id[:10]}-{offset}"
    try:
        kind = _kind(request.kind, settings)
        dataset = await _read(kind, settings, _day(request.as_of), sleep)
        logger.info(
            "%s %s as of %s (%s: %s): %s",
            *(request.kind, request.request_id, request.as_of, request.reason, request.detail),
            dataset.about,
        )
        answer = await _ask(kind, settings, run_id, dataset, transport, sleep)
        await asyncio.to_thread(_check, kind, answer, run_id, dataset)
    except StreamError as error:
        return _failure(request, offset, run_id, dataset, str(error), retriable=error.retriable)
    except Exception as error:
        logger.exception("%s %s failed unexpectedly", request.kind, request.request_id)
        text = f"unexpected {type(error).__name__}: {error}"
        return _failure(request, offset, run_id, dataset, text)
    return await asyncio.to_thread(
        _success, kind, request, offset, run_id, dataset, answer, dry=settings.dry_run
    )


def _kind(name: str, settings: Settings) -> ModelKind:
    kind = KINDS[name]
    if not kind.base_url(settings):
        raise CalibrationRefusedError(
            f"models of the kind {name} are off: {kind.setting} is empty. Set it to the service's "
            "address for the calibrator and start that again"
        )
    return kind


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CalibrationRefusedError(f"as_of {text!r} is no day; give YYYY-MM-DD") from None


async def _read(kind: ModelKind, settings: Settings, as_of: date, sleep: Sleep) -> Dataset:
    for tries_left in reversed(range(DATABASE_TRIES)):
        try:
            return await read_dataset(kind, settings, as_of)
        except DatabaseUnavailableError as error:
            if not tries_left:
                raise
            logger.warning("the dataset of %s waits: %s", kind.name, error)
            await sleep(DATABASE_WAIT_S)
    raise AssertionError("unreachable: the last try returns or raises")


async def _ask(
    kind: ModelKind,
    settings: Settings,
    run_id: str,
    dataset: Dataset,
    transport: httpx.AsyncBaseTransport | None,
    sleep: Sleep,
) -> ModelAnswer:
    client = ServiceClient(
        kind.base_url(settings),
        settings.r_irt_internal_token,
        timeout_s=settings.model_timeout_secs,
        max_retries=settings.mirt_max_retries,
        retry_delay_s=settings.mirt_retry_delay_secs,
        setting=kind.setting,
        transport=transport,
        sleep=sleep,
    )
    async with client:
        return await client.post(kind.route, {"run_id": run_id, **dataset.body}, kind.answer)


def _check(kind: ModelKind, answer: ModelAnswer, run_id: str, dataset: Dataset) -> None:
    """Check what every answer must keep, then what the kind's must.

    Typed fields hold finite numbers, for JSON has no others; the free ones may hold their names.
    """
    if answer.status != "ok":
        raise CalibrationResponseError(f"the service answered with status {answer.status!r}")
    if answer.fit_meta.run_id != run_id:
        raise CalibrationResponseError(
            f"the service answered for the run {answer.fit_meta.run_id!r}; {run_id!r} was asked"
        )
    _check_free([answer.fit_meta.model_spec, answer.fit_meta.metrics])
    if kind.learners:
        returned = [one.user_id for one in getattr(answer, kind.learners)]
        check_names("learner", returned, dataset.learners)
        if not returned:
            raise CalibrationResponseError("the service returned no learners")
    kind.check(answer, dataset)


def _check_free(value: Any) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            _check_free(one)
    elif isinstance(value, str) and value.lower() in _NOT_NUMBERS:
        raise CalibrationResponseError(f"the service returned {value!r} in place of a number")


def _success(
    kind: ModelKind,
    request: ModelRequest,
    offset: int,
    run_id: str,
    dataset: Dataset,
    answer: ModelAnswer,
    *,
    dry: bool,
) -> list[Outgoing]:
    fields = msgspec.to_builtins(answer)
    learners = fields.pop(kind.learners) if kind.learners else []
    n_learners = len(learners)
    if dry:
        learners = []
    now_ms = int(time.time() * 1000)
    parts = [
        ModelLearners(
            run_id=run_id,
            request_id=request.request_id,
            kind=request.kind,
            as_of=request.as_of,
            base_version=request.base_version,
            finished_at=now_ms,
            part=number,
            learners=learners[start : start + LEARNERS_A_PART],
        )
        for number, start in enumerate(range(0, len(learners), LEARNERS_A_PART))
    ]
    result = _result(
        *(request, offset, run_id, dataset),
        status="succeeded",
        finished_at=now_ms,
        answer=fields,
        summary=kind.summary(answer),
        parts=len(parts),
        n_learners=n_learners,
    )
    return [*(_outgoing(part) for part in parts), _outgoing(result)]


def _failure(
    request: ModelRequest,
    offset: int,
    run_id: str,
    dataset: Dataset,
    error: str,
    *,
    retriable: bool = False,
) -> list[Outgoing]:
    logger.warning("%s %s failed, nothing changes: %s", request.kind, request.request_id, error)
    result = _result(
        *(request, offset, run_id, dataset),
        status="failed",
        finished_at=int(time.time() * 1000),
        error=error,
        retriable=retriable,
    )
    return [_outgoing(result)]


def _result(
    request: ModelRequest, offset: int, run_id: str, dataset: Dataset, **fields: Any
) -> ModelResult:
    return ModelResult(
        run_id=run_id,
        request_id=request.request_id,
        kind=request.kind,
        reason=request.reason,
        as_of=request.as_of,
        base_version=request.base_version,
        request_offset=offset,
        dataset=dataset.about,
        cut_offsets=request.cut_offsets,
        **fields,
    )


def _outgoing(record: ModelLearners | ModelResult) -> Outgoing:
    return Outgoing(calibration_results_topic.name, record.request_id.encode(), encode(record), 0)
