"""Putting a fit on the reference scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.calibration import CalibrationResult, ItemParamsRecord

__all__ = ["MIN_LINK_ITEMS", "Link", "link_to_reference"]

MIN_LINK_ITEMS = 5
"""Fewest common items of a link that is not weak."""


@dataclass(frozen=True, slots=True)
class Link:
    """How a fit's scale becomes the reference: theta* = slope theta + intercept.

    Attributes
    ----------
    method
        ``reference``: this fit defines the scale; ``fixed_anchors``: so by construction; else the
        linking method.
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
    them and the link is good, through all common items otherwise.

    Parameters
    ----------
    result
        Of a fit that passed the gates.
    in_force
        Calibrated parameters, on the reference scale.

    Raises
    ------
    LinkingError
        There are too few common items that have not drifted, or the link is weak.
    """
    if result.fixed_anchors:
        fixed = frozenset(result.fixed_anchors)
        return Link(1.0, 0.0, "fixed_anchors", 0.0, 0.0, common=fixed, fixed=fixed)
    if not in_force:
        return Link(1.0, 0.0, "reference", 0.0, 0.0)
    raise NotImplementedError
