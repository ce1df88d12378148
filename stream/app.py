"""The Faust apps, one a role: engine, calibrator, sink. Making one does no I/O."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterable
from typing import Any, Literal, get_args

import faust
from mode import Service

from stream.errors import GroupSilentError
from stream.kafka.admin import broker_answers
from stream.kafka.clients import faust_credentials
from stream.kafka.transport import BatchConsumer, BatchSchema, BatchTransport
from stream.settings import Settings
from topics.catalogue import TopicSpec

__all__ = ["ROLES", "Role", "ThetaApp", "new_app"]

logger = logging.getLogger(__name__)

_ENDING_S = 8.0
"""Seconds that a process may take to stop in good order: time for a last flush, and less than
anybody waits who has asked it to end."""

_LONGEST_REBALANCE_S = 60.0
"""Seconds a member may take to rejoin; no heartbeat is sent meanwhile."""

Role = Literal["engine", "calibrator", "sink"]
ROLES: tuple[Role, ...] = get_args(Role)


class _Broker(Service):
    """Holds the start up until Kafka answers: its client gives a broker that is away no time."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    async def on_start(self) -> None:
        """Wait for Kafka."""
        while not await asyncio.to_thread(broker_answers, self._settings):
            logger.warning(
                "waiting for Kafka at %s; check KAFKA_BROKER", self._settings.kafka_broker
            )
            await asyncio.sleep(1.0)


class ThetaApp(faust.App):
    """A Faust app of one role.

    Attributes
    ----------
    settings
        The deployment's choices.
    role
        Which part of the pipeline this process is.
    early_services
        Services started before Kafka is joined and stopped last, such as the HTTP server: health
        must answer while state is still being loaded.
    """

    settings: Settings
    role: Role
    early_services: list[Service]
    failure: BaseException | None = None
    _ending: asyncio.Future[None] | None = None
    _deadline: threading.Timer | None = None

    def fail(self, error: BaseException) -> None:
        """End the process with a non-zero status; what was not committed is done again."""
        if self.failure is not None:
            return
        self.failure = error
        logger.error("this process ends: %s", error, exc_info=error)
        self.end_soon()
        self._ending = asyncio.ensure_future(self.crash(error))

    def end_soon(self) -> None:
        """See to it that the process ends within seconds of now, whatever hangs.

        Stopping a Faust app waits for its clients, and those for a broker or a database that may
        be gone for good. Harmless to repeat.
        """
        if self._deadline is None:
            self._deadline = threading.Timer(_ENDING_S, self._end_now)
            self._deadline.daemon = True
            self._deadline.start()

    def _end_now(self) -> None:
        failed = self.failure is not None or self.crashed
        logger.warning(
            "this process has not stopped in good order within %.0f s, so Kafka or PostgreSQL may "
            "be away; it ends as it is. Nothing is lost: what was not committed is done again",
            _ENDING_S,
        )
        os._exit(1 if failed else 0)

    @property
    def has_joined(self) -> bool:
        """Whether the consumer group has taken this process in."""
        consumer = self._consumer
        return isinstance(consumer, BatchConsumer) and consumer.has_joined

    def silence_s(self) -> float:
        """Return for how many seconds the consumer group has not been heard of."""
        consumer = self._consumer
        return consumer.silence_s() if isinstance(consumer, BatchConsumer) else 0.0

    async def watch_group(self) -> None:
        """Fail when the group is silent though the broker answers: the client hangs.

        Seen after a broker was killed: the client's metadata task never came back, so that the
        process belonged to no group and did not know. Its cause is mended, see
        `stream.kafka.transport.shun_closed_connections`; should there be others, this ends them.
        """
        limit = max(_LONGEST_REBALANCE_S + 30.0, 3 * self.settings.session_timeout_secs)
        while not self.should_stop:
            await self.sleep(2.0)
            silence = self.silence_s()
            if silence > limit and await asyncio.to_thread(broker_answers, self.settings):
                self.fail(
                    GroupSilentError(
                        f"The consumer group was not heard of for {silence:.0f} s, though Kafka "
                        "answers. Nothing is lost; the process ends and is to be started again."
                    )
                )

    def on_init_dependencies(self) -> Iterable[Any]:
        """Start the early services before Faust's own."""
        return [*self.early_services, *super().on_init_dependencies()]

    def batches(self, spec: TopicSpec) -> Any:
        """Return the Faust topic that delivers a catalogue topic's records in batches."""
        return self.topic(self.settings.topic(spec.name), schema=BatchSchema())


def new_app(role: Role, settings: Settings, **overrides: Any) -> ThetaApp:
    """Make the app of a role; agents are added by the role's ``register`` function.

    Parameters
    ----------
    role
        Its consumer group is ``<prefix>thetastream-<role>``: the app id, which must not change.
    settings
        The deployment's choices.
    overrides
        Further Faust settings, for tests.
    """
    options: dict[str, Any] = {
        "broker": [f"kafka://{address}" for address in settings.kafka_broker.split(",")],
        "broker_credentials": faust_credentials(settings),
        "broker_session_timeout": settings.session_timeout_secs,
        "broker_heartbeat_interval": min(3.0, settings.session_timeout_secs / 4),
        "broker_request_timeout": max(90.0, settings.session_timeout_secs + 10),
        # Time a process may take to answer a rebalance: it flushes first.
        "broker_rebalance_timeout": _LONGEST_REBALANCE_S,
        "broker_commit_interval": 1.0,
        # While all partitions are paused nobody polls (PostgreSQL or the broker is away). Kafka's
        # client would leave the group after this time and, since Faust does not poll between two
        # assignments, never come back. Liveness is ours to watch, see /healthz.
        "broker_max_poll_interval": 30 * 86_400.0,
        # Without it every rebalance waits for all streams and runs the garbage collector;
        # nothing is gained, since unflushed work is folded again by the next owner.
        "stream_wait_empty": False,
        # A message is a whole batch here; a few are enough to keep an agent busy.
        "stream_buffer_maxsize": 16,
        "consumer_auto_offset_reset": "earliest",
        # Partitions that somebody adds are to be noticed soon: they end the engine.
        "consumer_metadata_max_age_ms": 30_000,
        "topic_allow_declare": role == "calibrator",
        "topic_disable_leader": True,
        "web_enabled": False,
        "autodiscover": False,
        "value_serializer": "raw",
        "datadir": f"{settings.state_dir}/faust-{role}",
        "processing_guarantee": "at_least_once",
    }
    if role == "engine":
        # The client asks for more of a partition only when all it brought before is taken: twice
        # as much at a time, and half as many batches waiting, keeps the fold at work.
        options |= {"consumer_max_fetch_size": 2 << 20, "stream_buffer_maxsize": 8}
    app = ThetaApp(settings.topic(f"thetastream-{role}"), **{**options, **overrides})
    app.settings = settings
    app.role = role
    app.early_services = [_Broker(settings)]
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    app.task(app.watch_group)
    return app
