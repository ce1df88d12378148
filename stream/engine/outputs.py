"""A learner's abilities as lookups and outputs tell them."""

from __future__ import annotations

from math import sqrt

from schemas.outputs import TopicTheta
from stream.domain import ability
from stream.engine.learner import Learner

__all__ = ["topic_thetas"]


def topic_thetas(learner: Learner) -> list[TopicTheta]:
    """Return the learner's ability in each topic."""
    rows = []
    for topic in learner.topics:
        theta, variance = ability.topic_ability(learner.g, learner.vg, topic.d0, topic.s, topic.r)
        rows.append(
            TopicTheta(topic.topic_id, theta, sqrt(variance), topic.attempts, topic.latest_ms)
        )
    return rows
