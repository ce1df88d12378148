"""Putting one calibration on the scale of another, through items they have in common.

theta* = slope theta + intercept, b* = slope b + intercept, a* = a / slope, where * is the
reference scale.

References
----------
Kolen & Brennan (2014), Test Equating, Scaling, and Linking, ch. 6: mean-sigma eq. 6.8-6.9,
Haebara eq. 6.11-6.12, Stocking-Lord eq. 6.13-6.14.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from stream.domain.common_items import ItemArrays, drifted_anchors, median_line, pooled_error
from stream.domain.irt import FloatArray
from stream.errors import LinkingError

__all__ = [
    "MIN_ANCHORS",
    "ItemArrays",
    "LinkingConstants",
    "LinkingMethod",
    "apply_linking",
    "apply_to_theta",
    "drifted_anchors",
    "link",
]

LinkingMethod = Literal["mean_sigma", "haebara", "stocking_lord"]

MIN_ANCHORS = 5
"""Fewest anchors of a link that is not weak."""

LARGE_SE_SLOPE = 0.10
LARGE_SE_INTERCEPT = 0.15
"""Standard errors (logits) from which a link is weak: a learner at theta = 2 would then be
misplaced by more than the learner's own standard error after a hundred answers."""

_JACKKNIFE_GROUPS = 100
"""Most solutions a jackknife takes: one an anchor would take the square of their number."""

_SLOPE_LIMITS = 0.1, 10.0
_THETA = np.linspace(-4.0, 4.0, 41)
_WEIGHT = np.exp(-0.5 * _THETA**2) / np.exp(-0.5 * _THETA**2).sum()


@dataclass(frozen=True, slots=True)
class LinkingConstants:
    """How to reach the reference scale, and how sure that is."""

    slope: float
    intercept: float
    se_slope: float
    se_intercept: float
    """Standard errors; see `link` for what they hold."""
    method: str
    n_anchors: int
    """Anchors the constants rest on."""
    dropped: tuple[int, ...] = ()
    """Positions of the anchors left out because they drifted."""
    warnings: tuple[str, ...] = field(default=())
    """Why the link is weak, a sentence each; empty if it is not. Learners' sampling error is no
    weakness of the link: other anchors would not help."""


def link(
    new: ItemArrays,
    reference: ItemArrays,
    method: LinkingMethod = "stocking_lord",
    *,
    purify: bool = True,
    n_learners: int | None = None,
    n_learners_reference: int | None = None,
) -> LinkingConstants:
    """Find the constants that put ``new`` on the scale of ``reference``.

    Parameters
    ----------
    new, reference
        The common items in both calibrations, in the same order.
    method
        ``stocking_lord``: test characteristic curves agree; ``haebara``: each item's curve
        does; ``mean_sigma``: mean and standard deviation of the difficulties do.
    purify
        Leave out anchors that drifted, see `drifted_anchors`.
    n_learners, n_learners_reference
        Learners of each calibration, where its group was standardised to N(0, 1). Their
        sampling error moves all its items alike, so that agreement among anchors does not
        show it. Leave out for parameters that define the scale.

    Returns
    -------
    LinkingConstants
        Standard errors by the delta method from the items' own (independent items, a and b
        uncorrelated), widened where anchors disagree more than those explain; by the
        jackknife over anchors where an item's error is not known. The learners' sampling
        errors are added.

    Raises
    ------
    LinkingError
        Fewer than two anchors, parameters that are not finite, difficulties without spread,
        anchors that contradict each other, or a slope beyond [.1, 10].
    """
    if method not in get_args(LinkingMethod):
        raise LinkingError(f"linking method {method!r} is not known")
    _check(new, reference)
    drifted = drifted_anchors(new, reference) if purify else np.zeros(len(new.b), np.bool_)
    new, reference = new.take(~drifted), reference.take(~drifted)
    slope, intercept = _SOLVERS[method](new, reference)
    if not _SLOPE_LIMITS[0] <= slope <= _SLOPE_LIMITS[1]:
        raise LinkingError(
            f"the linking slope would be {slope:.3g}; the common items do not measure the same"
        )
    variance = _anchor_variance(method, new, reference, slope, intercept)
    weaknesses = _weaknesses(len(new.b), *np.sqrt(variance).tolist())
    for n in (n_learners, n_learners_reference):
        if n:
            # Error of a group's sd and mean, in units of the reference scale.
            variance = variance + np.array([slope**2 / (2.0 * n), slope**2 / n])
    se_slope, se_intercept = np.sqrt(variance).tolist()
    n = len(new.b)
    return LinkingConstants(
        slope=slope,
        intercept=intercept,
        se_slope=se_slope,
        se_intercept=se_intercept,
        method=method,
        n_anchors=n,
        dropped=tuple(np.flatnonzero(drifted).tolist()),
        warnings=tuple(weaknesses),
    )


