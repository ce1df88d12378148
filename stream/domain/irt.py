"""Item response functions on the logistic metric (D = 1), slope-difficulty form.

P(correct | theta) = c + (1 - c) / (1 + exp(-a (theta - b))).

The scalar forms use ``math`` only: they run once an attempt. The array forms take and
return float64 arrays and follow numpy's broadcasting.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream.errors import ItemParamsError

__all__ = [
    "MAX_ABS_DIFFICULTY",
    "MAX_SLOPE",
    "FloatArray",
    "ItemParams",
    "item_information",
    "item_information_array",
    "item_params",
    "log_likelihood",
    "log_likelihood_array",
    "logistic",
    "logit",
    "probability_correct",
    "probability_correct_array",
]

FloatArray = NDArray[np.float64]

MAX_SLOPE = 20.0
"""Largest slope accepted (1/logit). Beyond it an item is a step function and its
parameters come from a fit that ran away, not from evidence."""

MAX_ABS_DIFFICULTY = 50.0
"""Largest |b| accepted (logits). Generous on purpose: an item that nearly everybody gets
right and that hardly discriminates has a b far outside the learners' range, and is still
a usable curve. It keeps every exponent of the hot path finite."""

_MAX_EXPONENT = 700.0  # exp(709.78) is the largest finite double


class ItemParams(NamedTuple):
    """Parameters of one item: slope, difficulty, lower asymptote.

    Building it does not check the values (it is made once an attempt in places);
    `item_params` does, and is what reads values from outside.
    """

    a: float
    """Slope (discrimination), 1/logit, > 0."""
    b: float
    """Difficulty, logits, on the scale of theta."""
    c: float = 0.0
    """Lower asymptote (guessing), 0 <= c < 1."""


def item_params(a: float, b: float, c: float = 0.0) -> ItemParams:
    """Check and build the parameters of one item.

    Parameters
    ----------
    a, b, c
        Slope, difficulty and lower asymptote, see `ItemParams`.

    Returns
    -------
    ItemParams
        The same values as floats.

    Raises
    ------
    ItemParamsError
        A value is not a finite number, a is outside (0, `MAX_SLOPE`], abs(b) is above
        `MAX_ABS_DIFFICULTY`, or c is outside [0, 1).

    Examples
    --------
    >>> item_params(1.2, -0.5)
    ItemParams(a=1.2, b=-0.5, c=0.0)
    """
    for name, value in (("a", a), ("b", b), ("c", c)):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise ItemParamsError(f"item parameter {name} is {value!r}; it must be a finite number")
    if not 0.0 < a <= MAX_SLOPE:
        raise ItemParamsError(f"item parameter a is {a}; it must be in (0, {MAX_SLOPE:g}]")
    if abs(b) > MAX_ABS_DIFFICULTY:
        raise ItemParamsError(
            f"item parameter b is {b}; it must be in [-{MAX_ABS_DIFFICULTY:g}, "
            f"{MAX_ABS_DIFFICULTY:g}]"
        )
    if not 0.0 <= c < 1.0:
        raise ItemParamsError(f"item parameter c is {c}; it must be in [0, 1)")
    return ItemParams(float(a), float(b), float(c))


def logistic(x: float) -> float:
    """Return 1 / (1 + exp(-x)) without overflow for any finite x.

    Examples
    --------
    >>> logistic(0.0), logistic(-1000.0), logistic(1000.0)
    (0.5, 0.0, 1.0)
    """
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(max(x, -_MAX_EXPONENT))
    # exp(-700) is about 1e-304: anything below is zero for every purpose here.
    return e / (1.0 + e) if x > -_MAX_EXPONENT else 0.0


def logit(p: float) -> float:
    """Return log(p / (1 - p)) for 0 < p < 1.

    Raises
    ------
    ValueError
        p is not strictly inside (0, 1).

    Examples
    --------
    >>> logit(0.5)
    0.0
    """
    if not 0.0 < p < 1.0:
        raise ValueError(f"logit needs a probability strictly inside (0, 1), got {p}")
    return math.log(p / (1.0 - p))


def probability_correct(theta: float, a: float, b: float, c: float = 0.0) -> float:
    """Probability of a correct answer at ability theta.

    Parameters
    ----------
    theta
        Ability, logits.
    a, b, c
        The item, see `ItemParams`.

    Returns
    -------
    float
        In [c, 1]; finite for every finite theta.

    References
    ----------
    Birnbaum, A. (1968), in Lord & Novick, Statistical Theories of Mental Test Scores,
    ch. 17, eq. 17.3.3 with D = 1.

    Examples
    --------
    >>> round(probability_correct(0.0, 1.0, 0.0, 0.2), 12)
    0.6
    """
    return c + (1.0 - c) * logistic(a * (theta - b))


def item_information(theta: float, a: float, b: float, c: float = 0.0) -> float:
    """Fisher information of one answer about theta, 1/logit^2.

    Returns
    -------
    float
        a^2 (Q / P) ((P - c) / (1 - c))^2, written as a^2 L^2 Q / P with L the logistic
        part so that it is 0, never 0/0, far from the item.

    References
    ----------
    Birnbaum (1968), eq. 20.4.20.

    Examples
    --------
    >>> item_information(0.0, 2.0, 0.0)
    1.0
    """
    x = a * (theta - b)
    rises = logistic(x)
    p = c + (1.0 - c) * rises
    if p <= 0.0:
        return 0.0
    return a * a * rises * rises * (1.0 - c) * logistic(-x) / p


def log_likelihood(theta: float, a: float, b: float, c: float, correct: bool) -> float:
    """Log-probability of one answer.

    Returns
    -------
    float
        <= 0 and finite for every finite theta: the tails are computed by log1p, not by
        the log of a rounded probability.
    """
    x = a * (theta - b)
    if not correct:
        return math.log1p(-c) + _log_logistic(-x)
    if c == 0.0:
        return _log_logistic(x)
    return math.log(c + (1.0 - c) * logistic(x))


def _log_logistic(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -30.0 else x


def probability_correct_array(
    theta: ArrayLike, a: ArrayLike, b: ArrayLike, c: ArrayLike = 0.0
) -> FloatArray:
    """Array form of `probability_correct`, broadcasting its arguments.

    Returns
    -------
    FloatArray
        float64, the broadcast shape.
    """
    c = np.asarray(c, np.float64)
    return np.asarray(c + (1.0 - c) * _logistic_array(_predictor(theta, a, b)), np.float64)


def item_information_array(
    theta: ArrayLike, a: ArrayLike, b: ArrayLike, c: ArrayLike = 0.0
) -> FloatArray:
    """Array form of `item_information`, broadcasting its arguments."""
    a, c = np.asarray(a, np.float64), np.asarray(c, np.float64)
    x = _predictor(theta, a, b)
    rises = _logistic_array(x)
    p = c + (1.0 - c) * rises
    top = a * a * rises * rises * (1.0 - c) * _logistic_array(-x)
    return np.asarray(np.divide(top, p, out=np.zeros_like(top), where=p > 0.0), np.float64)


def log_likelihood_array(
    theta: ArrayLike, a: ArrayLike, b: ArrayLike, c: ArrayLike, correct: ArrayLike
) -> FloatArray:
    """Array form of `log_likelihood`; ``correct`` is bool or 0/1."""
    c = np.asarray(c, np.float64)
    x = _predictor(theta, a, b)
    with np.errstate(divide="ignore"):  # log 0 = -inf is what c = 0 means here
        right = np.logaddexp(np.log(c), np.log1p(-c) - np.logaddexp(0.0, -x))
    wrong = np.log1p(-c) - np.logaddexp(0.0, x)
    # Rounding may lift log(c + (1 - c)) a hair above log 1.
    return np.asarray(
        np.minimum(np.where(np.asarray(correct, bool), right, wrong), 0.0), np.float64
    )


def _predictor(theta: ArrayLike, a: ArrayLike, b: ArrayLike) -> FloatArray:
    x = np.asarray(a, np.float64) * (np.asarray(theta, np.float64) - np.asarray(b, np.float64))
    return np.asarray(x, np.float64)


def _logistic_array(x: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)), np.float64)
