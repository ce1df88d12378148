"""Which items may hold the scale."""

import math

import pytest

from stream.domain.anchors import AnchorCandidate, AnchorRules, choose_anchors, unfit_reasons


def candidate(item_id="i", a=1.0, b=0.0, n=100, b_history=(0.0, 0.1)):
    return AnchorCandidate(item_id, a, b, n, b_history)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"n": 99}, "99 responses"),
        ({"b": 2.01}, "b 2.01"),
        ({"b": -2.01}, "b -2.01"),
        ({"b": math.nan}, "b nan"),
        ({"a": 0.49}, "a 0.49"),
        ({"a": math.nan}, "a nan"),
        ({"b_history": (0.0,)}, "1 recent calibrations"),
        ({"b_history": (-0.6, 0.6)}, "varies by 0.60"),
        ({"b_history": (math.nan, 0.6)}, "varies by nan"),
    ],
)
def test_an_unfit_item_is_told_why(changed, reason):
    (told,) = unfit_reasons(candidate(**changed))
    assert reason in told


def test_the_limits_themselves_are_fit():
    assert unfit_reasons(candidate(a=0.5, b=-2.0, n=100, b_history=(-0.5, 0.5))) == []
    assert unfit_reasons(candidate(b_history=()), AnchorRules(min_calibrations=0)) == []


def test_anchors_spread_over_the_difficulties_before_they_crowd():
    easy = [candidate(f"easy{k}", a=2.0 - 0.1 * k, b=-1.5) for k in range(5)]
    hard = [candidate("hard", a=0.6, b=1.5)]
    assert choose_anchors([*easy, *hard], 2) == ["easy0", "hard"]
    assert choose_anchors([*hard, *reversed(easy)], 3) == ["easy0", "easy1", "hard"]


def test_steady_items_come_before_wandering_ones_of_the_same_slope():
    steady, wandering = candidate("steady"), candidate("wandering", b_history=(-0.4, 0.4))
    assert choose_anchors([wandering, steady], 1) == ["steady"]


def test_never_more_than_wanted_and_none_where_none_fits():
    fit = [candidate(f"i{k:02}", b=-2.0 + 0.04 * k) for k in range(100)]
    chosen = choose_anchors(fit, 50)
    assert len(set(chosen)) == 50
    assert chosen == sorted(chosen)
    assert choose_anchors(fit, 0) == []
    assert choose_anchors([candidate(n=5)], 50) == []
