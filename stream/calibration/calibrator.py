"""The calibrator role: asks for calibrations and models, runs them, brings results into force.

Several processes may run; the one that Faust gives the single partition of
``calibration-requests`` leads, the others stand by. Everything a leader publishes goes through one
transactional id, so that a former leader that wakes up late is fenced.

A leader acts on what the topics say and nothing else: a request without a result is run, a result
without an outcome is decided. What was begun when a process died is therefore begun anew by the
next, and a repeated record changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from mode import Service

from schemas.calibration import CalibrationResult
from schemas.codec import encode
from schemas.models import ModelRequest, ModelResult
from stream.app import ThetaApp
from stream.calibration import apply, drift, provisional, run, trigger
from stream.calibration.run import Fitter
from stream.calibration.runs import Request, Run
from stream.calibration.state import CalibratorState
from stream.calibration.trigger import DriftCheck
from stream.errors import PublishError
from stream.kafka.admin import ensure_topics
from stream.kafka.reader import Record, TailReader
from stream.kafka.transaction import Outgoing, TransactionalPublisher
from stream.models import registry
from stream.models.request import enabled_kinds, scheduled_since
from stream.models.run import fit_model
from topics.catalogue import (
    calibration_requests_topic,
    calibration_results_topic,
    item_params_topic,
    item_partials_topic,
    watermarks_topic,
)

__all__ = ["KINDS", "Calibrator"]

logger = logging.getLogger(__name__)

KINDS = ("irt", *registry.KINDS)
"""All that can be asked for: the items' calibration, and the models."""


