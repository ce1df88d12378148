"""When an item counts as drifted: rarely by chance, soon enough in earnest."""

import math

import numpy as np
import pytest

from stream.domain import ability
from stream.domain.drift import (
    LEAST_RESPONSES,
    LEAST_SHIFT,
    AnswerSums,
    WatchedItem,
    drifted_items,
)


def watched(name="i", n=1000, shift=0.0, share=0.5, a=1.0, se_b=0.05, variance=None):
    """An item whose answers are off by so many logits."""
    spread = n * share * (1 - share) if variance is None else variance
    return WatchedItem(
        name, a, se_b, AnswerSums(n, round(n * share + shift * spread), n * share, spread)
    )


def others(n=20, shift=0.0):
    return [watched(f"other{k}", shift=shift + 0.02 * (-1) ** k) for k in range(n)]


def test_an_item_is_told_with_its_figures():
    found = drifted_items([watched(n=2000, shift=0.5, share=0.4), *others()])
    assert list(found) == ["i"]
    drift = found["i"]
    assert (drift.n, drift.observed, drift.expected) == (2000, 0.52, 0.4)
    assert drift.shift == pytest.approx(0.5, abs=0.03)
    assert drift.z > 5.0
    assert drifted_items([watched(n=2000, shift=-0.5)])["i"].z < -5.0


def test_what_moves_all_items_is_no_items_doing():
    assert drifted_items(others(shift=0.6)) == {}
    assert list(drifted_items([watched(), *others(shift=0.6)])) == ["i"]


def test_a_shift_must_be_large_however_sure_it_is():
    assert drifted_items([watched(n=1_000_000, shift=LEAST_SHIFT - 0.01, se_b=0.0)]) == {}
    assert drifted_items([watched(n=1_000_000, shift=LEAST_SHIFT + 0.01, se_b=0.0)]) != {}


def test_a_difficulty_that_was_never_sure_has_not_drifted():
    assert drifted_items([watched(n=10_000, shift=0.6, se_b=0.1)]) != {}
    assert drifted_items([watched(n=10_000, shift=0.6, se_b=0.2)]) == {}
    assert drifted_items([watched(n=10_000, shift=0.6, se_b=0.2, a=0.4)]) != {}


def test_where_the_model_fits_badly_throughout_more_is_asked():
    wild = [watched(f"wild{k}", shift=0.4 * (-1) ** k * (k % 5) / 4) for k in range(40)]
    assert drifted_items([watched(shift=0.7), *others(40)]) != {}
    assert drifted_items([watched(shift=0.7), *wild]) == {}


@pytest.mark.parametrize(
    "unusable",
    [
        watched(n=LEAST_RESPONSES - 1, shift=3.0),
        watched(n=-50),
        watched(n=500, variance=0.5),
        watched(n=500)._replace(se_b=math.nan),
        watched(n=500)._replace(window=AnswerSums(500, 400, math.nan, 100.0)),
        watched(n=500)._replace(window=AnswerSums(500, 400, 100.0, math.nan)),
    ],
)
def test_sums_that_tell_nothing_take_no_part(unusable):
    assert drifted_items([unusable]) == {}


def test_no_items_no_drift():
    assert drifted_items([]) == {}


def test_a_window_is_what_came_after_its_baseline():
    assert AnswerSums(10, 6, 5.5, 2.0).since(AnswerSums(4, 3, 1.5, 0.5)) == (6, 3, 4.0, 1.5)


def follow(seed, moved=0.0, se_b=0.05, n_learners=2500, learning=0.0):
    """Answers folded by the real filter, looked at after every hundred learners.

    100 items, 40 answers a learner; the parameters in force are off by their standard error.
    The first five items have moved. Returns (found among the moved, found among the others).
    """
    rng = np.random.default_rng(seed)
    n_items, n_moved = 100, 5
    a = np.exp(rng.normal(0.0, 0.3, n_items))
    a[:n_moved] = 1.2
    b = rng.normal(0.0, 1.0, n_items)
    in_force = (b + rng.normal(0.0, se_b, n_items)).tolist()
    b[:n_moved] += moved * np.array([1, -1, 1, -1, 1])
    slopes = a.tolist()
    sums = np.zeros((n_items, 4))
    found = set()
    for learner in range(1, n_learners + 1):
        theta = rng.normal() + learning * np.arange(40)
        items = rng.integers(0, n_items, 40)
        right = rng.random(40) < 1.0 / (1.0 + np.exp(-a[items] * (theta - b[items])))
        g, vg = ability.initial_global()
        d0, s, r = ability.initial_topic()
        for n, (i, correct) in enumerate(zip(items.tolist(), right.tolist(), strict=True)):
            seen = g * (1.0 + s) + d0
            p = 1.0 / (1.0 + math.exp(-slopes[i] * (seen - in_force[i])))
            sums[i] += (1, correct, p, p * (1.0 - p))
            g, vg, d0, s, r = ability.fold(
                g, vg, d0, s, r, slopes[i], in_force[i], 0.0, correct, n, n, 0.0
            )
        if learner % 100 == 0:
            found |= drifted_items(
                WatchedItem(i, slopes[i], se_b, AnswerSums(*row))
                for i, row in enumerate(sums.tolist())
            ).keys()
    return {i for i in found if i < n_moved}, {i for i in found if i >= n_moved}


@pytest.mark.parametrize("learning", [0.0, 0.02])
@pytest.mark.parametrize("se_b", [0.05, 0.2])
def test_no_item_is_called_drifted_by_chance(se_b, learning):
    # 100 items looked at 25 times: at 2 in 100,000 an item one run in 500 would show one.
    assert follow(1, se_b=se_b, learning=learning) == (set(), set())


def test_items_whose_difficulty_moved_by_half_a_logit_are_found_and_no_others():
    moved, others = follow(3, moved=0.5)
    assert len(moved) >= 4
    assert others == set()
