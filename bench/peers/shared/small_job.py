"""The smaller job that the peers do, and how a peer tells the bench where it is.

Needs the standard library only: each peer imports it in an environment of its own.

A peer is started with one argument, a JSON object (see :class:`Job`). It prints ``begin`` when
the first attempt reaches its code and ``end`` when the state after the last one is durable, then
waits for the end of its standard input, so that the bench can read the process's counters.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from math import exp

__all__ = ["PRIOR", "Job", "Row", "updated"]

Row = tuple[int, int, float, float]
"""A learner: attempts, correct ones, theta (logits), its variance."""

PRIOR: Row = (0, 0, 0.0, 1.0)


def updated(row: Row, correct: bool) -> Row:
    """Return a learner's row after one more attempt: one step of an extended Kalman filter.

    The item is an average one (a = 1, b = 0, c = 0), since a table of item parameters is not
    part of the smaller job.
    """
    attempts, right, theta, variance = row
    p = 1.0 / (1.0 + exp(-theta))
    variance = 1.0 / (1.0 / variance + p * (1.0 - p))
    return attempts + 1, right + correct, theta + variance * (correct - p), variance


@dataclass(frozen=True)
class Job:
    """What the bench asks of a peer.

    Attributes
    ----------
    broker
        Bootstrap server.
    topic
        Where the attempts are.
    name
        Of the consumer group or application: not used before.
    events
        Attempts to fold before the end.
    partitions
        Of the topic.
    directory
        An empty directory for state.
    """

    broker: str
    topic: str
    name: str
    events: int
    partitions: int
    directory: str

    @classmethod
    def from_argument(cls) -> Job:
        """Read the job from the command line."""
        return cls(**json.loads(sys.argv[1]))

    def begin(self) -> None:
        """Tell that the first attempt has arrived."""
        _tell("begin")

    def end(self, theta_sum: float | None) -> None:
        """Tell that everything is folded and durable, then wait until the bench has looked.

        Parameters
        ----------
        theta_sum
            Sum of all learners' theta, by which the bench checks the state; None where nothing
            is folded.
        """
        _tell(f"end {json.dumps({'theta_sum': theta_sum})}")
        sys.stdin.read()


def _tell(line: str) -> None:
    """Print a line of its own, whatever the engine has printed or redirected before."""
    print(f"\n{line}", file=sys.__stdout__, flush=True)
