"""Sorting in place, and medians."""

from __future__ import annotations

import numpy as np

from stream.compiling import compiled
from stream.engine.kernel.layout import I8

__all__ = ["median", "sort"]

_GAPS = np.array([29_524, 9_841, 3_280, 1_093, 364, 121, 40, 13, 4, 1], np.int64)
"""Knuth's, (3^k - 1) / 2."""


@compiled
def sort(values: I8, n: int) -> None:
    """Sort the first n values, ascending.

    Shell's way: it needs no memory, and is quick on the tens to thousands of response times of a
    learner's fortnight.
    """
    for gap in _GAPS:
        for k in range(gap, n):
            one = values[k]
            j = k - gap
            while j >= 0 and values[j] > one:
                values[j + gap] = values[j]
                j -= gap
            values[j + gap] = one


@compiled
def median(values: I8, n: int) -> float:
    """Sort the first n values and return their median, nan without any."""
    if n == 0:
        return np.nan
    sort(values, n)
    middle = n // 2
    if n % 2:
        return float(values[middle])
    return (values[middle - 1] + values[middle]) / 2
