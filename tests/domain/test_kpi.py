"""Worked examples of ``docs/indicators.md``, with numbers computed by hand."""

from __future__ import annotations

import pytest

from stream.domain import improvement, kpi


def test_improvement_from_accuracy_by_hand() -> None:
    # 10 of 20 before, 12 of 15 now: (.8 - .5) * (15/30) * (1 - 1.96 sqrt(.8 * .2 / 15));
    # sqrt(.0106667) = .1032796, * 1.96 = .2024280; .3 * .5 * .7975720 = .1196358
    assert improvement.accuracy_improvement(20, 10, 15, 12) == pytest.approx(0.1196358, abs=1e-7)


def test_improvement_is_null_without_attempts_in_either_window() -> None:
    assert improvement.accuracy_improvement(0, 0, 5, 5) is None
    assert improvement.accuracy_improvement(5, 5, 0, 0) is None


def test_uncertainty_takes_at_most_half() -> None:
    # 1 of 2: 1.96 sqrt(.25/2) = .693 > .5, so (.5 - 1) * (2/30) * .5
    assert improvement.accuracy_improvement(1, 1, 2, 1) == pytest.approx(-1 / 60)


def test_improvement_from_theta_by_hand() -> None:
    # (.6 - .1) * (15/30) * (1 - 1.96 * .2) = .25 * .608
    assert improvement.theta_improvement(0.1, 0.6, 0.2, 15) == pytest.approx(0.152)


def test_improvement_from_theta_stays_within_one() -> None:
    assert improvement.theta_improvement(-3.0, 3.0, 0.0, 60) == 1.0
    assert improvement.theta_improvement(3.0, -3.0, 0.0, 60) == -1.0


def test_efficiency_by_hand() -> None:
    assert kpi.efficiency(10_000, 7_500) == 0.25
    assert kpi.efficiency(7_500, 10_000) == 0.0
    assert kpi.efficiency(0, 10) is None
    assert kpi.efficiency(None, 10) is None


def test_the_median_of_an_even_number_is_the_middle_of_the_two_middle_ones() -> None:
    assert kpi.median([4, 1, 3, 2]) == 2.5
    assert kpi.median([5]) == 5
    assert kpi.median([]) is None


def test_a_pause_of_half_an_hour_keeps_a_session_and_a_longer_one_ends_it() -> None:
    half = 30 * 60 * 1000
    assert kpi.session_count([0, half]) == 1
    assert kpi.session_count([0, half + 1]) == 2
    assert kpi.session_count([]) == 0


def test_engagement_by_hand() -> None:
    # Days 0, 2, 6: gaps 2 and 4, mean 3, sd 1, cv 1/3, regularity 1/(4/3) = .75;
    # 7 sessions of 28: .5 * .25 + .5 * .75
    assert kpi.engagement(7, [0, 2, 6]) == pytest.approx(0.5)
    assert kpi.engagement(7, [0, 2]) == pytest.approx(0.125)
    assert kpi.engagement(0, []) is None


def test_chance_above_target_by_hand() -> None:
    # One standard error above the target: Phi(1) = .8413447
    assert kpi.chance_above_target(0.5, 0.5, 0.0) == pytest.approx(0.8413447, abs=1e-7)


def test_stopping_risk_by_hand() -> None:
    # Active on days 0 and 7 of 14, 5 sessions: .6 * 7/14 + .25 * 7/7 + .15 * (1 - .5)
    assert kpi.stopping_risk(14, [0, 7], 5) == pytest.approx(0.3 + 0.25 + 0.075)
    # A single active date counts as a gap of a week.
    assert kpi.stopping_risk(0, [0], 1) == pytest.approx(0.25 + 0.135)
    assert kpi.stopping_risk(0, [], 0) is None


def test_recovery_is_null_without_a_miss() -> None:
    assert kpi.recovery(0, 0) is None
    assert kpi.recovery(4, 1) == 0.25
