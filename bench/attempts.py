"""The topic that every engine reads: seeded attempts, written once a population."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from bench.peers.shared.small_job import PRIOR, updated
from stream.kafka.clients import client_config, new_producer
from stream.settings import Settings

__all__ = ["PARTITIONS", "POPULATIONS", "QUICK", "Attempts", "Population", "draw", "write"]

PARTITIONS = 4
"""Of the attempts topic, for every engine."""

FIRST_DAY_MS = 1_756_684_800_000
"""Monday 2025-09-01, UTC. Fixed, so that every run folds the same bytes."""

_DAY_MS = 86_400_000
_ITEMS = 500
_TOPICS = 6
_SESSION_ATTEMPTS = 8
_AT_ONCE = 20_000


@dataclass(frozen=True)
class Population:
    """Who practises how much.

    Attributes
    ----------
    attempts, learners
        How many; every learner has at least one attempt.
    days
        Over how many days. A large population takes fewer: a million learners with two attempts
        each is what a big school system sends in a week, not in a month.
    """

    attempts: int
    learners: int
    days: int


POPULATIONS = (Population(2_000_000, 20_000, 28), Population(2_000_000, 1_000_000, 7))
QUICK = (Population(300_000, 20_000, 28),)


@dataclass(frozen=True)
class Attempts:
    """Columns of attempts in event order, one entry an attempt.

    Attributes
    ----------
    learner, item
        Numbers from 0 (attempts,) int64.
    correct
        (attempts,) bool.
    response_ms, completed_ms
        Response time in ms, and event time in epoch ms (attempts,) int64.
    session
        (attempts,) int64.
    """

    learner: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    correct: npt.NDArray[np.bool_]
    response_ms: npt.NDArray[np.int64]
    completed_ms: npt.NDArray[np.int64]
    session: npt.NDArray[np.int64]

    def records(self, seed: int = 1) -> Iterator[list[tuple[str, str]]]:
        """Yield (key, JSON) pairs, some thousands at a time."""
        ids = np.random.default_rng(seed)
        for start in range(0, len(self.learner), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            learners = self.learner[part].tolist()
            digits = ids.bytes(16 * len(learners)).hex()
            columns = zip(
                learners,
                self.item[part].tolist(),
                self.correct[part].tolist(),
                self.response_ms[part].tolist(),
                self.completed_ms[part].tolist(),
                self.session[part].tolist(),
                range(0, len(digits), 32),
                strict=True,
            )
            yield [
                (
                    (user := f"learner-{learner:07d}"),
                    f'{{"attempt_id":"{digits[at : at + 32]}","user_id":"{user}",'
                    f'"item_id":"item-{item:03d}","topic_id":"topic-{item % _TOPICS}",'
                    f'"correct":{"true" if correct else "false"},"response_time_ms":{response},'
                    f'"hint_used":false,"attempt_no":1,"completed_at":{completed},'
                    f'"session_id":"session-{session:07d}","schema_version":1}}',
                )
                for learner, item, correct, response, completed, session, at in columns
            ]

    def theta_sum(self) -> float:
        """Return the sum of all learners' theta after the small job, to check an engine by."""
        rows = [PRIOR] * (int(self.learner.max()) + 1)
        for learner, correct in zip(self.learner.tolist(), self.correct.tolist(), strict=True):
            rows[learner] = updated(rows[learner], correct)
        return math.fsum(row[2] for row in rows)


def draw(population: Population, seed: int = 20_250_901) -> Attempts:
    """Draw a population's attempts; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    n, learners = population.attempts, population.learners
    weight = rng.lognormal(0.0, 0.7, learners)
    counts = 1 + rng.multinomial(n - learners, weight / weight.sum())
    learner = np.repeat(np.arange(learners), counts)

    opens = rng.random(n) < 1 / _SESSION_ATTEMPTS
    opens[np.flatnonzero(np.diff(learner, prepend=-1))] = True
    session = np.cumsum(opens) - 1
    sessions = int(session[-1]) + 1
    day = rng.integers(0, population.days, sessions)
    hour = np.clip(rng.normal(14.0, 3.0, sessions), 6.0, 21.0)
    starts = FIRST_DAY_MS + day * _DAY_MS + (hour * 3_600_000).astype(np.int64)

    # Four attempts in five stay in the session's topic.
    focus = rng.integers(0, _TOPICS, sessions)[session]
    inside = focus + _TOPICS * rng.integers(0, _ITEMS // _TOPICS, n)
    item = np.where(rng.random(n) < 0.8, inside, rng.integers(0, _ITEMS, n))
    ability = rng.normal(0.0, 1.0, learners)[learner]
    difficulty = rng.normal(0.0, 1.0, _ITEMS)[item]
    correct = rng.random(n) < 1 / (1 + np.exp(difficulty - ability))

    response_ms = (np.clip(np.exp(rng.normal(2.6, 0.6, n)), 1.0, 600.0) * 1000).astype(np.int64)
    elapsed = np.cumsum(response_ms + rng.exponential(4_000, n).astype(np.int64))
    completed = starts[session] + elapsed - elapsed[opens][session]

    # A topic is in the order of time over all learners, as a platform would send.
    order = np.argsort(completed, kind="stable")
    return Attempts(
        learner[order],
        item[order],
        correct[order],
        response_ms[order],
        completed[order],
        session[order],
    )


def write(settings: Settings, attempts: Attempts) -> None:
    """Make the attempts topic of an installation and fill it.

    Parameters
    ----------
    settings
        With a prefix of its own; the topic must not exist.
    attempts
        What to write.
    """
    topic = settings.topic("attempts")
    admin = AdminClient(client_config(settings))
    config = {"cleanup.policy": "delete", "retention.ms": "-1"}
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result(30)
    # Idempotent, as all our producers: without it a request repeated right after the topic was
    # made changes the order, and with it every engine's thetas.
    producer = new_producer(settings, **{"linger.ms": 20, "batch.num.messages": 20_000})
    for records in attempts.records():
        for key, value in records:
            while True:
                try:
                    producer.produce(topic, value, key)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    if producer.flush(120):
        raise KafkaException("the attempts could not all be written")
