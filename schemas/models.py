"""Events of the model loop (growth, forecast, survival, segments), and what services answer.

Requests and results travel on the calibration topics beside the calibration's own. ``answer`` of a
result is one of the ``...Answer`` records below, less its one list with an entry a learner, which
goes before it in parts.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "CenterRecord",
    "ForecastAnswer",
    "GlmmAnswer",
    "GrowthAnswer",
    "LearnerLine",
    "LearnerRisk",
    "LearnerSegment",
    "ModelAnswer",
    "ModelLearners",
    "ModelRequest",
    "ModelResult",
    "SegmentsAnswer",
    "SurvivalAnswer",
]


class ModelRequest(msgspec.Struct):
    """``calibration-requests``: somebody or the clock asks for a model to be fitted.

    Attributes
    ----------
    request_id
        hash(kind, as_of, parameter version, cut offsets, options): a repeat is harmless.
    reason
        ``schedule`` or ``manual``; ``detail`` is for a person.
    as_of
        YYYY-MM-DD: what happened before that day began (UTC, event time) enters the fit.
    base_version
        Item-parameter version in force.
    cut_offsets
        Attempts partition -> first offset that had not been folded when this was asked.
    """

    request_id: str
    kind: str
    reason: str
    as_of: str
    base_version: str
    cut_offsets: dict[str, int]
    requested_at: int
    detail: str = ""
    schema_version: int = 1


class ModelLearners(msgspec.Struct):
    """``calibration-results`` (a part): what a fit says of some learners; before its result.

    ``learners`` holds the kind's record of each: `LearnerLine`, `LearnerRisk`, `LearnerSegment`.
    """

    run_id: str
    request_id: str
    kind: str
    as_of: str
    base_version: str
    finished_at: int
    part: int
    learners: list[dict[str, Any]]
    type: Literal["model_learners"] = "model_learners"


class ModelResult(msgspec.Struct):
    """``calibration-results``: the end of a model request, after all its parts.

    Attributes
    ----------
    answer
        What the service found, less its learners; empty when the fit failed.
    summary
        The learners' values in a few figures.
    dataset
        What entered the fit: rows, learners, weeks, what was left out.
    error, retriable
        Why it failed, and whether the same request may succeed later.
    request_offset
        Offset of the request that this answers: a repeat of it that comes later is another.
    """

    run_id: str
    request_id: str
    kind: str
    status: Literal["succeeded", "failed"]
    reason: str
    as_of: str
    base_version: str
    finished_at: int
    request_offset: int
    answer: dict[str, Any] = msgspec.field(default_factory=dict)
    summary: dict[str, Any] = msgspec.field(default_factory=dict)
    dataset: dict[str, Any] = msgspec.field(default_factory=dict)
    parts: int = 0
    n_learners: int = 0
    error: str = ""
    retriable: bool = False
    cut_offsets: dict[str, int] = msgspec.field(default_factory=dict)
    type: Literal["model_result"] = "model_result"
    schema_version: int = 1


# -- what services answer: the contract of docs/http-contract.md -----------------------------------


class FitMetaRecord(msgspec.Struct):
    """What every service says of its fit; ``run_id`` is the one it was sent."""

    run_id: str
    model_spec: dict[str, Any]
    metrics: dict[str, Any]


class ModelAnswer(msgspec.Struct, kw_only=True):
    """What every fit is answered with."""

    status: str
    fit_meta: FitMetaRecord
    warnings: list[str] = msgspec.field(default_factory=list)


class FixedEffect(msgspec.Struct):
    """A fixed effect of lme4."""

    term: str
    estimate: float
    se: float
    t: float


class VarianceRecord(msgspec.Struct):
    """A standard deviation between groups; ``correlation`` is with the group's intercept."""

    group: str
    term: str
    sd: float
    correlation: float | None = None


class TopicLevel(msgspec.Struct):
    """A curriculum topic's deviation from the mean."""

    topic_id: str
    intercept: float


class LearnerLine(msgspec.Struct):
    """A learner's own line: score at week 0, and change a week; bounds where the fit has them."""

    user_id: str
    intercept: float
    slope: float
    slope_lower: float | None = None
    slope_upper: float | None = None


class GlmmAnswer(ModelAnswer, kw_only=True):
    """``POST /glmm/fit_progress``."""

    fixed: list[FixedEffect]
    students: list[LearnerLine]
    topics: list[TopicLevel]
    variances: list[VarianceRecord]


class PosteriorEffect(msgspec.Struct):
    """A fixed effect's posterior: mean, standard deviation, interval, convergence."""

    term: str
    mean: float
    sd: float
    lower: float
    upper: float
    rhat: float
    ess: float


class GrowthAnswer(ModelAnswer, kw_only=True):
    """``POST /growth/fit``."""

    fixed: list[PosteriorEffect]
    students: list[LearnerLine]


class ForecastWeek(msgspec.Struct):
    """A week to come, with its 95 % interval."""

    week_start: str
    expected: float
    lower: float
    upper: float


class FittedWeek(msgspec.Struct):
    """A week that was, and what the model expects of it."""

    week_start: str
    value: float
    expected: float


class AnomalyRecord(msgspec.Struct):
    """A week that lies further from its expectation than the bound."""

    week_start: str
    value: float
    expected: float
    z: float


class ForecastAnswer(ModelAnswer, kw_only=True):
    """``POST /forecast/fit``."""

    forecast: list[ForecastWeek]
    fitted: list[FittedWeek]
    anomalies: list[AnomalyRecord]


class HazardRatio(msgspec.Struct):
    """A covariate's effect on the rate of churn."""

    term: str
    hazard_ratio: float
    lower: float
    upper: float
    p: float


class SurvivalStep(msgspec.Struct):
    """A step of the Kaplan-Meier curve; ``time`` in days since the first attempt."""

    time: float
    at_risk: float
    survival: float
    lower: float | None = None
    upper: float | None = None


class LearnerRisk(msgspec.Struct):
    """Probability that a learner stops within the horizon; 1 for who has stopped."""

    user_id: str
    risk: float


class SurvivalAnswer(ModelAnswer, kw_only=True):
    """``POST /survival/fit``."""

    hazard_ratios: list[HazardRatio]
    kaplan_meier: list[SurvivalStep]
    risks: list[LearnerRisk]


class LearnerSegment(msgspec.Struct):
    """A learner's segment, and distance to its centre in standard deviations of the features."""

    user_id: str
    segment: str
    distance: float


CenterRecord = dict[str, float | str]
"""``segment``, ``size``, and the mean of each feature on its own scale."""


class SegmentsAnswer(ModelAnswer, kw_only=True):
    """``POST /segments/fit``."""

    segments: list[LearnerSegment]
    centers: list[CenterRecord]
