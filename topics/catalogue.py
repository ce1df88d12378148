"""Every Kafka topic, in the order the data walks through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.attempt import AttemptEvent
from schemas.calibration import (
    BatchAbility,
    CalibrationRequest,
    CalibrationResult,
    ItemParamsRecord,
)
from schemas.outputs import (
    FeatureUpdate,
    ItemPartial,
    KpiUpdate,
    ThetaUpdate,
    TopicPartial,
    Watermark,
)

__all__ = ["CATALOGUE", "TopicSpec"]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One Kafka topic.

    Attributes
    ----------
    name
        Without the installation's prefix.
    key
        What the key is.
    partitions
        A fixed number, or ``learners``: the setting THETASTREAM_PARTITIONS, the same for every
        topic keyed by learner so that a learner's rows share a partition number.
    cleanup
        ``delete`` after ``retention_days``, or ``compact`` to the newest row a key.
    record
        Record class of the value, or None for raw bytes.
    max_message_bytes
        Largest record batch the broker takes.
    """

    name: str
    key: str
    partitions: int | Literal["learners"]
    cleanup: Literal["delete", "compact"]
    record: type | None
    about: str
    retention_days: int | None = None
    max_message_bytes: int = 2 * _MIB

    def config(self) -> dict[str, str]:
        """Return the topic's configuration for the broker."""
        config = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_message_bytes),
        }
        if self.retention_days is not None:
            config["retention.ms"] = str(self.retention_days * 86_400_000)
        return config


attempts_topic = TopicSpec(
    "attempts",
    "user_id",
    "learners",
    "delete",
    AttemptEvent,
    "answers, and corrections of answers",
    retention_days=90,
)
dead_letters_topic = TopicSpec(
    "attempts.dlq",
    "as it came",
    "learners",
    "delete",
    None,
    "records that cannot be counted: the original bytes, why and whence in headers",
    retention_days=90,
    max_message_bytes=4 * _MIB,
)
engine_state_topic = TopicSpec(
    "engine-state",
    "kind and id of a state row",
    "learners",
    "compact",
    None,
    "the engine's rows: learners, days, partials and how far attempts were folded",
)
theta_updates_topic = TopicSpec(
    "theta-updates",
    "user_id",
    "learners",
    "compact",
    ThetaUpdate,
    "a learner's abilities, whole",
)
feature_updates_topic = TopicSpec(
    "feature-updates",
    "user_id",
    "learners",
    "delete",
    FeatureUpdate,
    "changed rows of features_topic_daily",
    retention_days=14,
)
kpi_updates_topic = TopicSpec(
    "kpi-updates",
    "user_id",
    "learners",
    "delete",
    KpiUpdate,
    "changed rows of weekly_kpi",
    retention_days=14,
)
topic_partials_topic = TopicSpec(
    "topic-partials",
    "partition|topic_id",
    4,
    "compact",
    TopicPartial,
    "absolute totals a topic and attempts partition",
)
item_partials_topic = TopicSpec(
    "item-partials",
    "partition|item_id",
    4,
    "compact",
    ItemPartial,
    "absolute totals an item and attempts partition",
)
watermarks_topic = TopicSpec(
    "watermarks",
    "partition",
    1,
    "compact",
    Watermark,
    "latest week with an attempt, an attempts partition each",
)
calibration_requests_topic = TopicSpec(
    "calibration-requests",
    "kind",
    1,
    "delete",
    CalibrationRequest,
    "requests for a calibration or a model, with their reason",
    retention_days=30,
)
calibration_results_topic = TopicSpec(
    "calibration-results",
    "request_id",
    1,
    "delete",
    CalibrationResult,
    "learners in parts, then the result of each request",
    retention_days=30,
    max_message_bytes=16 * _MIB,
)
item_params_topic = TopicSpec(
    "item-params",
    "item_id",
    1,
    "compact",
    ItemParamsRecord,
    "item parameters in force; a manifest ends each version",
)
batch_abilities_topic = TopicSpec(
    "batch-abilities",
    "user_id",
    "learners",
    "delete",
    BatchAbility,
    "abilities of an applied calibration, to rebase live thetas",
    retention_days=30,
)

CATALOGUE: tuple[TopicSpec, ...] = (
    attempts_topic,
    dead_letters_topic,
    engine_state_topic,
    theta_updates_topic,
    feature_updates_topic,
    kpi_updates_topic,
    topic_partials_topic,
    item_partials_topic,
    watermarks_topic,
    calibration_requests_topic,
    calibration_results_topic,
    item_params_topic,
    batch_abilities_topic,
)
"""All topics in pipeline order."""
