"""The smaller job in Bytewax with its operators for batches, the fastest way we found.

Two functions a batch in place of three a message; otherwise as ``peer.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from small_job import PRIOR, Job, Row, updated

job = Job.from_argument()
began = False
theta_sum = 0.0


def parse(messages: list[KafkaSourceMessage[bytes, bytes]]) -> Iterable[tuple[str, bool]]:
    """Return user_id and correct of each message."""
    global began
    if not began:
        began = True
        job.begin()
    loads = orjson.loads
    attempts = [loads(message.value) for message in messages]
    return [(attempt["user_id"], attempt["correct"]) for attempt in attempts]


class Learner(StatefulBatchLogic[bool, None, Row]):
    """One learner."""

    __slots__ = ("row",)

    def __init__(self, row: Row | None) -> None:
        self.row = row or PRIOR

    def on_batch(self, values: list[bool]) -> tuple[Iterable[None], bool]:
        """Fold the attempts of one batch."""
        global theta_sum
        row = before = self.row
        for correct in values:
            row = updated(row, correct)
        self.row = row
        theta_sum += row[2] - before[2]
        return (), self.RETAIN

    def snapshot(self) -> Row:
        """Return what the recovery store keeps."""
        return self.row


class Nowhere(DynamicSink[Any]):
    """Every dataflow ends in a sink; the result of this one is its state."""

    def build(self, *_: object) -> StatelessSinkPartition[Any]:
        """Return a sink that drops what it gets."""
        return NowherePartition()


class NowherePartition(StatelessSinkPartition[Any]):
    """See :class:`Nowhere`."""

    def write_batch(self, items: list[Any]) -> None:
        """Drop items; there are none."""


flow = Dataflow("learners")
messages = op.input("attempts", flow, KafkaSource([job.broker], [job.topic], tail=False))
keyed = op.flat_map_batch("parse", messages, parse)
op.output("nowhere", op.stateful_batch("fold", keyed, Learner), Nowhere())

if __name__ == "__main__":
    init_db_dir(job.directory, 1)
    cli_main(
        flow,
        epoch_interval=timedelta(seconds=10),
        recovery_config=RecoveryConfig(job.directory, timedelta(seconds=0)),
    )
    # Its sources stop at the end of the topic; the last snapshot is written by then.
    job.end(theta_sum)
