"""Items whose answers no longer agree with the parameters they are folded with.

An item's answers are compared with what the live filter expected of them. The difference is
turned into a shift in logits, and is drift only where it is both sure and large *against the
other items*: what moves all items alike (everybody has learned, or the filter's own uncertainty)
is no item's doing.
"""

from collections.abc import Iterable
from math import isfinite
from typing import NamedTuple

import numpy as np

__all__ = [
    "LEAST_RESPONSES",
    "LEAST_SHIFT",
    "LEAST_Z",
    "AnswerSums",
    "ItemDrift",
    "WatchedItem",
    "drifted_items",
]

LEAST_RESPONSES = 100
"""Fewest answers in the window: before, only an outright broken item could stand out."""

LEAST_SHIFT = 0.3
"""Least shift (logits) that is called drift, however sure: below, a theta hardly notices."""

LEAST_Z = 5.0
"""Least number of standard deviations.

The items are looked at again and again while answers come in. The chance that a Brownian path
leaves +-z between times t and 10 t is about phi(z) (z ln 10 + 4 / z): at z = 5 it is 2 in 100,000
an item, so that one in ten installations of 5,000 items sees one false alarm a version.
"""

_LEAST_OTHERS = 10
"""Items from which their common shift and spread are estimated; with fewer they count as 0."""

_MAD_TO_SD = 1.4826


class AnswerSums(NamedTuple):
    """Sums over an item's answers."""

    n: int
    correct: int
    expected: float
    """Of P as the filter saw it before each answer."""
    variance: float
    """Of P (1 - P)."""

    def since(self, baseline: "AnswerSums") -> "AnswerSums":
        """Return the sums of what came after a baseline."""
        return AnswerSums(
            self.n - baseline.n,
            self.correct - baseline.correct,
            self.expected - baseline.expected,
            self.variance - baseline.variance,
        )


class WatchedItem(NamedTuple):
    """A calibrated item and its answers since its parameters came into force."""

    item_id: str
    a: float
    se_b: float
    """Standard error of b (logits); 0 where not known."""
    window: AnswerSums


class ItemDrift(NamedTuple):
    """How far an item is off."""

    n: int
    observed: float
    expected: float
    """Shares correct in the window."""
    shift: float
    """By how many logits it is easier (above 0) or harder than its parameters say."""
    z: float
    """The same in standard deviations."""


def drifted_items(watched: Iterable[WatchedItem]) -> dict[str, ItemDrift]:
    """Find the items that have moved against the others.

    An item's shift is (correct - expected) / variance, one Newton step of the logistic model.
    The median shift of all items is taken off. Its standard deviation holds the answers'
    own (1 / variance), the error of the difficulty in force (a se_b, without which a difficulty
    that was never quite right would be called drift) and the spread between items beyond those
    two (from the median absolute deviation, so that drifted items do not hide themselves): where
    the model fits badly throughout, more is asked of each item.

    Parameters
    ----------
    watched
        Calibrated items; those with fewer than `LEAST_RESPONSES` answers, or sums that are not
        usable, take no part.

    Returns
    -------
    dict
        Items that are off by `LEAST_SHIFT` and `LEAST_Z` at least, by item_id.
    """
    items = [item for item in watched if _is_usable(item)]
    if not items:
        return {}
    shift = np.array([(i.window.correct - i.window.expected) / i.window.variance for i in items])
    variance = np.array([1.0 / i.window.variance + (i.a * i.se_b) ** 2 for i in items])
    if len(items) >= _LEAST_OTHERS:
        shift = shift - np.median(shift)
        spread = (_MAD_TO_SD * float(np.median(np.abs(shift)))) ** 2
        variance = variance + max(0.0, spread - float(np.median(variance)))
    z = shift / np.sqrt(variance)
    off = (np.abs(shift) >= LEAST_SHIFT) & (np.abs(z) >= LEAST_Z)
    return {
        items[i].item_id: _drift(items[i].window, float(shift[i]), float(z[i]))
        for i in sorted(np.flatnonzero(off).tolist(), key=lambda i: items[i].item_id)
    }


def _is_usable(item: WatchedItem) -> bool:
    window = item.window
    return (
        window.n >= LEAST_RESPONSES
        and isfinite(window.expected)
        and isfinite(item.a * item.se_b)
        # Answers that were all but certain (P near 0 or 1) tell of no shift on this scale.
        and window.variance >= 1.0
    )


def _drift(window: AnswerSums, shift: float, z: float) -> ItemDrift:
    n = window.n
    return ItemDrift(n, window.correct / n, window.expected / n, shift, z)
