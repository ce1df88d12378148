"""An engine that dies between two tables' records of one flush.

Its producer kills the process when, with some flushes committed, the first record of
``topic-partials`` is due. The learners' rows of that flush are with the broker by then.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import confluent_kafka
import numpy.typing as npt

from stream.kafka import clients, transaction
from stream.kafka.packed import produce_packed
from stream.settings import Settings
from stream.worker import run_role

COMMITS_BEFORE = 3

_commits = 0


class CountingProducer(confluent_kafka.Producer):
    """Counts its commits."""

    def commit_transaction(self, *arguments: Any) -> None:
        global _commits
        super().commit_transaction(*arguments)
        _commits += 1


def produce_or_die(
    producer: confluent_kafka.Producer, topic: str, *arguments: Any
) -> npt.NDArray[Any]:
    """End the process in the middle of a transaction."""
    if topic.endswith("topic-partials") and _commits >= COMMITS_BEFORE:
        # What came before is to be on the broker, not in this process's memory.
        assert producer.flush(30) == 0
        os.kill(os.getpid(), signal.SIGKILL)
    return produce_packed(producer, topic, *arguments)


if __name__ == "__main__":
    # It is not for others to import.
    setattr(clients, "Producer", CountingProducer)  # noqa: B010
    setattr(transaction, "produce_packed", produce_or_die)  # noqa: B010
    run_role("engine", Settings.from_env())
