"""A decoded learner that is folded into directly."""

from __future__ import annotations

from stream.domain import ability
from stream.engine.learner import Learner as Decoded
from stream.engine.learner import Topic

__all__ = ["Learner", "Topic"]


class Learner(Decoded):
    """A learner, and what has to be known of it between two flushes.

    Attributes
    ----------
    changed_days
        Days with a change since the last flush.
    published_latest_ms
        ``latest_ms`` at the last flush.
    """

    __slots__ = ("_known", "changed_days", "published_latest_ms", "topic_index")

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id)
        self.topic_index: dict[str, int] = {}
        self.changed_days: set[int] = set()
        self.published_latest_ms = 0
        self._known: set[bytes] | None = None

    def known_attempts(self) -> set[bytes]:
        """Return the hashes of all stored attempts, voids and regrades; add new ones to it."""
        if self._known is None:
            self._known = {one for day in self.days.values() for one in day.hashes()}
        return self._known

    def topic(self, topic_id: str) -> int:
        """Return the index of a topic, adding it when new."""
        index = self.topic_index.get(topic_id)
        if index is None:
            index = self.topic_index[topic_id] = len(self.topics)
            self.topics.append(Topic(topic_id))
        return index

    def rebase(self, shift: float) -> None:
        """Move every ability, past snapshots included, by ``shift`` logits."""
        self.g += shift
        self.shift += shift
        for topic in self.topics:
            topic.d0 = ability.rebase_topic(topic.d0, topic.s, shift)

    def snapshot_at(self, day: int) -> float | None:
        """Return the global ability at the end of the last stored day at or before ``day``."""
        past = [number for number in self.days if number <= day]
        return self.days[max(past)].theta + self.shift if past else None
