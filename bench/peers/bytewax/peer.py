"""The smaller job in Bytewax with its usual operators, snapshots in its recovery store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from small_job import PRIOR, Job, Row, updated

job = Job.from_argument()
began = False
theta_sum = 0.0


def parse(message: KafkaSourceMessage[bytes, bytes]) -> dict[str, Any]:
    """Return the attempt of a message."""
    global began
    if not began:
        began = True
        job.begin()
    return orjson.loads(message.value)


def fold(row: Row | None, attempt: dict[str, Any]) -> tuple[Row, None]:
    """Fold one attempt into its learner's row."""
    global theta_sum
    before = row or PRIOR
    after = updated(before, attempt["correct"])
    theta_sum += after[2] - before[2]
    return after, None


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

attempts = op.map("parse", messages, parse)
keyed = op.key_on("key", attempts, lambda attempt: attempt["user_id"])
op.output("nowhere", op.stateful_map("fold", keyed, fold), Nowhere())

if __name__ == "__main__":
    init_db_dir(job.directory, 1)
    cli_main(
        flow,
        epoch_interval=timedelta(seconds=10),
        recovery_config=RecoveryConfig(job.directory, timedelta(seconds=0)),
    )
    # Its sources stop at the end of the topic; the last snapshot is written by then.
    job.end(theta_sum)
