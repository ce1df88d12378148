"""Items that two calibrations have in common, and which of them moved between the two."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.domain.irt import FloatArray
from stream.errors import LinkingError

__all__ = [
    "DRIFT_B",
    "DRIFT_LOG_A",
    "DRIFT_Z",
    "ItemArrays",
    "drifted_anchors",
    "median_line",
    "pooled_error",
]

DRIFT_B = 0.4
DRIFT_LOG_A = 0.6
"""Least change of b (logits) and of log a that can be called drift, whatever its z."""

DRIFT_Z = 3.0
"""And how many robust standard deviations it must be off."""

_PAIRED_ITEMS = 300
"""Items of which all pairs are compared; of more, a sample spread over the difficulties."""


@dataclass(frozen=True, slots=True)
class ItemArrays:
    """Parameters of items in a common order, each (n_items,) float64.

    Standard errors are optional; nan where one is not known.
    """

    a: FloatArray
    b: FloatArray
    c: FloatArray
    se_a: FloatArray | None = None
    se_b: FloatArray | None = None

    def take(self, kept: NDArray[np.bool_]) -> "ItemArrays":
        """Return the chosen items."""
        return ItemArrays(
            self.a[kept],
            self.b[kept],
            self.c[kept],
            None if self.se_a is None else self.se_a[kept],
            None if self.se_b is None else self.se_b[kept],
        )


def drifted_anchors(new: ItemArrays, reference: ItemArrays) -> NDArray[np.bool_]:
    """Find anchors that moved against the others.

    The line through the difficulties is a median one (Theil-Sen), so that up to a quarter of
    moved anchors cannot drag it along; what is off it in b or in log a by more than
    `DRIFT_Z` robust standard deviations and by a difference that matters is dropped, worst
    first, and the line drawn anew.

    Returns
    -------
    NDArray[np.bool_]
        (n_anchors,), True where drifted.

    Raises
    ------
    LinkingError
        More than half would have to go: the anchors contradict each other.
    """
    kept = np.ones(len(new.b), np.bool_)
    while kept.sum() > 2:
        b_off, log_a_off = _off_the_line(new, reference, kept)
        worst = int(np.argmax(np.where(kept, np.maximum(b_off, log_a_off), -1.0)))
        if max(b_off[worst], log_a_off[worst]) <= 1.0:
            break
        kept[worst] = False
        if kept.sum() < len(kept) / 2:
            raise LinkingError(
                f"more than half of the {len(kept)} common items moved against each other; it "
                "cannot be told which of them hold the scale"
            )
    return ~kept


def _off_the_line(
    new: ItemArrays, reference: ItemArrays, kept: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """How far each anchor is off in b and in log a, as a share of what counts as drift."""
    slope, intercept = median_line(new.b[kept], reference.b[kept], new.a[kept], reference.a[kept])
    b_error = pooled_error(reference.se_b, new.se_b, slope)
    a_error = pooled_error(_relative(reference.se_a, reference.a), _relative(new.se_a, new.a), 1.0)
    log_a = np.log(new.a / reference.a)
    return (
        _share(reference.b - slope * new.b - intercept, b_error, DRIFT_B, kept),
        _share(log_a - np.median(log_a[kept]), a_error, DRIFT_LOG_A, kept),
    )


def _share(
    off: FloatArray, error: FloatArray | float, least: float, kept: NDArray[np.bool_]
) -> FloatArray:
    # A share of the deviations' own spread guards against errors that are too optimistic.
    spread = 1.4826 * float(np.median(np.abs(off[kept])))
    scale = np.maximum(DRIFT_Z * np.maximum(error, spread), least)
    return np.asarray(np.abs(off) / scale, np.float64)


def _relative(se: FloatArray | None, value: FloatArray) -> FloatArray | None:
    return None if se is None else se / value


def pooled_error(
    one: FloatArray | None, two: FloatArray | None, slope: float
) -> FloatArray | float:
    """Return the standard error of one - slope two, 0 where neither is known."""
    parts = [np.nan_to_num(se) for se in (one,) if se is not None]
    parts += [slope * np.nan_to_num(se) for se in (two,) if se is not None]
    return np.sqrt(sum(part**2 for part in parts)) if parts else 0.0


def median_line(
    b_new: FloatArray, b_reference: FloatArray, a_new: FloatArray, a_reference: FloatArray
) -> tuple[float, float]:
    """Slope and intercept that a quarter of wild points cannot move."""
    # All pairs of at most a few hundred items, spread over the difficulties: it is a screen.
    some = np.argsort(b_new)[:: 1 + len(b_new) // _PAIRED_ITEMS]
    i, j = (some[k] for k in np.triu_indices(len(some), 1))
    apart = b_new[i] - b_new[j]
    far = np.abs(apart) > 0.25
    steep = (b_reference[i] - b_reference[j])[far] / apart[far]
    steep = steep[steep > 0.0]
    # Slopes of the items tell the same as pairs of difficulties; few pairs, few to trust.
    by_slopes = float(np.median(a_new / a_reference))
    slope = float(np.median(steep)) if len(steep) >= 3 else by_slopes
    return slope, float(np.median(b_reference - slope * b_new))