def apply_linking(items: ItemArrays, constants: LinkingConstants) -> ItemArrays:
    """Return the items on the reference scale: a / slope, slope b + intercept, c as it is."""
    slope, intercept = constants.slope, constants.intercept
    return ItemArrays(
        items.a / slope,
        slope * items.b + intercept,
        items.c,
        None if items.se_a is None else items.se_a / slope,
        None if items.se_b is None else items.se_b * slope,
    )


def apply_to_theta(theta: ArrayLike, constants: LinkingConstants) -> FloatArray:
    """Return abilities on the reference scale: slope theta + intercept."""
    return np.asarray(
        constants.slope * np.asarray(theta, np.float64) + constants.intercept, np.float64
    )


def _check(new: ItemArrays, reference: ItemArrays) -> None:
    if len(new.b) != len(reference.b):
        raise LinkingError("the two calibrations give different numbers of common items")
    if len(new.b) < 2:
        raise LinkingError(
            f"the calibrations have {len(new.b)} usable items in common; at least 2 are needed "
            f"to link them, {MIN_ANCHORS} for a good link"
        )
    for items in (new, reference):
        usable = np.isfinite(items.a) & np.isfinite(items.b) & np.isfinite(items.c) & (items.a > 0)
        if not usable.all():
            raise LinkingError(f"{int((~usable).sum())} common items have no usable a, b, c")


def _weaknesses(n: int, se_slope: float, se_intercept: float) -> list[str]:
    found = []
    if n < MIN_ANCHORS:
        found.append(f"The link rests on {n} items; {MIN_ANCHORS} are the least for a good one.")
    if not se_slope <= LARGE_SE_SLOPE:
        found.append(f"The slope's standard error is {se_slope:.3f}, above {LARGE_SE_SLOPE}.")
    if not se_intercept <= LARGE_SE_INTERCEPT:
        found.append(
            f"The intercept's standard error is {se_intercept:.3f}, above {LARGE_SE_INTERCEPT}."
        )
    return found


def _mean_sigma(new: ItemArrays, reference: ItemArrays) -> tuple[float, float]:
    spread = float(np.std(new.b))
    if spread < 1e-6 or float(np.std(reference.b)) < 1e-6:
        raise LinkingError("the common items are all equally difficult: they fix no slope")
    slope = float(np.std(reference.b)) / spread
    return slope, float(np.mean(reference.b)) - slope * float(np.mean(new.b))


def _haebara(new: ItemArrays, reference: ItemArrays) -> tuple[float, float]:
    return _match_curves(new, reference, by_item=True)


def _stocking_lord(new: ItemArrays, reference: ItemArrays) -> tuple[float, float]:
    return _match_curves(new, reference, by_item=False)


_SOLVERS: dict[str, Callable[[ItemArrays, ItemArrays], tuple[float, float]]] = {
    "mean_sigma": _mean_sigma,
    "haebara": _haebara,
    "stocking_lord": _stocking_lord,
}


