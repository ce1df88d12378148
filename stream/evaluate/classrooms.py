"""Simulated classrooms unlike the data the filter was tuned on: order only, no times.

``python -m stream.evaluate.classrooms`` prints the gain over Elo global + topic on each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream.domain.attempt_log import AttemptLog
from stream.evaluate.load import NamedLog
from stream.evaluate.protocols import OURS, REFERENCE, evaluate

__all__ = ["CLASSROOMS", "Classroom", "simulated"]


@dataclass(frozen=True, slots=True)
class Classroom:
    """What is simulated: a 2PL with topics, and what departs from it."""

    title: str
    learners: int = 300
    attempts: int = 60
    """Median a learner; log-normal with sd .6."""
    items: int = 300
    topics: int = 20
    topic_sd: float = 0.5
    """How much a learner's topics deviate (logits)."""
    mean: float = 0.5
    slope_sd: float = 0.3
    """Of log a."""
    learning: float = 0.0
    """Logits a unit of log(1 + attempts in the topic)."""
    memory: float = 0.0
    """Logits by which an item seen before is easier."""
    guess: float = 0.0
    slip: float = 0.0
    jump: float = 0.0
    """Logits everybody gains half-way."""
    few_items: bool = False
    """Whether a topic asks its first items mostly, again and again."""


CLASSROOMS = (
    Classroom("100 topics, 1,500 items, learning in topics", 700, 50, 1500, 100, learning=0.25),
    Classroom("80 topics, 300 attempts a learner", 250, 300, 1000, 80, mean=1.2, slope_sd=0.5),
    Classroom("40 items, each again and again", 150, 150, 40, 5, memory=0.8, few_items=True),
    Classroom("15 learners in all", 15, 300, 200, 10),
    Classroom("a guess is right in .3", attempts=80, items=400, guess=0.3),
    Classroom("guesses .2, slips .15", attempts=80, guess=0.2, slip=0.15),
    Classroom("half-way all jump by 1.5 logits", attempts=80, topics=10, jump=1.5),
    Classroom("topics that do not differ", attempts=40, topic_sd=0.0),
    Classroom("topics that deviate by sd 1.2", attempts=100, topics=8, topic_sd=1.2),
    Classroom("8,000 items, hardly one answered twice", 200, 40, 8000, 30),
    Classroom("6 attempts a learner", 1500, 6, 200),
    Classroom("some 700 attempts in all", 40, 20, 60, 5),
    Classroom("nearly all answers are right", mean=4.0),
)


def simulated(room: Classroom, seed: int = 0) -> NamedLog:
    """Draw a classroom's log; learners stay in a topic for some answers, then change."""
    rng = np.random.default_rng(seed)
    topic_of = rng.integers(0, room.topics, room.items)
    a = np.exp(rng.normal(0.0, room.slope_sd, room.items))
    b = rng.normal(0.0, 1.2, room.items) + rng.normal(0.0, 0.6, room.topics)[topic_of]
    of_topic = [items for t in range(room.topics) if len(items := np.flatnonzero(topic_of == t))]
    rows: list[tuple[int, int, int, bool]] = []
    for learner in range(room.learners):
        theta = rng.normal(room.mean) + rng.normal(0.0, room.topic_sd, room.topics)
        count = max(3, int(rng.lognormal(np.log(room.attempts), 0.6)))
        met, seen = np.zeros(room.topics), set[int]()
        t = int(rng.integers(len(of_topic)))
        for k in range(count):
            if rng.random() < 0.15:
                t = int(rng.integers(len(of_topic)))
            items = of_topic[t]
            place = rng.exponential(2.0) if room.few_items else rng.integers(len(items))
            item = int(items[min(int(place), len(items) - 1)])
            if item in seen and not room.few_items:
                continue
            topic = int(topic_of[item])
            x = a[item] * (theta[topic] - b[item]) + room.learning * np.log1p(met[topic])
            x += room.memory * (item in seen) + room.jump * (k >= count // 2)
            p = room.guess + (1.0 - room.guess - room.slip) / (1.0 + np.exp(-x))
            rows.append((learner, item, topic, bool(rng.random() < p)))
            met[topic] += 1
            seen.add(item)
    who, item_of, topic_at, correct = (np.array(column) for column in zip(*rows, strict=True))
    none = np.zeros(len(rows))
    log = AttemptLog(
        who, item_of, topic_at, correct, none, none, room.learners, room.items, room.topics
    )
    users = tuple(f"u{n}" for n in range(room.learners))
    return NamedLog(log, users, tuple(f"i{n}" for n in range(room.items)), has_times=False)


def main() -> None:
    """Print every classroom's gain."""
    for room in CLASSROOMS:
        found = evaluate(room.title, simulated(room), "learners", ablations=False)
        if found is None:
            continue
        rows = {row["method"]: row for row in found.rows}
        ours, reference = rows[OURS], rows[REFERENCE]
        print(  # noqa: T201  a report
            f"{room.title}: AUC {ours['auc'] - reference['auc']:+.4f}, "
            f"log-loss {reference['log_loss'] - ours['log_loss']:+.4f} ({ours['n']} attempts)"
        )


if __name__ == "__main__":
    main()
