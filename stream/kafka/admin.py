"""Making and checking the topics of the catalogue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from stream.errors import BrokerUnavailableError, TopicMismatchError
from stream.kafka.clients import client_config
from stream.settings import Settings
from topics.catalogue import CATALOGUE, TopicSpec

__all__ = [
    "TopicState",
    "broker_answers",
    "create_topics",
    "describe_topics",
    "ensure_topics",
    "partitions_of",
]

_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the catalogue wants it and as the broker has it.

    ``partitions`` and ``config`` are None where the topic does not exist.
    """

    spec: TopicSpec
    name: str
    wanted_partitions: int
    partitions: int | None
    config: dict[str, str] | None

    @property
    def problem(self) -> str | None:
        """What is wrong with it, or None."""
        if self.partitions is None:
            return "missing: run `thetastream topics create`"
        if self.partitions != self.wanted_partitions:
            return f"has {self.partitions} partitions, {self.wanted_partitions} are wanted"
        config = self.config or {}
        wrong = [
            f"{k} is {config.get(k)}" for k, v in self.spec.config().items() if config.get(k) != v
        ]
        return "; ".join(wrong) or None


def partitions_of(spec: TopicSpec, settings: Settings) -> int:
    """Return how many partitions a topic is to have."""
    return settings.partitions if spec.partitions == "learners" else spec.partitions


def describe_topics(settings: Settings, specs: Sequence[TopicSpec] = CATALOGUE) -> list[TopicState]:
    """Compare the catalogue with the broker.

    Raises
    ------
    BrokerUnavailableError
        The broker does not answer within 15 s.
    """
    admin = AdminClient(client_config(settings))
    try:
        existing = admin.list_topics(timeout=_TIMEOUT_S).topics
        names = [settings.topic(s.name) for s in specs if settings.topic(s.name) in existing]
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        futures = admin.describe_configs(resources, request_timeout=_TIMEOUT_S) if resources else {}
        configs = {
            resource.name: {entry.name: entry.value for entry in future.result().values()}
            for resource, future in futures.items()
        }
    except KafkaException as error:
        raise _unavailable(settings) from error
    return [
        TopicState(
            spec=spec,
            name=(name := settings.topic(spec.name)),
            wanted_partitions=partitions_of(spec, settings),
            partitions=len(existing[name].partitions) if name in existing else None,
            config=configs.get(name),
        )
        for spec in specs
    ]


def create_topics(settings: Settings) -> list[str]:
    """Make the topics that are missing; return their names.

    Raises
    ------
    TopicMismatchError
        A topic exists with another number of partitions. Nothing was changed.
    BrokerUnavailableError
        The broker does not answer.
    """
    states = describe_topics(settings)
    _refuse_other_partitions(states)
    missing = [state for state in states if state.partitions is None]
    if not missing:
        return []
    admin = AdminClient(client_config(settings))
    futures = admin.create_topics(
        [
            NewTopic(
                state.name,
                num_partitions=state.wanted_partitions,
                replication_factor=settings.replication,
                config=state.spec.config(),
            )
            for state in missing
        ],
        operation_timeout=_TIMEOUT_S,
        request_timeout=_TIMEOUT_S,
    )
    for name, future in futures.items():
        try:
            future.result()
        except KafkaException as error:
            # Another process may have made it in the meantime.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicMismatchError(f"Topic {name} could not be made: {error}") from error
    # A broker lists a new topic a moment after it was made, also one that another process made.
    ends_at = time.monotonic() + _TIMEOUT_S
    made = describe_topics(settings)
    while any(state.partitions is None for state in made):
        if time.monotonic() > ends_at:
            raise _unavailable(settings)
        time.sleep(0.1)
        made = describe_topics(settings)
    _refuse_other_partitions(made)
    return [state.name for state in missing]


def broker_answers(settings: Settings) -> bool:
    """Return whether Kafka answers within a few seconds."""
    try:
        AdminClient(client_config(settings)).list_topics(timeout=5.0)
    except KafkaException:
        return False
    return True


async def ensure_topics(settings: Settings) -> None:
    """Make missing topics, waiting for a broker that is not there yet."""
    delay_s = 1.0
    while True:
        try:
            await asyncio.to_thread(create_topics, settings)
        except BrokerUnavailableError:
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 10.0)
        else:
            return


def _refuse_other_partitions(states: Sequence[TopicState]) -> None:
    for state in states:
        if state.partitions not in (None, state.wanted_partitions):
            raise TopicMismatchError(
                f"Topic {state.name} {state.problem}. The number is fixed when a topic is made, "
                "because a learner's state lives in the partition of its key; nothing was changed. "
                "Set THETASTREAM_PARTITIONS to the topic's number, or give a new "
                "THETASTREAM_TOPIC_PREFIX and replay the log into the new topics."
            )


def _unavailable(settings: Settings) -> BrokerUnavailableError:
    return BrokerUnavailableError(
        f"Kafka at {settings.kafka_broker} does not answer within {_TIMEOUT_S:.0f} s. "
        "Nothing was changed. Check KAFKA_BROKER, or start the local stack: `thetastream local up`."
    )