def _curves(items: ItemArrays, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Probability correct and its derivative in x = a (theta - b), (n_items, n_points)."""
    x = items.a[:, None] * (theta - items.b[:, None])
    rise = np.exp(-np.logaddexp(0.0, -x))
    guess = items.c[:, None]
    return guess + (1.0 - guess) * rise, (1.0 - guess) * rise * (1.0 - rise)


class _CurveGap(NamedTuple):
    """Reference curves less linked ones at the nodes, weighted, and the gap's derivatives.

    ``off`` (rows, n_points) and ``jacobian`` (rows, n_points, 2) by (log slope, intercept);
    rows are items, or one: the test.
    """

    off: FloatArray
    jacobian: FloatArray


def _gap(new: ItemArrays, reference: ItemArrays, at: FloatArray, *, by_item: bool) -> _CurveGap:
    slope, intercept = np.exp(at[0]), at[1]
    own = (_THETA - intercept) / slope
    p, rises = _curves(new, own)
    target, _ = _curves(reference, _THETA)
    a = new.a[:, None]
    # A linked item's x = a (own - b) falls by a own with log slope, by a / slope with intercept.
    off, by_log_slope, by_intercept = (
        part if by_item else part.sum(axis=0, keepdims=True)
        for part in (target - p, rises * a * own, rises * a / slope)
    )
    root = np.sqrt(_WEIGHT)
    return _CurveGap(off * root, np.stack([by_log_slope, by_intercept], axis=-1) * root[:, None])


def _match_curves(new: ItemArrays, reference: ItemArrays, *, by_item: bool) -> tuple[float, float]:
    """Least squares between the curves on the reference scale (Levenberg-Marquardt)."""
    slope, intercept = median_line(new.b, reference.b, new.a, reference.a)
    at = np.array([np.log(slope), intercept])
    damping = 1e-3
    gap = _gap(new, reference, at, by_item=by_item)
    for _ in range(200):
        normal = np.einsum("rqi,rqj->ij", gap.jacobian, gap.jacobian)
        pull = np.einsum("rqi,rq->i", gap.jacobian, gap.off)
        step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), pull)
        step /= max(1.0, float(np.max(np.abs(step))))
        trial = _gap(new, reference, at + step, by_item=by_item)
        if (trial.off**2).sum() <= (gap.off**2).sum():
            at, gap = at + step, trial
            damping = max(1e-12, damping / 10.0)
            if np.max(np.abs(step)) < 1e-10:
                break
        elif damping > 1e12:
            break
        else:
            damping *= 10.0
    return float(np.exp(at[0])), float(at[1])


def _anchor_variance(
    method: str, new: ItemArrays, reference: ItemArrays, slope: float, intercept: float
) -> FloatArray:
    """Variance of (slope, intercept) through the anchors' own errors and disagreement."""
    if any(se is None or not np.isfinite(se).all() for se in (new.se_a, new.se_b)):
        return _jackknife(_SOLVERS[method], new, reference)
    if method == "mean_sigma":
        changes = _mean_sigma_changes(new, reference, slope)
    else:
        changes = _curve_changes(new, reference, slope, intercept, by_item=method == "haebara")
    total = np.zeros(2)
    errors = (new.se_a, new.se_b, reference.se_a, reference.se_b)
    for change, se in zip(changes, errors, strict=True):
        if se is not None:
            total += ((change * np.nan_to_num(se)[:, None]) ** 2).sum(axis=0)
    off = reference.b - slope * new.b - intercept
    expected = np.asarray(pooled_error(reference.se_b, new.se_b, slope)) ** 2
    disagreement = float((off**2 / np.maximum(expected, 1e-12)).sum()) / max(1, len(off) - 2)
    # Two constants were fitted to the same few anchors: what agrees then agrees too well.
    return total * max(1.0, disagreement) * len(off) / max(1, len(off) - 2)


def _mean_sigma_changes(
    new: ItemArrays, reference: ItemArrays, slope: float
) -> tuple[FloatArray, ...]:
    """Return derivatives of (slope, intercept), (n_items, 2) each.

    By the new a, the new b, the reference a and the reference b of each item.
    """
    n = len(new.b)
    mean = float(np.mean(new.b))
    by_new = -slope * (new.b - mean) / (n * np.var(new.b))
    by_reference = (reference.b - np.mean(reference.b)) / (n * np.std(new.b) * np.std(reference.b))
    none = np.zeros((n, 2))
    return (
        none,
        np.column_stack([by_new, -mean * by_new - slope / n]),
        none,
        np.column_stack([by_reference, 1.0 / n - mean * by_reference]),
    )


def _curve_changes(
    new: ItemArrays, reference: ItemArrays, slope: float, intercept: float, *, by_item: bool
) -> tuple[FloatArray, ...]:
    """As `_mean_sigma_changes`, of the least-squares solution (implicit differentiation)."""
    gap = _gap(new, reference, np.array([np.log(slope), intercept]), by_item=by_item)
    inverse = np.linalg.pinv(np.einsum("rqi,rqj->ij", gap.jacobian, gap.jacobian))
    own = (_THETA - intercept) / slope
    root = np.sqrt(_WEIGHT)
    changes = []
    for items, theta, sign in ((new, own, 1.0), (reference, _THETA, -1.0)):
        _, rises = _curves(items, theta)
        by_a = rises * (theta - items.b[:, None])
        by_b = rises * -items.a[:, None]
        for by in (by_a, by_b):
            jacobian = np.broadcast_to(gap.jacobian, (len(items.b), *gap.jacobian.shape[1:]))
            change = sign * np.einsum("rqi,rq->ri", jacobian, by * root) @ inverse
            changes.append(change * np.array([slope, 1.0]))  # from log slope to slope
    return tuple(changes)


def _jackknife(
    solve: Callable[[ItemArrays, ItemArrays], tuple[float, float]],
    new: ItemArrays,
    reference: ItemArrays,
) -> FloatArray:
    """Variance of (slope, intercept) by leaving out anchors: one at a time, of many a group."""
    n = len(new.b)
    if n < 3:
        return np.full(2, np.inf)
    groups = min(n, _JACKKNIFE_GROUPS)
    group = np.arange(n) % groups
    without = [solve(new.take(group != g), reference.take(group != g)) for g in range(groups)]
    values = np.array(without)
    spread = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return np.asarray(spread * (groups - 1) / groups, np.float64)
