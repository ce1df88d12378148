"""What there is to rebuild from: the log, how far it was folded, and who is running."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.codec import decode
from stream.engine.rows import POSITION_KEY
from stream.engine.state import Position
from stream.errors import BrokerUnavailableError, StreamError, TopicMismatchError
from stream.kafka.admin import describe_topics
from stream.kafka.clients import client_config, new_consumer
from stream.kafka.reader import Record, patiently, read_whole
from stream.settings import Settings
from topics.catalogue import (
    TopicSpec,
    attempts_topic,
    batch_abilities_topic,
    dead_letters_topic,
    engine_state_topic,
)

__all__ = [
    "PartitionSurvey",
    "bounds",
    "live_rows",
    "refuse_if_unfit",
    "refuse_members",
    "survey",
    "unavailable",
]

_TIMEOUT_S = 15.0

_TOPICS = (attempts_topic, dead_letters_topic, engine_state_topic, batch_abilities_topic)

_STOPPED_ROLES = ("engine", "calibrator")
"""Roles that must not run: engines hold the state, and a calibrator would take totals that begin
anew for news."""


@dataclass(frozen=True, slots=True)
class PartitionSurvey:
    """One partition of the log, and what the engines made of it.

    Attributes
    ----------
    number
        Of the partition.
    log_begin, log_end
        First offset of ``attempts`` there, and one past the last.
    begins_at_ms
        Timestamp of the first record (epoch ms), where the log does not begin at 0; else None.
    rows, learners
        Live rows of the state, all and those of learners.
    position
        How far it was folded.
    dead_letters
        Offsets in use in ``attempts.dlq``; commit markers count too.
    """

    number: int
    log_begin: int
    log_end: int
    begins_at_ms: int | None
    rows: int
    learners: int
    position: Position
    dead_letters: int


def survey(settings: Settings) -> list[PartitionSurvey]:
    """Look at every partition; nothing is changed.

    Raises
    ------
    TopicMismatchError
        A topic is missing or has another number of partitions than the settings say.
    BrokerUnavailableError
        Kafka does not answer.
    """
    for state in describe_topics(settings, _TOPICS):
        if state.partitions != state.wanted_partitions:
            raise TopicMismatchError(f"Topic {state.name} {state.problem}. Nothing was changed.")
    consumer = new_consumer(settings)
    try:
        return [_survey_partition(settings, consumer, n) for n in range(settings.partitions)]
    except KafkaException as error:
        raise unavailable(settings, error) from error
    finally:
        consumer.close()


def refuse_if_unfit(settings: Settings, partitions: Iterable[PartitionSurvey]) -> None:
    """Refuse a rebuild that is not safe, or that would lose what the log no longer holds.

    Raises
    ------
    StreamError
        An engine or calibrator is running, or the log is not whole. Nothing was changed.
    """
    refuse_members(settings)
    topic = settings.topic(attempts_topic.name)
    cut, foreign = [], []
    for one in partitions:
        if one.log_begin > 0:
            since = "is empty" if one.begins_at_ms is None else f"begins {_shown(one.begins_at_ms)}"
            cut.append(f"partition {one.number} has lost its first {one.log_begin:,} and {since}")
        elif one.position.attempts >= one.log_end:
            foreign.append(
                f"partition {one.number} was folded up to offset {one.position.attempts:,}, "
                f"its log ends at {one.log_end:,}"
            )
    if cut:
        raise StreamError(
            f"Topic {topic} no longer holds all records (retention, or a deletion): "
            f"{'; '.join(cut)}. What they added to learners and totals would be lost. Nothing was "
            "changed: the state still counts them. To make it anew all the same, send the whole "
            "log, from the platform's own records, to topics under a new THETASTREAM_TOPIC_PREFIX."
        )
    if foreign:
        raise StreamError(
            f"Topic {topic} is not the log that the state was folded from: {'; '.join(foreign)}. "
            "Nothing was changed: the state still counts what it has folded. Send the whole log "
            "to topics under a new THETASTREAM_TOPIC_PREFIX."
        )


def refuse_members(settings: Settings) -> None:
    """Refuse while an engine or calibrator is a member of its group.

    Raises
    ------
    StreamError
        One is.
    BrokerUnavailableError
        Kafka does not answer.
    """
    admin = AdminClient(client_config(settings))
    for role in _STOPPED_ROLES:
        group = settings.topic(f"thetastream-{role}")
        try:
            described = admin.describe_consumer_groups([group], request_timeout=_TIMEOUT_S)
            members = described[group].result().members
        except KafkaException as error:
            raise unavailable(settings, error) from error
        if members:
            hosts = ", ".join(sorted({member.host.lstrip("/") for member in members}))
            raise StreamError(
                f"{len(members)} member(s) of the group {group} are running, on {hosts}. Nothing "
                f"was changed. Stop every {role} (one that was killed counts for another "
                f"{settings.session_timeout_secs:.0f} s) and run it again."
            )


def live_rows(settings: Settings, number: int) -> tuple[Position, set[bytes]]:
    """Return the position and the keys of all rows of a partition's state.

    A position that cannot be read counts as none: a state of another release is one of the reasons
    to make it anew.
    """
    keys: set[bytes] = set()
    position = Position()

    def take(records: list[Record]) -> None:
        nonlocal position
        for record in records:
            key, value = record.key() or b"", record.value()
            if value is None:
                keys.discard(key)
            else:
                keys.add(key)
                if key == POSITION_KEY:
                    position = _position(value)

    read_whole(settings, {engine_state_topic.name: take}, partitions=[number])
    return position, keys


def _position(value: bytes) -> Position:
    try:
        return decode(value, Position)
    except msgspec.MsgspecError:
        return Position()


def bounds(settings: Settings, consumer: Consumer, spec: TopicSpec, number: int) -> tuple[int, int]:
    """Return the first offset of a partition, and one past the last.

    Raises
    ------
    KafkaException
        The broker does not answer.
    """
    place = TopicPartition(settings.topic(spec.name), number)
    return patiently(lambda: consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S))


def unavailable(settings: Settings, error: KafkaException) -> BrokerUnavailableError:
    """Return our error for one of Kafka's."""
    return BrokerUnavailableError(
        f"Kafka at {settings.kafka_broker} does not answer: {error}. No partition is left half "
        "forgotten; run it again."
    )


def _survey_partition(settings: Settings, consumer: Consumer, number: int) -> PartitionSurvey:
    begin, end = bounds(settings, consumer, attempts_topic, number)
    letters = bounds(settings, consumer, dead_letters_topic, number)
    position, keys = live_rows(settings, number)
    return PartitionSurvey(
        number=number,
        log_begin=begin,
        log_end=end,
        begins_at_ms=_first_timestamp(settings, number) if 0 < begin < end else None,
        rows=len(keys),
        learners=sum(key[:1] == b"L" for key in keys),
        position=position,
        dead_letters=letters[1] - letters[0],
    )


def _first_timestamp(settings: Settings, number: int) -> int | None:
    consumer = new_consumer(settings)
    try:
        consumer.assign([TopicPartition(settings.topic(attempts_topic.name), number, 0)])
        first = consumer.poll(_TIMEOUT_S)
        return None if first is None or first.error() is not None else first.timestamp()[1]
    finally:
        consumer.close()


def _shown(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")
