"""Putting a fit on the reference scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import nan

import numpy as np

from schemas.calibration import CalibratedItem, CalibrationResult, ItemParamsRecord
from stream.calibration.gates import is_well_determined
from stream.domain.irt import FloatArray
from stream.domain.linking import MIN_ANCHORS, ItemArrays, link
from stream.errors import LinkingError

__all__ = ["Link", "link_to_reference"]


@dataclass(frozen=True, slots=True)
class Link:
    """How a fit's scale becomes the reference: theta* = slope theta + intercept.

    Attributes
    ----------
    method
        ``reference``: this fit defines the scale; ``fixed_anchors``: so by construction;
        ``service``: constants the service gave with fixed anchors; else the linking method.
    common
        Items the link rests on.
    dropped
        Common items left out because they drifted.
    anchors
        Those of ``common`` that people tagged: they keep their parameters.
    fixed
        Items whose parameters were held in the fit.
    """

    slope: float
    intercept: float
    method: str
    se_slope: float | None = None
    se_intercept: float | None = None
    common: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    anchors: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    warnings: list[str] = field(default_factory=list)


def link_to_reference(result: CalibrationResult, in_force: Mapping[str, ItemParamsRecord]) -> Link:
    """Find the linking constants of a result.

    The first calibration is the reference: on its anchors' scale if some were fixed in the fit,
    on its own otherwise. Later ones are linked through the tagged anchors if there are enough of
    them and the link is not weak, through all common items otherwise.

    Parameters
    ----------
    result
        Of a fit that passed the gates.
    in_force
        Calibrated parameters, on the reference scale.

    Raises
    ------
    LinkingError
        There are too few common items, they contradict each other, or the link is weak.
    """
    if result.fixed_anchors:
        return _by_construction(result)
    if not in_force:
        return Link(1.0, 0.0, "reference", 0.0, 0.0)
    fitted = {item.item_id: item for item in result.items if is_well_determined(item)}
    common = sorted(fitted.keys() & in_force.keys())
    tagged = [item for item in common if item in set(result.tagged_anchors)]
    warnings: list[str] = []
    if len(tagged) >= MIN_ANCHORS:
        try:
            return _through(tagged, fitted, in_force, result.n_learners, anchors=True)
        except LinkingError as error:
            warnings = [f"Tagged anchors were not used, all common items were: {error}"]
    elif result.tagged_anchors:
        warnings = [
            f"Only {len(tagged)} tagged anchors are calibrated and fitted again, {MIN_ANCHORS} "
            "are needed: the link rests on all common items."
        ]
    found = _through(common, fitted, in_force, result.n_learners, anchors=False)
    return replace(found, warnings=[*warnings, *found.warnings])


def _by_construction(result: CalibrationResult) -> Link:
    """Return the link of a fit with fixed anchors: the identity, unless the service says else."""
    fixed = frozenset(result.fixed_anchors)
    constants = result.fit_meta.get("linking_constants") or {}
    slope, intercept = constants.get("slope", 1.0), constants.get("intercept", 0.0)
    if (slope, intercept) == (1.0, 0.0):
        return Link(1.0, 0.0, "fixed_anchors", 0.0, 0.0, common=fixed, fixed=fixed)
    return Link(slope, intercept, "service", common=fixed)


def _through(
    common: list[str],
    fitted: Mapping[str, CalibratedItem],
    in_force: Mapping[str, ItemParamsRecord],
    n_learners: int,
    *,
    anchors: bool,
) -> Link:
    """Link through some items, without those that drifted; a weak link is refused."""
    new = [fitted[item] for item in common]
    reference = [in_force[item] for item in common]
    constants = link(
        ItemArrays(
            a=_column(item.a for item in new),
            b=_column(item.b for item in new),
            c=_column(item.c for item in new),
            se_a=_column(item.se_a for item in new),
            se_b=_column(item.se_b for item in new),
        ),
        ItemArrays(
            a=_column(item.a for item in reference),
            b=_column(item.b for item in reference),
            c=_column(item.c for item in reference),
            se_b=_column(item.se_b for item in reference),
        ),
        n_learners=n_learners,
    )
    if constants.warnings:
        raise LinkingError("the link is weak. " + " ".join(constants.warnings))
    dropped = frozenset(common[position] for position in constants.dropped)
    used = frozenset(common) - dropped
    return Link(
        slope=constants.slope,
        intercept=constants.intercept,
        method=constants.method,
        se_slope=constants.se_slope,
        se_intercept=constants.se_intercept,
        common=used,
        dropped=dropped,
        anchors=used if anchors else frozenset(),
        warnings=_about_dropped(dropped),
    )


def _about_dropped(dropped: frozenset[str]) -> list[str]:
    if not dropped:
        return []
    named = ", ".join(sorted(dropped)[:5]) + (", ..." if len(dropped) > 5 else "")
    return [f"{len(dropped)} common items drifted and were left out of the link: {named}."]


def _column(values: Iterable[float | None]) -> FloatArray:
    """Return an array; nan where a value is not known."""
    return np.array([nan if value is None else value for value in values], dtype=np.float64)
