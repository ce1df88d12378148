"""Wires the calibrator to its Faust app: service, signals, agents and timers."""

from __future__ import annotations

from typing import Any

from faust.types import TP

from stream.app import ThetaApp
from stream.calibration.calibrator import Calibrator
from stream.calibration.drift import fresh_drift
from stream.calibration.fitting import service_fitter
from stream.calibration.run import Fitter
from topics.catalogue import calibration_requests_topic, calibration_results_topic

__all__ = ["register"]

_TRIGGER_INTERVAL_S = 1.0
_DRIFT_INTERVAL_S = 10.0


def register(app: ThetaApp, fit: Fitter | None = None) -> Calibrator:
    """Add the calibrator to its app.

    Parameters
    ----------
    app
        An app of the role ``calibrator``.
    fit
        Fits item parameters; the service at R_IRT_BASE_URL by default.
    """
    calibrator = Calibrator(app, fit or service_fitter(app.settings), fresh_drift)
    app.early_services.append(calibrator)
    leadership = TP(app.settings.topic(calibration_requests_topic.name), 0)

    async def revoked(_sender: Any, /, *arguments: Any, **_: Any) -> None:
        if leadership in arguments[0]:
            await calibrator.stand_by()

    async def assigned(_sender: Any, /, *_arguments: Any, **_: Any) -> None:
        if leadership in app.consumer.assignment():
            await calibrator.lead()

    app.on_partitions_revoked.connect(revoked, weak=False)
    app.on_rebalance_complete.connect(assigned, weak=False)

    # Agents hand over and acknowledge at once: what is not finished is found again in the topics.
    @app.agent(app.batches(calibration_requests_topic), name="calibrator.requests")
    async def take_requests(stream: Any) -> None:
        async for event in stream.noack().events():
            for record in event.value:
                calibrator.add_request(record.value, record.offset)
            event.ack()

    @app.agent(app.batches(calibration_results_topic), name="calibrator.results")
    async def take_results(stream: Any) -> None:
        async for event in stream.noack().events():
            for record in event.value:
                calibrator.add_result(record.value)
            event.ack()

    app.timer(interval=_TRIGGER_INTERVAL_S)(calibrator.ask_if_due)
    app.timer(interval=_DRIFT_INTERVAL_S)(calibrator.look_for_drift)
    app.timer(interval=app.settings.provisional_secs)(calibrator.publish_provisional)
    return calibrator
