"""Events of the calibration loop, and item parameters as engines read them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "MANIFEST_KEY",
    "BatchAbility",
    "CalibratedItem",
    "CalibrationAbilities",
    "CalibrationAlert",
    "CalibrationOutcome",
    "CalibrationRequest",
    "CalibrationResult",
    "ItemParamsRecord",
    "ParamsManifest",
]


MANIFEST_KEY = b"\0manifest"
"""Key of the record that ends a publication on ``item-params``; no item can have it."""


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
    since
        Records of ``attempts`` older than this (ingest time, epoch ms) hold nothing of the window.
    responses
        Attempts that counted up to the cut, over the whole log.
    waiting_items
        Items without calibrated parameters that have enough responses, and how many.
    drifted_items
        Calibrated items seen to have drifted, and their responses since their parameters.
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
    since: int = 0
    responses: int = 0
    waiting_items: dict[str, int] = msgspec.field(default_factory=dict)
    schema_version: int = 1
    drifted_items: dict[str, int] = msgspec.field(default_factory=dict)


class CalibratedItem(msgspec.Struct):
    """An item's estimates on the scale of the fit; None where the service gives no error.

    ``live`` is (a, b, standard error of b) as fitted together with practice and memory: what the
    live filter folds with in place of the calibrated values. None where there is none.
    ``recall`` is by how many logits the item is easier than others once a learner remembers it.
    """

    item_id: str
    a: float
    b: float
    c: float
    se_a: float | None = None
    se_b: float | None = None
    n: int | None = None
    live: tuple[float, float, float] | None = None
    recall: float = 0.0


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
    """``calibration-results``: the end of a request, after all its ability parts.

    Attributes
    ----------
    request_offset
        Offset of the request that this answers: a repeat of it that comes later is another.
    cut_time
        Latest event time before the cut, epoch ms.
    n_observations, n_learners
        What entered the fit.
    tagged_anchors, fixed_anchors
        Items tagged as anchors among those fitted; those of them whose parameters were fixed.
    warnings
        What a person should know of the fit, although it succeeded.
    weights, filter
        Of practice, memory and form, and of the live filter on the scale of the fit; see
        :class:`ParamsManifest`.
    """

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
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    request_offset: int = -1
    n_observations: int = 0
    n_learners: int = 0
    tagged_anchors: list[str] = msgspec.field(default_factory=list)
    fixed_anchors: list[str] = msgspec.field(default_factory=list)
    warnings: list[str] = msgspec.field(default_factory=list)
    type: Literal["result"] = "result"
    schema_version: int = 1
    filter: dict[str, float] = msgspec.field(default_factory=dict)


class CalibrationOutcome(msgspec.Struct):
    """``calibration-results``: what became of a result; published with the parameters, or alone.

    Attributes
    ----------
    status
        ``refused``: a quality gate failed, the old parameters stay; ``dry_run``: only reported.
    reasons
        Why it was refused, a sentence each.
    version, sequence
        Of the publication on ``item-params``; "" and 0 unless applied.
    slope, intercept
        Linking constants: theta* = slope theta + intercept, b* = slope b + intercept, a* = a/slope.
    se_slope, se_intercept
        Their standard errors; 0 where they are so by definition, None where not known.
    method
        ``reference`` (this fit defines the scale), ``fixed_anchors``, or the linking method.
    n_common, dropped
        Items the link rests on, and common items left out because they drifted.
    """

    run_id: str
    request_id: str
    kind: str
    status: Literal["applied", "refused", "dry_run"]
    reasons: list[str]
    warnings: list[str]
    version: str
    sequence: int
    slope: float
    intercept: float
    se_slope: float | None
    se_intercept: float | None
    method: str
    n_common: int
    dropped: list[str]
    n_items: int
    n_abilities: int
    cut_time: int
    decided_at: int
    type: Literal["outcome"] = "outcome"
    schema_version: int = 1


class CalibrationAlert(msgspec.Struct):
    """``calibration-results``: something a person should look at.

    Attributes
    ----------
    kind
        ``refused``: a quality gate kept a run from being applied; ``item_drift``: an item has
        moved against the others, seen by a run's link, or between runs by the answers to it.
    detail
        What happened and what was kept.
    version
        Of the parameters that do not fit the answers; "" when a run tells.
    """

    run_id: str
    request_id: str
    kind: str
    detail: str
    raised_at: int
    item_id: str | None = None
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    type: Literal["alert"] = "alert"
    version: str = ""


class ItemParamsRecord(msgspec.Struct, gc=False):
    """``item-params`` (key item_id, compacted): parameters in force, on the reference scale.

    ``n`` is the number of responses they rest on, 0 where not known. ``baseline`` holds the
    item's totals (attempts, correct, expected, variance) when calibrated parameters came into
    force: what was answered since tells of drift. ``live`` is (a, b, standard error of b) for the
    live filter to fold with; None: ``a``, ``b``, ``se_b`` themselves. ``recall`` is by how many
    logits the item is easier than others once a learner remembers it.
    """

    item_id: str
    a: float
    b: float
    c: float
    se_b: float
    version: str
    provisional: bool = False
    n: int = 0
    baseline: tuple[int, int, float, float] | None = None
    live: tuple[float, float, float] | None = None
    recall: float = 0.0


class ParamsManifest(msgspec.Struct):
    """``item-params`` (key NUL + "manifest"): ends one publication; a version is whole with it.

    Attributes
    ----------
    weights
        Of practice, memory and form, by name; empty: none.
    filter
        Constants of the ability filter on the reference scale that were fitted with the items,
        by the name of their field in ``FilterConfig``. What is missing is as by default.
    """

    version: str
    sequence: int
    kind: Literal["calibrated", "provisional"]
    run_id: str
    n_items: int
    linking_slope: float
    linking_intercept: float
    linking_method: str
    published_at: int
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    filter: dict[str, float] = msgspec.field(default_factory=dict)


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