class Calibrator(Service):
    """Triggers, runs and applies calibrations while it leads.

    Parameters
    ----------
    app
        The calibrator role's Faust app.
    fit
        The calibration service.
    fresh_drift
        Says whether items that have drifted are worth a calibration; None: they ask for none.
    """

    def __init__(self, app: ThetaApp, fit: Fitter, fresh_drift: DriftCheck | None = None) -> None:
        super().__init__(loop=app.loop)
        self.app = app
        self.settings = app.settings
        self.known = CalibratorState()
        self.leading = False
        self._fit = fit
        self._fresh_drift = fresh_drift
        self._publisher: TransactionalPublisher | None = None
        self._publishing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._reader = TailReader(
            self.settings,
            {
                item_partials_topic.name: self._on_partials,
                item_params_topic.name: self._on_params,
                watermarks_topic.name: self._on_watermarks,
            },
            on_failure=self._crash_soon,
        )

    # -- life --------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Make missing topics and begin to follow item totals and parameters."""
        trigger.parse_schedule(self.settings.calibration_schedule)
        for kind in registry.KINDS.values():
            scheduled_since(kind, self.settings, 0)  # for its complaint about a bad schedule
        await ensure_topics(self.settings)
        self._reader.start()

    async def on_stop(self) -> None:
        """Stop leading; a fit that is under way is begun anew by the next leader."""
        await self.stand_by()
        await self._reader.stop()

    async def lead(self) -> None:
        """Take over: fence a leader before, learn from the topics what it knew, go on."""
        if not self.leading:
            await self._guarded(self._take_over())

    async def _take_over(self) -> None:
        publisher = TransactionalPublisher(self.settings, "calibrator")
        # Fence first: only then nobody else can add to what is about to be read.
        await publisher.init()
        history = TailReader(
            self.settings,
            {
                calibration_requests_topic.name: self._on_old_requests,
                calibration_results_topic.name: self._on_old_results,
            },
        )
        history.start()
        try:
            await history.caught_up()
        finally:
            await history.stop()
        await self._reader.caught_up()
        self._publisher = publisher
        self.leading = True
        self._wake.set()
        self._work = asyncio.create_task(self._guarded(self._work_on()))
        logger.info(
            "calibrator leads: %d responses, parameters %s, %d runs known",
            self.known.totals.responses,
            self.known.params.calibrated_version,
            len(self.known.runs.by_request),
        )

    async def stand_by(self) -> None:
        """Stop leading; harmless to repeat."""
        self.leading = False
        tasks = [task for task in (self._work, *self._running.values()) if task is not None]
        self._work = None
        self._running = {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.close()

    # -- what the topics say -----------------------------------------------------------------

    def add_request(self, value: bytes | None, offset: int) -> None:
        """Take a record of ``calibration-requests``."""
        self.known.add_request(value, offset)
        self._wake.set()

    def add_result(self, value: bytes | None) -> None:
        """Take a record of ``calibration-results``."""
        self.known.add_result(value)
        self._wake.set()

    def _on_old_requests(self, records: list[Record]) -> None:
        for record in records:
            self.add_request(record.value(), record.offset())

    def _on_old_results(self, records: list[Record]) -> None:
        for record in records:
            self.add_result(record.value())

    def _on_partials(self, records: list[Record]) -> None:
        for record in records:
            self.known.add_partial(record.value())

    def _on_params(self, records: list[Record]) -> None:
        for record in records:
            self.known.add_params(record.key(), record.value())

    def _on_watermarks(self, records: list[Record]) -> None:
        for record in records:
            self.known.add_watermark(record.value())

    # -- work --------------------------------------------------------------------------------

    async def ask_if_due(self) -> None:
        """Publish the requests that are due; called by a timer."""
        now_ms = int(time.time() * 1000)
        if self.leading:
            calibration = trigger.decide(self.known, self.settings, now_ms, drift=self._fresh_drift)
            await self._publish_request(calibration)
        for kind in enabled_kinds(self.settings):
            if self.leading:
                model = trigger.decide_model(self.known, self.settings, now_ms, kind.name)
                await self._publish_request(model)

    async def _publish_request(self, request: Request | None) -> None:
        if request is None:
            return
        logger.info(
            "%s %s is asked for: %s (%s)",
            *(request.kind, request.request_id, request.reason, request.detail),
        )
        # Noted at once, so that the next tick does not ask again before it comes back.
        self.known.runs.add_request(request)
        key = request.kind.encode()
        record = Outgoing(calibration_requests_topic.name, key, encode(request), 0)
        await self._guarded(self._publish([record]))

    async def look_for_drift(self) -> None:
        """Compare answers with their parameters and tell of items that drifted; on a timer."""
        if not self.leading:
            return
        self.known.drifted = drift.drifted_items(self.known)
        alerts = drift.alerts(self.known, int(time.time() * 1000))
        if alerts:
            logger.warning("%d items have drifted since they were calibrated", len(alerts))
            await self._guarded(self._tell(alerts))

    async def publish_provisional(self) -> None:
        """Publish the difficulties of new items that are due; called by a timer."""
        if self.leading:
            await self._guarded(self._publish_provisional())

    async def _publish_provisional(self) -> None:
        totals, params = self.known.totals, self.known.params
        if not provisional.due_difficulties(totals, params):
            return
        async with self._publishing:
            await self._reader.caught_up()
            due = provisional.due_difficulties(totals, params)
            if due:
                now_ms = int(time.time() * 1000)
                await self._publish(
                    provisional.publication(
                        due, totals, params.sequence + 1, now_ms, params.weights, params.filter
                    )
                )
                logger.info("%d provisional difficulties published", len(due))

    async def _work_on(self) -> None:
        """Run what is unanswered and decide what is undecided, whenever something came."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for kind in KINDS:
                await self._start_next(kind)
            for result in self.known.runs.undecided():
                await self._decide(result)

    async def _start_next(self, kind: str) -> None:
        """Start an unanswered request of a kind unless one is running.

        Of calibrations the newest, which covers those before it; of models the oldest.
        """
        if kind in self._running:
            return
        waiting = self.known.runs.unanswered(kind)
        if not waiting:
            return
        chosen = waiting[0]
        if kind not in registry.KINDS:
            *overtaken, chosen = waiting
            for old in overtaken:
                await self._tell(run.superseded(old, chosen))
        self._running[kind] = asyncio.create_task(self._guarded(self._run(chosen)))

    async def _run(self, asked: Run) -> None:
        """Answer a request, in a task of its own: a fit is never awaited by an agent."""
        request, offset = asked.request, asked.offset
        try:
            if isinstance(request, ModelRequest):
                messages = await fit_model(self.settings, request, offset)
            else:
                messages = await run.calibrate(
                    self.settings,
                    request,
                    offset,
                    self._fit,
                    has_reference=bool(self.known.params.calibrated()),
                )
            await self._tell(messages)
            if isinstance(request, ModelRequest):
                self._log_model(request.request_id)
        finally:
            self._running.pop(request.kind, None)
            self._wake.set()

    async def _decide(self, result: CalibrationResult) -> None:
        """Apply a result, or refuse it; parameters, abilities and the outcome become one."""
        async with self._publishing:
            # The version before must be known whole: its number and its parameters are built on.
            await self._reader.caught_up()
            parts = self.known.runs.abilities.get(result.run_id, {})
            abilities = [ability for _, part in sorted(parts.items()) for ability in part]
            now_ms = int(time.time() * 1000)
            sums = self.known.totals.sums()
            try:
                publication = await asyncio.to_thread(
                    apply.decide, result, abilities, self.known.params, self.settings, now_ms, sums
                )
            except Exception as error:
                # One result must not keep the process from starting again and again.
                logger.exception("calibration %s cannot be decided", result.run_id)
                reason = f"It could not be decided: {type(error).__name__}: {error}."
                publication = apply.refuse(result, reason, now_ms)
            await self._tell(publication)
            self._log_outcome(result)

    def _log_outcome(self, result: CalibrationResult) -> None:
        outcome = self.known.runs.by_request[result.request_id].outcome
        assert outcome is not None
        logger.info(
            "calibration %s is %s: version %s, slope %.4f, intercept %.4f (%s, %d items)%s",
            *(result.run_id, outcome.status, outcome.version or "unchanged"),
            *(outcome.slope, outcome.intercept, outcome.method, outcome.n_common),
            "".join(f"; {text}" for text in (*outcome.reasons, *outcome.warnings)),
        )

    def _log_model(self, request_id: str) -> None:
        result = self.known.runs.by_request[request_id].result
        if isinstance(result, ModelResult):
            logger.info(
                "%s %s as of %s is %s: %s, %d learners",
                *(result.kind, result.run_id, result.as_of, result.status),
                *(result.dataset, result.n_learners),
            )

    async def _tell(self, messages: list[Outgoing]) -> None:
        """Publish, and know at once what was published: it comes back only later."""
        await self._publish(messages)
        for message in messages:
            if message.topic == calibration_results_topic.name:
                self.add_result(message.value)

    async def _publish(self, messages: list[Outgoing]) -> None:
        if self._publisher is None:
            raise PublishError("This process does not lead any more; nothing was published.")
        await self._publisher.publish(messages)

    # -- trouble -----------------------------------------------------------------------------

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something; end the process when it was fenced or cannot publish while leading."""
        try:
            await work
        except PublishError as error:
            if self.leading:
                self._crash_soon(error)
        except Exception as error:
            self._crash_soon(error)

    def _crash_soon(self, error: BaseException) -> None:
        """End the process with a non-zero status; the next leader goes on from the topics."""
        self.leading = False
        self.app.fail(error)
