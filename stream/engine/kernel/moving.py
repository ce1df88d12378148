"""Moving words, or their halves, within the heap."""

from __future__ import annotations

import numpy as np

from stream.compiling import compiled
from stream.engine.kernel.layout import Arrays

__all__ = ["move", "move_halves"]


@compiled
def move(s: Arrays, source: int, target: int, words: int) -> None:
    """Copy words; the two places may overlap."""
    move_halves(s, 2 * source, 2 * target, 2 * words)


@compiled
def move_halves(s: Arrays, source: int, target: int, n: int) -> None:
    """Copy halves; the two places may overlap."""
    i4 = s.i4
    # Unsigned places: of a signed one, compiled code asks whether it counts from the end.
    origin, place, count = np.uint64(source), np.uint64(target), np.uint64(max(n, 0))
    if target <= source:
        for k in range(count):
            i4[place + k] = i4[origin + k]
    else:
        for k in range(np.uint64(1), count + np.uint64(1)):
            i4[place + count - k] = i4[origin + count - k]
