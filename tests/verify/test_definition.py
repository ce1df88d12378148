"""SQL against the definitions written out in plain Python, on random schools."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from itertools import pairwise
from math import isclose, sqrt
from pathlib import Path
from statistics import mean, median, pstdev

import pytest

from stream.sources.simulate import SchoolConfig, simulate
from stream.verify.recompute import recompute

DAY = 86_400_000


def by_definition(attempts):
    """Both tables from attempts (user, item, topic, correct, time, hint, moment, valid)."""
    by_user = defaultdict(list)
    for user, *rest in attempts:
        by_user[user].append(rest)
    stream_last = max(ms for *_, ms, _ in attempts) // DAY
    features, weekly = {}, {}
    for user, rows in by_user.items():
        for topic, day in {(row[1], row[5] // DAY) for row in rows if row[1] is not None}:
            own = [r for r in rows if r[1] == topic and r[5] // DAY == day and r[6]]
            times = [r[3] for r in own if r[3] is not None]
            n_recent, improvement = improvement_of(rows, day)
            features[user, topic, date(day)] = (
                len(own),
                sum(r[2] for r in own),
                sum(r[4] for r in own),
                mean(times) if times else None,
                median(times) if times else None,
                max((r[5] for r in own), default=None),
                improvement,
                n_recent,
            )
        days = [row[5] // DAY for row in rows]
        end = min(sunday(max(days)) + 28, sunday(stream_last))
        for as_of in range(sunday(min(days)), end + 1, 7):
            weekly[user, date(as_of - 6)] = weekly_of(rows, as_of)
    return features, weekly


def date(day):
    return dt.date(1970, 1, 1) + dt.timedelta(days=day)


def sunday(day):
    return day + 6 - date(day).weekday()


def between(rows, first, last):
    return [r for r in rows if r[6] and first <= r[5] // DAY <= last]


def improvement_of(rows, as_of):
    prev, recent = between(rows, as_of - 27, as_of - 14), between(rows, as_of - 13, as_of)
    if not prev or not recent:
        return len(recent), None
    p, q = mean(r[2] for r in recent), mean(r[2] for r in prev)
    n = len(recent)
    penalty = min(0.5, 1.96 * sqrt(p * (1 - p) / n))
    return n, (p - q) * min(1, n / 30) * (1 - penalty)


def weekly_of(rows, as_of):
    whole = between(rows, as_of - 27, as_of)
    n_recent, improvement = improvement_of(rows, as_of)

    pace = None
    prev, recent = (
        [r[3] for r in between(rows, first, last) if r[2] and r[3] is not None]
        for first, last in ((as_of - 27, as_of - 14), (as_of - 13, as_of))
    )
    if prev and recent and median(prev) > 0:
        pace = min(1, max(0, (median(prev) - median(recent)) / median(prev)))

    missed = {r[0] for r in whole if not r[2]}
    recovered = {
        miss[0]
        for miss in whole
        for hit in whole
        if not miss[2] and hit[2] and miss[0] == hit[0] and hit[5] > miss[5]
    }
    recovery = len(recovered) / len(missed) if missed else None

    if not whole:
        return improvement, pace, recovery, None, None, n_recent
    moments = sorted(r[5] for r in whole)
    sessions = 1 + sum(b - a > 30 * 60_000 or a // DAY != b // DAY for a, b in pairwise(moments))
    active = sorted({moment // DAY for moment in moments})
    gaps = [b - a for a, b in pairwise(active)]
    regularity = 1 / (1 + pstdev(gaps) / mean(gaps)) if len(active) >= 3 else 0
    engagement = 0.5 * min(1, sessions / 28) + 0.5 * regularity
    slipping = (
        0.6 * min(1, (as_of - active[-1]) / 14)
        + 0.25 * min(1, (mean(gaps) if gaps else 7) / 7)
        + 0.15 * (1 - min(1, sessions / 10))
    )
    return improvement, pace, recovery, engagement, slipping, n_recent


def agrees(found, wanted):
    return all(
        (a is None and b is None)
        or (a is not None and b is not None and isclose(a, b, rel_tol=1e-9, abs_tol=1e-12))
        for a, b in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sql_gives_what_the_definitions_give(seed, tmp_path):
    config = SchoolConfig(
        learners=12,
        items=30,
        topics=3,
        attempts=2500,
        days=90,
        session_attempts=4,
        anchors=0,
        share_void=0.05,
        share_regrade=0.05,
        share_late=0.1,
        share_null_topic=0.1,
        share_null_time=0.2,
        seed=seed,
    )
    simulate(config).write_csv(tmp_path / "school.csv")
    n_features, n_weekly = check(tmp_path / "school.csv")
    assert n_features > 500
    assert n_weekly > 100


MOFACTS = Path(__file__).parents[3] / "shared" / "data" / "mofacts_stats_cloze" / "attempts.csv.gz"


@pytest.mark.skipif(not MOFACTS.exists(), reason="real data, which the project does not hold")
def test_sql_gives_what_the_definitions_give_on_real_attempts():
    assert check(MOFACTS) == (13_898, 1_829)


def check(path):
    """Compare all rows of a file; give the number of rows of both tables."""
    with recompute(path) as expected:
        attempts = expected.con.execute(
            "SELECT user_id, item_id, topic_id, correct, response_time_ms, hint_used, completed_ms,"
            " valid FROM attempt"
        ).fetchall()
        features = expected.rows("features")
        weekly = expected.rows("weekly")
    wanted_features, wanted_weekly = by_definition(attempts)

    found = {tuple(row.values())[:3]: tuple(row.values())[3:] for row in features}
    assert len(found) == len(features)
    assert found.keys() == wanted_features.keys()
    assert [k for k in found if not agrees(found[k], wanted_features[k])] == []

    found = {tuple(row.values())[:2]: tuple(row.values())[2:] for row in weekly}
    assert len(found) == len(weekly)
    assert found.keys() == wanted_weekly.keys()
    assert [k for k in found if not agrees(found[k], wanted_weekly[k])] == []
    return len(features), len(weekly)
