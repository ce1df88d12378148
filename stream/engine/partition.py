"""One owned partition: its state, its fenced producer, and what waits for a flush."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from faust.types import EventT

from stream.engine.state import PartitionState
from stream.kafka.transaction import TransactionalPublisher

__all__ = ["Partition", "offsets_of"]


def offsets_of(state: PartitionState) -> dict[str, int]:
    """Return how far a state has folded each input."""
    return {"attempts": state.position.attempts, "abilities": state.position.abilities}


class Partition:
    """One owned partition.

    Attributes
    ----------
    lock
        Held while folding a slice or encoding a flush.
    unacknowledged
        Batches of Faust in order, acknowledged when a flush has covered them.
    revoked
        Nothing is folded any more.
    closing
        Its regular flushes are to end.
    committed
        Input -> last offset that a committed flush covers.
    torn
        Folding or encoding broke off half-way: the state in memory must not be written. What was
        committed is whole; the next owner folds the rest again.
    """

    def __init__(self, state: PartitionState, publisher: TransactionalPublisher) -> None:
        self.state = state
        self.publisher = publisher
        self.lock = asyncio.Lock()
        self.flushing = asyncio.Lock()
        self.wake = asyncio.Event()
        self.flushed = asyncio.Event()
        self.unacknowledged: dict[str, deque[EventT[Any]]] = {
            "attempts": deque(),
            "abilities": deque(),
        }
        self.committed = offsets_of(state)
        self.watermark = state.position.stream_week
        self.revoked = False
        self.closing = False
        self.torn = False
        self.task: asyncio.Task[None] | None = None
        self.changed_since: float | None = None

    def acknowledge(self) -> None:
        """Acknowledge, in order, the batches that committed flushes cover."""
        for source, offset in self.committed.items():
            waiting = self.unacknowledged[source]
            while waiting and waiting[0].message.offset <= offset:
                waiting.popleft().ack()
