"""``theta-updates`` into student_topic_theta and the live rows of mirt_ability."""

from __future__ import annotations

from typing import Any

from schemas.codec import decode
from schemas.outputs import ThetaUpdate
from stream.settings import Settings
from stream.sinks.consume import Reader
from stream.sinks.upsert import Batch, Column, Table

__all__ = ["LIVE", "mirt_ability", "student_topic_theta", "theta_reader"]

LIVE = "live"
"""The version in mirt_ability of the row that follows the stream."""

_ABILITY = (
    Column("theta", "real"),
    Column("se", "real"),
    Column("model", "text"),
    Column("fitted_at", "ms"),
    Column("last_attempt_at", "ms"),
    Column("source_partition", "int"),
    Column("source_offset", "int"),
    Column("params_version", "text"),
)

mirt_ability = Table(
    "mirt_ability",
    key=(Column("user_id", "text"), Column("version", "text")),
    columns=_ABILITY,
    computed="fitted_at",
)
student_topic_theta = Table(
    "student_topic_theta",
    key=(Column("user_id", "text"), Column("topic_id", "text")),
    columns=(*_ABILITY, Column("version", "text")),
    computed="fitted_at",
)


def theta_reader(settings: Settings) -> Reader:
    """Return the reader of ``theta-updates``.

    ``model`` is the one configured; ``version`` of a topic row is the item-parameter version its
    theta was made with.
    """
    model = settings.mirt_model

    def read(record: Any, batch: Batch) -> None:
        update = decode(record.value, ThetaUpdate)
        user, made_at, params = update.user_id, update.computed_at, update.params_version
        source = (update.source_partition, update.source_offset, params)
        batch.add(
            mirt_ability,
            (user, LIVE, update.theta, update.se, model, made_at, update.last_attempt_at, *source),
            record,
        )
        for topic in update.topics:
            batch.add(
                student_topic_theta,
                (
                    *(user, topic.topic_id, topic.theta, topic.se, model),
                    *(made_at, topic.last_attempt_at, *source, params),
                ),
                record,
            )

    return read
