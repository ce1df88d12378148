"""Item response functions: against their definitions, and at the edges of floats."""

import math

import numpy as np
import pytest

from stream.domain import irt
from stream.errors import ItemParamsError

THETAS = [-1000.0, -40.0, -3.0, -0.5, 0.0, 0.7, 3.0, 40.0, 1000.0]
ITEMS = [(1.0, 0.0, 0.0), (0.3, -4.0, 0.0), (2.5, 1.5, 0.25), (20.0, -50.0, 0.0), (20.0, 50.0, 0.9)]


@pytest.mark.parametrize(("a", "b", "c"), ITEMS)
def test_scalar_and_array_forms_agree(a, b, c):
    theta = np.array(THETAS)
    for name in ("probability_correct", "item_information"):
        scalars = [getattr(irt, name)(t, a, b, c) for t in THETAS]
        arrays = getattr(irt, f"{name}_array")(theta, a, b, c)
        np.testing.assert_allclose(arrays, scalars, rtol=1e-12, atol=1e-300)
    for correct in (True, False):
        scalars = [irt.log_likelihood(t, a, b, c, correct) for t in THETAS]
        arrays = irt.log_likelihood_array(theta, a, b, c, correct)
        np.testing.assert_allclose(arrays, scalars, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("a", "b", "c"), ITEMS)
def test_everything_is_finite_however_far_the_learner_is_from_the_item(a, b, c):
    for theta in THETAS:
        p = irt.probability_correct(theta, a, b, c)
        assert c <= p <= 1.0
        assert 0.0 <= irt.item_information(theta, a, b, c) <= a * a / 4.0
        assert -math.inf < irt.log_likelihood(theta, a, b, c, True) <= 0.0
        assert -math.inf < irt.log_likelihood(theta, a, b, c, False) <= 0.0


def test_probability_follows_its_formula():
    expected = 0.2 + 0.8 / (1.0 + math.exp(-1.5 * (0.8 - 0.3)))
    assert irt.probability_correct(0.8, 1.5, 0.3, 0.2) == pytest.approx(expected, abs=1e-15)


def test_information_is_the_expected_squared_score():
    theta, step = 0.4, 1e-5
    for a, b, c in ITEMS[:3]:
        p = irt.probability_correct(theta, a, b, c)
        rise = irt.probability_correct(theta + step, a, b, c) - irt.probability_correct(
            theta - step, a, b, c
        )
        expected = (rise / (2 * step)) ** 2 / (p * (1 - p))
        assert irt.item_information(theta, a, b, c) == pytest.approx(expected, rel=1e-6)


def test_log_likelihood_is_the_log_of_the_probability():
    for a, b, c in ITEMS[:3]:
        p = irt.probability_correct(0.4, a, b, c)
        assert irt.log_likelihood(0.4, a, b, c, True) == pytest.approx(math.log(p), rel=1e-12)
        assert irt.log_likelihood(0.4, a, b, c, False) == pytest.approx(math.log(1 - p), rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "c", "named"),
    [
        (0.0, 0.0, 0.0, "a"),
        (-1.0, 0.0, 0.0, "a"),
        (21.0, 0.0, 0.0, "a"),
        (math.nan, 0.0, 0.0, "a"),
        (1.0, math.inf, 0.0, "b"),
        (1.0, 51.0, 0.0, "b"),
        (1.0, "0", 0.0, "b"),
        (1.0, 0.0, 1.0, "c"),
        (1.0, 0.0, -0.1, "c"),
        (1.0, 0.0, True, "c"),
    ],
)
def test_parameters_that_are_no_curve_are_refused_by_name(a, b, c, named):
    with pytest.raises(ItemParamsError, match=f"item parameter {named} "):
        irt.item_params(a, b, c)


def test_logit_undoes_logistic():
    for x in (-20.0, -1.0, 0.0, 3.0, 20.0):
        assert irt.logit(irt.logistic(x)) == pytest.approx(x, rel=1e-6)
    with pytest.raises(ValueError, match="strictly inside"):
        irt.logit(1.0)
