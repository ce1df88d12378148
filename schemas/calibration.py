"""Events of the calibration loop, and item parameters as engines read them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "BatchAbility",
    "CalibratedItem",
    "CalibrationAbilities",
    "CalibrationRequest",
    "CalibrationResult",
    "ItemParamsRecord",
    "ParamsManifest",
]


class CalibrationRequest(msgspec.Struct, omit_defaults=False):
    """``calibration-requests``: somebody or something asks for a calibration.

    Attributes
    ----------
    request_id
        hash(kind, base version, cut offsets): a repeat is harmless.
    reason
        ``responses``, ``new_item``, ``drift``, ``schedule`` or ``manual``, with the figures.
    cut_offsets
        Attempts partition -> first offset that does not enter the fit.
    lookback_days, model
        As set when the request was made.
    """

    request_id: str
    kind: str
    reason: str
    base_version: str
    cut_offsets: dict[str, int]
    model: str
    lookback_days: int
    requested_at: int
    detail: str = ""
    schema_version: int = 1


class CalibratedItem(msgspec.Struct):
    """An item's estimates on the scale of the fit; None where the service gives no error."""

    item_id: str
    a: float
    b: float
    c: float
    se_a: float | None = None
    se_b: float | None = None
    n: int | None = None


class CalibrationAbilities(msgspec.Struct):
    """``calibration-results`` (a part): abilities of some learners of one run.

    ``abilities`` holds [user_id, theta, se] on the scale of the fit.
    """

    run_id: str
    request_id: str
    part: int
    abilities: list[tuple[str, float, float]]
    type: Literal["abilities"] = "abilities"


class CalibrationResult(msgspec.Struct):
    """``calibration-results``: the end of a request, after all its ability parts."""

    run_id: str
    request_id: str
    kind: str
    status: Literal["succeeded", "failed"]
    reason: str
    cut_time: int
    cut_offsets: dict[str, int]
    finished_at: int
    items: list[CalibratedItem] = msgspec.field(default_factory=list)
    ability_parts: int = 0
    n_abilities: int = 0
    fit_meta: dict[str, Any] = msgspec.field(default_factory=dict)
    error: str = ""
    type: Literal["result"] = "result"
    schema_version: int = 1


class ItemParamsRecord(msgspec.Struct, gc=False):
    """``item-params`` (key item_id, compacted): parameters in force, on the reference scale."""

    item_id: str
    a: float
    b: float
    c: float
    se_b: float
    version: str
    provisional: bool = False


class ParamsManifest(msgspec.Struct):
    """``item-params`` (key NUL + "manifest"): ends one publication; a version is whole with it."""

    version: str
    sequence: int
    kind: Literal["calibrated", "provisional"]
    run_id: str
    n_items: int
    linking_slope: float
    linking_intercept: float
    linking_method: str
    published_at: int


class BatchAbility(msgspec.Struct, gc=False):
    """``batch-abilities`` (key user_id): a learner's ability in an applied calibration.

    ``theta`` and ``se`` on the reference scale. ``cut_time`` (epoch ms, event time) is the
    latest attempt that entered the fit: live thetas are shifted by theta less the snapshot then.
    """

    user_id: str
    theta: float
    se: float
    run_id: str
    version: str
    cut_time: int
