"""The simulated school: repeatable, true to its truth, and with everything that goes wrong."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from stream.cli.simulate import simulate_command
from stream.errors import SourceError
from stream.sources.simulate import SchoolConfig, simulate
from stream.sources.tidy_csv import read_attempts
from stream.verify.recompute import recompute

DAY = 86_400_000

SMALL = SchoolConfig(learners=200, items=40, topics=4, attempts=20_000, anchors=6)


@pytest.fixture(scope="module")
def school():
    return simulate(SMALL)


@pytest.fixture(scope="module")
def originals(school):
    """Arrays of the original attempts, one record each."""
    _, first = np.unique(np.where(school.op == 0, school.attempt, -1), return_index=True)
    return first[1:]


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    names = []
    for number, seed in enumerate((5, 5, 6)):
        config = dataclasses.replace(SMALL, attempts=3000, seed=seed)
        again = simulate(config)
        again.write_csv(tmp_path / f"{number}.csv.gz")
        again.write_truth(tmp_path / f"{number}.json")
        names.append([(tmp_path / f"{number}{end}").read_bytes() for end in (".csv.gz", ".json")])
    assert names[0] == names[1]
    assert names[0][0] != names[2][0]


def test_the_written_file_reads_back_as_the_events(school, tmp_path):
    school.write_csv(tmp_path / "school.csv")
    read = list(read_attempts(tmp_path / "school.csv"))
    assert read == list(school.attempts())
    assert len(read) == len(school) > SMALL.attempts


def test_every_share_of_trouble_is_met(school, tmp_path):
    n = SMALL.attempts
    ops = np.bincount(school.op, minlength=3)
    keys = school.attempt * 3 + school.op
    repeats = len(keys) - len(np.unique(keys))
    assert len(np.unique(school.attempt[school.op == 0])) == n
    assert repeats == pytest.approx(0.02 * n, rel=0.2)
    assert ops[1] == pytest.approx(0.002 * n, rel=0.5)
    assert ops[2] == pytest.approx(0.002 * n, rel=0.5)
    assert np.mean(school.topic == -1) == pytest.approx(0.01, rel=0.3)
    assert np.mean(school.response_time_ms == -1) == pytest.approx(0.005, rel=0.4)

    school.write_csv(tmp_path / "school.csv")
    with recompute(tmp_path / "school.csv") as expected:
        outcomes = expected.outcomes
        # Behind the learner's latest by more than a minute, and accepted all the same.
        (late,) = expected.con.execute("""
            SELECT count(*) FROM (
                SELECT completed_ms < max(completed_ms) OVER (
                    PARTITION BY user_id ORDER BY seq) - 60000 AS late
                FROM attempt) WHERE late
        """).fetchone()
    assert outcomes["duplicate"] == pytest.approx(repeats, rel=0.05)
    assert 1 <= outcomes["too_late"] < 0.002 * n
    assert outcomes["accepted"] > n
    assert late > 0.003 * n


def test_answers_follow_the_true_abilities_and_item_parameters(school, originals):
    # Regrades apart, in which what arrives first is the wrong key's score.
    regraded = np.isin(school.attempt, school.attempt[school.op == 2])
    first = originals[~regraded[originals]]
    learner, item = school.learner[first], school.item[first]
    weeks = (school.completed_ms[first] - SMALL.start_ms) / (7 * DAY)
    theta = (
        school.theta_start[learner]
        + school.growth[learner] * weeks
        + school.topic_deviation[learner, school.item_topic[item]]
    )
    p = 1 / (1 + np.exp(-school.item_a[item] * (theta - school.item_b[item])))
    for low in np.arange(0.1, 0.9, 0.1):
        inside = (p >= low) & (p < low + 0.1)
        error = np.sqrt(0.25 / inside.sum())
        assert school.correct[first][inside].mean() == pytest.approx(
            p[inside].mean(), abs=4 * error
        )


def test_wrong_answers_are_slower_and_times_are_plausible(school, originals):
    time, correct = school.response_time_ms[originals], school.correct[originals]
    right, wrong = (np.median(time[(time >= 0) & (correct == flag)]) for flag in (True, False))
    assert 1.1 < wrong / right < 1.5
    assert 5_000 < right < 40_000
    assert time.max() <= 900_000


def test_activity_has_a_heavy_tail_and_some_come_late_or_leave_early(school, originals):
    counts = np.sort(np.bincount(school.learner[originals], minlength=SMALL.learners))
    assert counts[-20:].sum() > 0.2 * counts.sum()
    day = (school.completed_ms[originals] - SMALL.start_ms) // DAY
    assert day.min() >= 0
    assert day.max() <= SMALL.days
    first, last = np.full(SMALL.learners, 999), np.zeros(SMALL.learners)
    np.minimum.at(first, school.learner[originals], day)
    np.maximum.at(last, school.learner[originals], day)
    assert np.mean((first > 14) & (first < 999)) > 0.1
    assert np.mean(last < SMALL.days - 21) > 0.1


def test_attempts_come_in_sessions(school, originals):
    order = originals[np.lexsort((school.completed_ms[originals], school.learner[originals]))]
    same = np.diff(school.learner[order]) == 0
    gap = np.diff(school.completed_ms[order])[same]
    assert np.mean(gap < 120_000) > 0.8
    assert np.mean(gap > 3_600_000) > 0.05


def test_without_growth_abilities_stand_still():
    still = simulate(dataclasses.replace(SMALL, growth=0, attempts=2000))
    assert not still.growth.any()
    assert still.theta(3, still.config.start_ms + 50 * DAY) == still.theta_start[3]


def test_growth_moves_theta_by_the_week(school):
    later = school.theta(0, SMALL.start_ms + 14 * DAY)
    assert later == pytest.approx(school.theta_start[0] + 2 * school.growth[0])
    assert school.growth.mean() == pytest.approx(0.05, abs=0.01)


def test_the_truth_file_names_anchors_items_and_learners(school, tmp_path):
    school.write_truth(tmp_path / "truth.json")
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth["config"]["start"] == "2025-01-06"
    assert truth["start_ms"] == SMALL.start_ms == 1_736_121_600_000
    assert len(truth["anchors"]) == 6
    items = {item["item_id"]: item for item in truth["items"]}
    assert len(items) == 40
    for anchor in truth["anchors"]:
        item = items[anchor["item_id"]]
        assert (item["a"], item["b"], item["anchor"]) == (anchor["a"], anchor["b"], True)
        assert abs(item["b"]) <= 1.5
    spread = [anchor["b"] for anchor in truth["anchors"]]
    assert max(spread) - min(spread) > 1.5
    learner = truth["learners"][7]
    last = school.completed_ms[(school.learner == 7) & (school.op == 0)].max()
    assert learner["user_id"] == "u00008"
    assert learner["theta_end"] == school.theta(7, last)
    assert learner["topic_deviation"]["t02"] == school.topic_deviation[7, 1]
    assert {event["item_id"] for event in school.attempts()} == set(items)


def test_a_learner_without_an_attempt_has_no_last_ability():
    lonely = simulate(SchoolConfig(learners=50, items=5, topics=2, attempts=3, anchors=0))
    ends = [learner["theta_end"] for learner in lonely.truth()["learners"]]
    assert sum(end is not None for end in ends) <= 3
    assert None in ends


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learners": 0}, "learners is 0"),
        ({"topics": 41}, "41 topics"),
        ({"anchors": 41}, "anchors is 41"),
        ({"share_late": 1.5}, "share_late is 1.5"),
        ({"session_attempts": 0.5}, "session_attempts is 0.5"),
    ],
)
def test_impossible_schools_are_refused(change, message):
    with pytest.raises(SourceError, match=message):
        dataclasses.replace(SMALL, **change)


def test_the_command_writes_both_files(tmp_path):
    app = typer.Typer()
    app.command()(simulate_command)
    out, truth = tmp_path / "school.csv.gz", tmp_path / "truth.json"
    school = "--learners 20 --items 10 --topics 2 --anchors 2 --attempts 500 --start 2025-02-03"
    result = CliRunner().invoke(
        app, [str(out), "--truth", str(truth), *school.split(" "), "--json"]
    )
    assert result.exit_code == 0, result.output
    events = list(read_attempts(out))
    assert json.loads(result.stdout)["records"] == len(events)
    start = dt.datetime(2025, 2, 3, tzinfo=dt.UTC).timestamp() * 1000
    assert min(event["completed_at"] for event in events) >= start
    assert len(json.loads(truth.read_text())["learners"]) == 20


def test_the_command_says_why_it_cannot_write(tmp_path):
    app = typer.Typer()
    app.command()(simulate_command)
    result = CliRunner().invoke(app, [str(tmp_path / "no" / "x.csv"), "--attempts", "500"])
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
