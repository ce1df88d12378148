"""Which items may hold the scale."""

import math

import numpy as np
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


def test_steady_items_come_before_wandering_ones_however_steep():
    steady, wandering = candidate("steady"), candidate("wandering", a=2.0, b_history=(-0.4, 0.4))
    assert choose_anchors([wandering, steady], 1) == ["steady"]


def test_much_answered_items_come_before_others_unless_they_wander():
    known, hardly = candidate("known", n=2000), candidate("hardly", a=2.0)
    assert choose_anchors([hardly, known], 1) == ["known"]
    wandering = candidate("wandering", n=2000, b_history=(-0.4, 0.4))
    assert choose_anchors([hardly, wandering], 1) == ["hardly"]


def test_anchors_are_not_the_items_whose_slopes_came_out_too_steep_by_chance():
    # Slopes differ as items do (.3), their errors are those of 200 responses. Chosen as the
    # steepest, the anchors' slopes would be 15 % too steep on average.
    rng = np.random.default_rng(1)
    true, error = rng.normal(0.0, 0.3, 2000), rng.normal(0.0, 0.25, 2000)
    b, n = rng.uniform(-2.0, 2.0, 2000), rng.integers(100, 300, 2000)
    items = zip(np.exp(true + error).tolist(), b.tolist(), n.tolist(), strict=True)
    chosen = choose_anchors((candidate(f"{k:04}", *item) for k, item in enumerate(items)), 500)
    assert abs(error[[int(name) for name in chosen]].mean()) < 0.04


def test_never_more_than_wanted_and_none_where_none_fits():
    fit = [candidate(f"i{k:02}", b=-2.0 + 0.04 * k) for k in range(100)]
    chosen = choose_anchors(fit, 50)
    assert len(set(chosen)) == 50
    assert chosen == sorted(chosen)
    assert choose_anchors(fit, 0) == []
    assert choose_anchors([candidate(n=5)], 50) == []
