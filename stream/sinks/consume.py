"""From records to rows: the loop that every agent of the sink runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from stream.app import ThetaApp
from stream.sinks.metrics import SINK_RECORDS
from stream.sinks.pool import SinkDatabase
from stream.sinks.upsert import Batch
from topics.catalogue import TopicSpec

__all__ = ["Reader", "add_agent", "read_records"]

log = logging.getLogger(__name__)

Reader = Callable[[Any, Batch], None]
"""Puts the rows of one Kafka record into a batch; raises ValueError where it cannot be read."""


def read_records(records: Iterable[Any], read: Reader) -> Batch:
    """Return the rows of some records of one partition, in offset order.

    A record without a value (a tombstone) has none.
    """
    batch = Batch()
    for record in records:
        if record.value is None:
            continue
        try:
            read(record, batch)
        except (msgspec.MsgspecError, ValueError) as error:
            batch.refuse(record, f"{type(error).__name__}: {error}")
    return batch


def add_agent(app: ThetaApp, database: SinkDatabase, spec: TopicSpec, read: Reader) -> None:
    """Add the agent that writes a topic's rows.

    Its stream acknowledges by hand and in order, after the rows are committed. ``write`` waits
    out whatever ails the database, so nothing but a cancellation leaves the loop: Faust would
    acknowledge and skip the batch in which an agent fails.
    """

    async def write_rows(stream: Any) -> None:
        acknowledging = stream.noack()
        async for event in acknowledging.events():
            await database.write(read_records(event.value, read))
            # The stream's ack, not the event's: it also tells Faust's sensors.
            await acknowledging.ack(event)
            SINK_RECORDS.labels(topic=spec.name).inc(len(event.value))

    app.agent(app.batches(spec), name=f"sink-{spec.name}")(write_rows)
