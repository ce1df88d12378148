"""Populations as a few numbers: quantiles and histograms, made where the rows are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "QUANTILES",
    "THETA_BINS",
    "THETA_HIGH",
    "THETA_LOW",
    "clipped_counts",
    "described",
    "histogram",
    "of_values",
    "round_edges",
]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Shares whose quantiles describe a population."""

THETA_LOW, THETA_HIGH, THETA_BINS = -4.0, 4.0, 32
"""Bins of abilities and difficulties, logits. What lies outside is counted in the outermost."""


def described(
    n: int, quantiles: Sequence[float | None] | None, mean: float | None
) -> dict[str, Any]:
    """Return a population's size, mean and `QUANTILES` under names; nulls where it is empty."""
    names = ("q05", "q25", "median", "q75", "q95")
    values = list(quantiles) if n and quantiles else [None] * len(names)
    return {"n": n, "mean": mean, **dict(zip(names, values, strict=True))}


def histogram(low: float, high: float, counts: list[int]) -> dict[str, Any]:
    """Return a histogram of equal bins from ``low`` to ``high``."""
    return {"low": low, "high": high, "counts": counts}


def clipped_counts(rows: list[tuple[int, int]], bins: int) -> list[int]:
    """Return the counts of ``width_bucket``: what lies outside goes to the outermost bins.

    Parameters
    ----------
    rows
        (bucket from 0, which lies below, to bins + 1, which lies above; count).
    bins
        Number of bins.
    """
    counts = [0] * bins
    for bucket, count in rows:
        counts[min(max(bucket, 1), bins) - 1] += count
    return counts


def round_edges(low: float, high: float, bins: int = 24) -> tuple[float, float, int]:
    """Return edges at multiples of 1, 2 or 5 times a power of ten that hold [low, high].

    Returns
    -------
    tuple
        low, high and the number of bins, about ``bins``.
    """
    span = max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-12)
    rough = span / bins
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1.0, 2.0, 5.0, 10.0) if f * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return first * step, last * step, last - first


def of_values(values: NDArray[np.float64]) -> dict[str, Any]:
    """Describe values that are at hand.

    Parameters
    ----------
    values
        (n,) float64, finite.
    """
    if not len(values):
        return described(0, None, None)
    return described(len(values), np.quantile(values, QUANTILES).tolist(), float(values.mean()))
