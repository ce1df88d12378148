"""Attempts as columns of numbers: what learners are followed through and items are fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.domain.irt import FloatArray

__all__ = ["AttemptLog"]

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """Attempts with learners, items and topics numbered, sorted by learner, then order.

    Attributes
    ----------
    learner, item
        (n,) int64 indices.
    topic
        (n,) int64 indices, -1 = no topic.
    correct
        (n,) bool.
    start_s, end_s
        (n,) float64 seconds since 1970 when the item was put and answered; 0 = not known.
    n_learners, n_items, n_topics
        Ends of the three ranges of indices.
    """

    learner: IntArray
    item: IntArray
    topic: IntArray
    correct: NDArray[np.bool_]
    start_s: FloatArray
    end_s: FloatArray
    n_learners: int
    n_items: int
    n_topics: int

    def __len__(self) -> int:
        return len(self.learner)

    def where(self, keep: NDArray[np.bool_]) -> AttemptLog:
        """Return the attempts where ``keep`` (n,) is true, numbered as before."""
        return AttemptLog(
            self.learner[keep],
            self.item[keep],
            self.topic[keep],
            self.correct[keep],
            self.start_s[keep],
            self.end_s[keep],
            self.n_learners,
            self.n_items,
            self.n_topics,
        )
