"""Asking for a fit from outside the calibrator: the command line, a CronJob."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import date
from typing import Any, Literal

from confluent_kafka import KafkaException

from schemas.codec import encode
from stream.calibration.runs import Request, Run
from stream.calibration.state import CalibratorState
from stream.calibration.trigger import Reason, new_model_request, new_request
from stream.errors import BrokerUnavailableError, CalibrationError, NothingToCalibrateError
from stream.kafka.clients import new_producer
from stream.kafka.reader import Handler, Record, TailReader
from stream.models.registry import KINDS
from stream.settings import Settings
from topics.catalogue import (
    calibration_requests_topic,
    calibration_results_topic,
    item_params_topic,
    item_partials_topic,
    watermarks_topic,
)

__all__ = ["ask"]

_REACH_TIMEOUT_S = 30.0


async def ask(
    settings: Settings,
    kind: str = "irt",
    detail: str = "",
    *,
    reason: Literal["manual", "schedule"] = "manual",
    as_of: date | None = None,
    wait_s: float | None = None,
) -> Run:
    """Publish a request for a fit of what the engines have folded so far.

    If the very same is being worked on already, that run is returned and nothing is published.

    Parameters
    ----------
    settings
        Where the broker is, and what to fit.
    kind
        ``irt``, or a model's.
    detail
        Who asks, for the event.
    reason
        A person asks, or the clock.
    as_of
        Of a model: what happened before this day counts; None: the whole weeks so far.
    wait_s
        Seconds to wait until the request is decided; None: do not wait.

    Returns
    -------
    Run
        The request, and its result and outcome as far as they are known.

    Raises
    ------
    NothingToCalibrateError
        Nothing has been folded yet.
    CalibrationError
        Nobody decided in time; the request stays.
    BrokerUnavailableError
        Kafka does not answer.
    """
    state = CalibratorState()
    reader = TailReader(settings, _handlers(state))
    reader.start()
    try:
        await _within(reader.caught_up(), settings)
        if not state.totals.responses:
            raise NothingToCalibrateError(
                "No attempt has been folded yet, so there is nothing to fit. Start the "
                "engine and send attempts; nothing was published."
            )
        why = Reason(reason, detail)
        request: Request = (
            new_model_request(state, settings, _now_ms(), why, kind, as_of)
            if kind in KINDS
            else new_request(state, settings, _now_ms(), why, kind)
        )
        run = state.runs.by_request.get(request.request_id)
        if run is None or run.decided:
            state.runs.add_request(request, await asyncio.to_thread(_publish, settings, request))
            run = state.runs.by_request[request.request_id]
        if wait_s is not None:
            await _decided(run, wait_s)
        return run
    finally:
        await reader.stop()


async def _decided(run: Run, wait_s: float) -> None:
    gives_up_at = time.monotonic() + wait_s
    while not run.decided:
        if time.monotonic() > gives_up_at:
            raise CalibrationError(
                f"Request {run.request.request_id} was not decided within {wait_s:.0f} s. It "
                "stays and is worked on when a calibrator runs: `thetastream run --role "
                "calibrator`."
            )
        await asyncio.sleep(0.1)


def _handlers(state: CalibratorState) -> dict[str, Handler]:
    def each(add: Callable[[Record], None]) -> Handler:
        def handle(records: list[Record]) -> None:
            for record in records:
                add(record)

        return handle

    return {
        item_partials_topic.name: each(lambda r: state.add_partial(r.value())),
        item_params_topic.name: each(lambda r: state.add_params(r.key(), r.value())),
        watermarks_topic.name: each(lambda r: state.add_watermark(r.value())),
        calibration_requests_topic.name: each(lambda r: state.add_request(r.value(), r.offset())),
        calibration_results_topic.name: each(lambda r: state.add_result(r.value())),
    }


def _publish(settings: Settings, request: Request) -> int:
    """Publish a request; return its offset."""
    offsets: list[int] = []

    def delivered(error: object, message: Any) -> None:
        if error is None:
            offsets.append(message.offset())

    producer = new_producer(settings)
    try:
        producer.produce(
            settings.topic(calibration_requests_topic.name),
            encode(request),
            request.kind.encode(),
            0,
            on_delivery=delivered,
        )
        producer.flush(_REACH_TIMEOUT_S)
    except KafkaException as error:
        raise _unreachable(settings) from error
    if not offsets:
        raise _unreachable(settings)
    return offsets[0]


async def _within(waiting: Any, settings: Settings) -> None:
    try:
        await asyncio.wait_for(waiting, _REACH_TIMEOUT_S)
    except TimeoutError:
        raise _unreachable(settings) from None


def _unreachable(settings: Settings) -> BrokerUnavailableError:
    return BrokerUnavailableError(
        f"Kafka at {settings.kafka_broker} does not answer within {_REACH_TIMEOUT_S:.0f} s, or "
        "topics are missing. Nothing was published. Check KAFKA_BROKER and `thetastream topics "
        "describe`."
    )


def _now_ms() -> int:
    return int(time.time() * 1000)
