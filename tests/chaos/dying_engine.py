"""An engine that dies between two tables' records of one flush.

Its producer kills the process when, with some flushes committed, the first record of
``topic-partials`` is due. The learners' rows of that flush are with the broker by then.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import confluent_kafka

from stream.kafka import clients
from stream.settings import Settings
from stream.worker import run_role

COMMITS_BEFORE = 3

_commits = 0


class DyingProducer(confluent_kafka.Producer):
    """Ends the process in the middle of a transaction."""

    def commit_transaction(self, *arguments: Any) -> None:
        global _commits
        super().commit_transaction(*arguments)
        _commits += 1

    def produce(self, topic: str, *arguments: Any, **options: Any) -> None:
        if topic.endswith("topic-partials") and _commits >= COMMITS_BEFORE:
            # What came before is to be on the broker, not in this process's memory.
            assert super().flush(30) == 0
            os.kill(os.getpid(), signal.SIGKILL)
        super().produce(topic, *arguments, **options)


if __name__ == "__main__":
    setattr(clients, "Producer", DyingProducer)  # noqa: B010 (it is not for others to import)
    run_role("engine", Settings.from_env())
