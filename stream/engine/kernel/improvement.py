"""The improvement index at a day; formulas of :mod:`stream.domain.improvement`."""

from __future__ import annotations

from math import sqrt

from stream.compiling import compiled
from stream.engine.kernel.days import DAY_WORDS, ability_at, days_at, number_of
from stream.engine.kernel.layout import I8, N_DAYS, Arrays

__all__ = ["RECENT", "WINDOW", "improvement"]

WINDOW, RECENT = 28, 14
"""Days that the index looks back at, and the later part of them."""

_NAN = float("nan")


@compiled
def improvement(
    s: Arrays, base: int, counts: I8, as_of: int, use_theta: int
) -> tuple[float, float]:
    """Return (I_t, I_t in its accuracy form) at a day, nan without evidence.

    ``counts`` holds every day's attempts and correct ones.
    """
    day = days_at(s, base) - DAY_WORDS
    n_prev = k_prev = n_recent = k_recent = 0
    last_prev = last_recent = -1
    for k in range(s.i4[2 * base + N_DAYS]):
        day += DAY_WORDS
        number, attempts = number_of(s, day), counts[2 * k]
        if attempts == 0 or number > as_of or number <= as_of - WINDOW:
            continue
        if number > as_of - RECENT:
            n_recent += attempts
            k_recent += counts[2 * k + 1]
            last_recent = 2 * day
        else:
            n_prev += attempts
            k_prev += counts[2 * k + 1]
            last_prev = 2 * day
    if last_prev < 0 or last_recent < 0:
        return _NAN, _NAN
    exposure = min(1.0, n_recent / 30)
    p = k_recent / n_recent
    se = sqrt(p * (1 - p) / n_recent)
    accuracy = (p - k_prev / n_prev) * exposure * (1.0 - min(0.5, 1.96 * se))
    if not use_theta or n_recent < 5:
        return accuracy, accuracy
    theta, variance = ability_at(s, last_recent)
    gain = theta - ability_at(s, last_prev)[0]
    value = gain * exposure * (1.0 - min(0.5, 1.96 * sqrt(variance)))
    return max(-1.0, min(1.0, value)), accuracy
