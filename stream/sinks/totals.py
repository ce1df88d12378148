"""``topic-partials`` and ``item-partials`` into the tables whose sums are the totals."""

from __future__ import annotations

from typing import Any

from schemas.codec import decode
from schemas.outputs import ItemPartial, TopicPartial
from stream.sinks.upsert import Batch, Column, Table

__all__ = ["item_partials", "read_item_partial", "read_topic_partial", "topic_partials"]

topic_partials = Table(
    "topic_partials",
    key=(Column("topic_id", "text"), Column("partition", "int")),
    columns=(
        Column("attempts", "int"),
        Column("correct", "int"),
        Column("learners", "int"),
        Column("source_offset", "int"),
    ),
)
item_partials = Table(
    "item_partials",
    key=(Column("item_id", "text"), Column("partition", "int")),
    columns=(
        Column("attempts", "int"),
        Column("correct", "int"),
        Column("expected", "real"),
        Column("variance", "real"),
        Column("source_offset", "int"),
    ),
)


def read_topic_partial(record: Any, batch: Batch) -> None:
    """Put one partition's totals of a topic into a batch."""
    p = decode(record.value, TopicPartial)
    batch.add(
        topic_partials,
        (p.topic_id, p.partition, p.attempts, p.correct, p.learners, p.source_offset),
        record,
    )


def read_item_partial(record: Any, batch: Batch) -> None:
    """Put one partition's totals of an item into a batch."""
    p = decode(record.value, ItemPartial)
    batch.add(
        item_partials,
        (
            *(p.item_id, p.partition, p.attempts, p.correct),
            *(p.expected, p.variance, p.source_offset),
        ),
        record,
    )
