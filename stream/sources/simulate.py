"""A seeded school: learners who grow, sessions, late and repeated records, and the known truth.

Everything is drawn at once with numpy, in three steps: the truth (abilities, items), the
attempts in event time, and the records in the order of their arrival. The same configuration
gives the same school, byte for byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.sources.school import DAY_MS, WEEK_MS, School, SchoolConfig

__all__ = ["School", "SchoolConfig", "simulate"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def simulate(config: SchoolConfig) -> School:
    """Simulate a school.

    Parameters
    ----------
    config
        What kind of school.

    Returns
    -------
    School
        The same for the same configuration.
    """
    rng = np.random.default_rng(config.seed)
    item_topic = np.arange(config.items) % config.topics
    truth = {
        "theta_start": rng.standard_normal(config.learners),
        "growth": config.growth * (1 + 0.5 * rng.standard_normal(config.learners)),
        "topic_deviation": config.topic_sd * rng.standard_normal((config.learners, config.topics)),
        "item_a": np.exp(0.25 * rng.standard_normal(config.items)),
        "item_b": np.clip(rng.standard_normal(config.items), -2.5, 2.5),
    }
    anchors = _choose_anchors(truth["item_a"], truth["item_b"], config.anchors)

    learner, session_first, starts = _sessions(config, rng)
    session = np.cumsum(session_first) - 1
    item = _items(config, rng, session)
    topic_of_item = item_topic[item]

    # Ability within a session moves by less than a thousandth of a logit: taken at its start.
    weeks = (starts[session] - config.start_ms) / WEEK_MS
    theta = (
        truth["theta_start"][learner]
        + truth["growth"][learner] * weeks
        + truth["topic_deviation"][learner, topic_of_item]
    )
    logit = truth["item_a"][item] * (theta - truth["item_b"][item])
    correct = rng.random(len(item)) < 1 / (1 + np.exp(-logit))
    hint = rng.random(len(item)) < np.where(correct, 0.04, 0.14)

    time_ms = _response_times(config, rng, learner, item, correct)
    completed = _completion_times(rng, time_ms, session, session_first, starts)
    time_ms[rng.random(len(item)) < config.share_null_time] = -1
    topic = np.where(rng.random(len(item)) < config.share_null_topic, -1, topic_of_item)

    # Attempts are numbered in event time over the whole school.
    order = np.argsort(completed, kind="stable")
    drawn = {
        "learner": learner[order],
        "item": item[order],
        "attempt": np.arange(1, config.attempts + 1),
        "op": np.zeros(config.attempts, dtype=np.int64),
        "correct": correct[order],
        "hint": hint[order],
        "topic": topic[order],
        "response_time_ms": time_ms[order],
        "session": session[order],
        "completed_ms": completed[order],
    }
    return School(
        config=config,
        item_topic=item_topic,
        anchors=anchors,
        **truth,
        **_arrivals(config, rng, drawn),
    )


def _choose_anchors(a: Floats, b: Floats, count: int) -> Ints:
    """Informative items of middling difficulty first, spread evenly over it."""
    by_quality = np.argsort(np.where((np.abs(b) <= 1.5) & (a >= 0.7), 0, np.abs(b)), kind="stable")
    good = int(np.count_nonzero((np.abs(b) <= 1.5) & (a >= 0.7)))
    pool = by_quality[: max(count, good)]
    pool = pool[np.argsort(b[pool], kind="stable")]
    picked: Ints = pool[np.linspace(0, len(pool) - 1, count).round().astype(np.int64)]
    return np.sort(picked)


def _sessions(config: SchoolConfig, rng: np.random.Generator) -> tuple[Ints, Any, Floats]:
    """Draw who practises when.

    Returns
    -------
    tuple
        learner of each attempt (attempts,), ascending; whether it opens a session (attempts,);
        start of each session, epoch ms (sessions,).
    """
    n = config.learners
    # A heavy tail of activity: the busiest percent does about a tenth of everything.
    weight = rng.lognormal(0.0, 0.9, n)
    counts = rng.multinomial(config.attempts, weight / weight.sum())
    learner = np.repeat(np.arange(n), counts)

    # First and last day: three in ten come late, one in four leaves early.
    late_start = rng.random(n) < 0.3
    first_day = np.where(late_start, rng.random(n) * 0.6 * config.days, rng.random(n) * 3)
    early_stop = rng.random(n) < 0.25
    last_day = np.where(early_stop, first_day + rng.random(n) * (config.days - first_day), 1e9)
    last_day = np.clip(last_day, first_day + 1, config.days)
    first_day = np.clip(first_day, 0, last_day - 1)

    opens = rng.random(len(learner)) < 1 / config.session_attempts
    opens[np.flatnonzero(np.diff(learner, prepend=-1))] = True
    of = learner[opens]
    day = np.floor(first_day[of] + rng.random(len(of)) * (last_day[of] - first_day[of]))
    day = np.clip(day, 0, config.days - 1)
    hour = np.clip(rng.normal(16.0, 3.0, len(of)), 6.0, 22.5)
    starts = config.start_ms + day * DAY_MS + hour * 3_600_000
    return learner, opens, starts


def _items(config: SchoolConfig, rng: np.random.Generator, session: Ints) -> Ints:
    """Four attempts in five stay in the session's topic, the fifth is on any item."""
    session_topic = rng.integers(0, config.topics, int(session[-1]) + 1)[session]
    # Topic t holds the items t, t + topics, t + 2 topics, ...
    size = (config.items - session_topic + config.topics - 1) // config.topics
    inside = session_topic + config.topics * np.floor(rng.random(len(session)) * size).astype(
        np.int64
    )
    anywhere = rng.integers(0, config.items, len(session))
    drawn: Ints = np.where(rng.random(len(session)) < 0.8, inside, anywhere)
    return drawn


