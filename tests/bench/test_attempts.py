import itertools

import numpy as np
import orjson
import pytest

from bench.attempts import Population, draw
from bench.peers.shared.small_job import PRIOR, Row, updated
from stream.records import parse

SMALL = Population(attempts=3_000, learners=200, days=14)


def records() -> list[tuple[str, str]]:
    return list(itertools.chain.from_iterable(draw(SMALL).records()))


def test_every_learner_has_an_attempt_and_the_count_is_exact() -> None:
    attempts = draw(SMALL)
    assert len(attempts.learner) == 3_000
    assert np.unique(attempts.learner).tolist() == list(range(200))


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert records() == records()


def test_event_times_are_in_order() -> None:
    assert np.all(np.diff(draw(SMALL).completed_ms) >= 0)


def test_each_record_is_an_attempt_that_the_engine_accepts() -> None:
    for key, value in records():
        event, completed_ms = parse(value.encode(), key.encode(), 1_800_000_000_000)
        assert event.user_id == key
        assert event.completed_at == completed_ms


def test_attempt_ids_are_unique_and_records_of_realistic_size() -> None:
    values = [value for _, value in records()]
    assert len({orjson.loads(value)["attempt_id"] for value in values}) == len(values)
    assert 220 < np.mean([len(value) for value in values]) < 340


def test_theta_sum_is_that_of_the_small_job() -> None:
    rows: dict[str, Row] = {}
    for key, value in records():
        rows[key] = updated(rows.get(key, PRIOR), orjson.loads(value)["correct"])
    assert draw(SMALL).theta_sum() == pytest.approx(sum(row[2] for row in rows.values()))


def test_small_job_moves_theta_towards_the_answers_and_grows_surer() -> None:
    attempts, right, theta, variance = updated(PRIOR, True)
    assert (attempts, right) == (1, 1)
    assert theta == pytest.approx(0.4)  # variance 1 / (1 + 1/4), times 1 - 1/2
    assert variance == pytest.approx(0.8)
    assert updated(PRIOR, False)[2] == pytest.approx(-0.4)
