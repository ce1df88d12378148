"""The Faust apps, one a role: engine, calibrator, sink. Making one does no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import faust
from mode import Service

from stream.kafka.clients import faust_credentials
from stream.kafka.transport import BatchSchema, BatchTransport
from stream.settings import Settings
from topics.catalogue import TopicSpec

__all__ = ["ROLES", "Role", "ThetaApp", "new_app"]

Role = Literal["engine", "calibrator", "sink"]
ROLES: tuple[Role, ...] = get_args(Role)


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
        "broker_rebalance_timeout": 60.0,
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
        "topic_allow_declare": role == "calibrator",
        "topic_disable_leader": True,
        "web_enabled": False,
        "autodiscover": False,
        "value_serializer": "raw",
        "datadir": f"{settings.state_dir}/faust-{role}",
        "processing_guarantee": "at_least_once",
    }
    app = ThetaApp(settings.topic(f"thetastream-{role}"), **{**options, **overrides})
    app.settings = settings
    app.role = role
    app.early_services = []
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    return app