def _response_times(
    config: SchoolConfig,
    rng: np.random.Generator,
    learner: Ints,
    item: Ints,
    correct: Flags,
) -> Ints:
    """Lognormal, by the learner's pace and the item's length; a quarter slower when wrong."""
    pace = 0.3 * rng.standard_normal(config.learners)
    length = 0.35 * rng.standard_normal(config.items)
    log_seconds = np.log(14) + pace[learner] + length[item]
    log_seconds = log_seconds + 0.4 * rng.standard_normal(len(item))
    seconds = np.exp(log_seconds) * np.where(correct, 1.0, 1.25)
    time_ms: Ints = (np.clip(seconds, 0.8, 900) * 1000).astype(np.int64)
    return time_ms


def _completion_times(
    rng: np.random.Generator,
    time_ms: Ints,
    session: Ints,
    session_first: Flags,
    starts: Floats,
) -> Ints:
    """Let attempts of a session follow each other with short pauses, now and then a long one."""
    pause = rng.exponential(4_000, len(time_ms))
    pause += np.where(rng.random(len(time_ms)) < 0.01, rng.exponential(1_800_000, len(time_ms)), 0)
    elapsed = np.cumsum(time_ms + pause)
    before = (elapsed - time_ms)[session_first]
    completed: Ints = (starts[session] + elapsed - before[session]).astype(np.int64)
    return completed


def _arrivals(
    config: SchoolConfig, rng: np.random.Generator, drawn: dict[str, Any]
) -> dict[str, Any]:
    """Add what goes wrong on the way, and put everything in the order of arrival."""
    n = config.attempts
    completed = drawn["completed_ms"]
    arrival = completed + rng.exponential(2_000, n)
    late = np.flatnonzero(rng.random(n) < config.share_late)
    kind = rng.random(len(late))
    delay = np.where(kind < 0.6, rng.exponential(600_000, len(late)), 0)
    delay += np.where((kind >= 0.6) & (kind < 0.95), rng.uniform(0.2, 6.5, len(late)) * DAY_MS, 0)
    delay += np.where(kind >= 0.95, rng.uniform(7.5, 12, len(late)) * DAY_MS, 0)
    arrival[late] += delay

    # A regrade repairs a wrong key: what first arrived is the opposite of what was answered.
    voided = np.flatnonzero(rng.random(n) < config.share_void)
    regraded = np.flatnonzero(rng.random(n) < config.share_regrade)
    first_scored = drawn["correct"].copy()
    first_scored[regraded] = ~first_scored[regraded]

    def asked(originals: Ints) -> Floats:
        """Give when it is asked for: mostly within five days, sometimes up to thirty."""
        longest = np.where(rng.random(len(originals)) < 0.1, 30.0, 5.0)
        wait = DAY_MS * (0.04 + rng.random(len(originals)) * longest)
        return np.asarray(arrival[originals] + wait)

    about = np.concatenate([np.arange(n), voided, regraded])
    op = np.repeat([0, 1, 2], [n, len(voided), len(regraded)])
    arrival = np.concatenate([arrival, asked(voided), asked(regraded)])
    sent = np.where(op == 0, completed[about], arrival.astype(np.int64))

    # Anything can be sent twice, mostly within minutes, sometimes days later.
    again = np.flatnonzero(rng.random(len(about)) < config.share_duplicates)
    wait = rng.exponential(60_000, len(again))
    wait += np.where(rng.random(len(again)) < 0.1, rng.uniform(1, 10, len(again)) * DAY_MS, 0)
    arrival = np.concatenate([arrival, arrival[again] + wait])
    about, op, sent = (np.concatenate([column, column[again]]) for column in (about, op, sent))

    order = np.argsort(arrival, kind="stable")
    about, op = about[order], op[order]
    records = {name: column[about] for name, column in drawn.items()}
    records["op"] = op
    records["correct"] = np.where(op == 0, first_scored[about], drawn["correct"][about])
    records["completed_ms"] = sent[order]
    return records
