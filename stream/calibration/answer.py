"""Answers of the embedded calibration service: a request's bytes to a response's bytes.

Plain functions of their input: the server runs them in another process.
"""

from __future__ import annotations

import math
import uuid
from typing import Any, TypeVar

import msgspec
import numpy as np

from stream.calibration.contract import (
    AbilityRecord,
    AnchorRecord,
    CalibrateRequest,
    CalibrateResponse,
    FitMeta,
    FittedItem,
    LinkingConstantsRecord,
    ObservationColumns,
    ObservationRow,
    ParamsRecord,
    ScoreRequest,
    ScoreResponse,
)
from stream.calibration.estimator import Calibration, Priors, Responses, calibrate
from stream.domain.irt import ItemParams, item_params
from stream.domain.scoring import eap_scores
from stream.errors import EstimationError, ItemParamsError

__all__ = ["answer_calibrate", "answer_score"]

R = TypeVar("R")

FEW_RESPONSES = 30
"""Responses below which an item is flagged, whatever its standard errors say."""

LARGE_ERROR = 0.7
"""Standard error of a difficulty, times the slope, above which an item is flagged."""

FEW_ANCHORS = 5
"""Anchors below which the fit warns that its scale hangs on few items."""


def answer_calibrate(body: bytes) -> bytes:
    """Fit what ``POST /irt/calibrate`` asks for.

    Raises
    ------
    EstimationError
        The request is not the contract's, or cannot be fitted; the message says why.
    """
    request = _decode(body, CalibrateRequest)
    responses, learners, items = _responses(request.observations)
    anchors, unused = _anchors(request.anchors, items)
    fit = calibrate(responses, request.model, anchors)  # type: ignore[arg-type]
    run_id = f"irt-{uuid.uuid4().hex[:16]}"
    return msgspec.json.encode(
        CalibrateResponse(
            status="succeeded",
            item_params=_fitted_items(fit, items, anchors, run_id),
            abilities=_abilities(learners, fit.theta, fit.theta_se),
            fit_meta=_meta(fit, responses, sorted(items[i] for i in anchors), unused, run_id),
        )
    )


def answer_score(body: bytes) -> bytes:
    """Score what ``POST /irt/score`` asks for: exact EAP under N(0, 1).

    Raises
    ------
    EstimationError
        The request is not the contract's, or an item has no usable parameters.
    """
    request = _decode(body, ScoreRequest)
    responses, learners, items = _responses(request.observations)
    known = {record.item_id: record.params for record in request.item_params}
    missing = [item for item in items if item not in known]
    if missing:
        raise EstimationError(
            f"{len(missing)} of the answered items have no parameters in item_params, "
            f"{missing[0]!r} for one"
        )
    params = np.array([_checked(item, known[item]) for item in items])
    scores = eap_scores(
        responses.learner,
        responses.item,
        responses.correct,
        *params.T,
        n_learners=len(learners),
    )
    return msgspec.json.encode(ScoreResponse(_abilities(learners, scores.theta, scores.se)))


def _decode(body: bytes, kind: type[R]) -> R:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EstimationError(f"the request is not what this service takes: {error}") from error


def _responses(
    observations: list[ObservationRow] | ObservationColumns,
) -> tuple[Responses, list[str], list[str]]:
    """Give learners and items numbers, and return their names."""
    if isinstance(observations, ObservationColumns):
        users, names, scores = (
            observations.user_id,
            observations.item_id,
            observations.is_correct,
        )
        if not len(users) == len(names) == len(scores):
            raise EstimationError(
                "observations: the columns user_id, item_id and is_correct must have the same "
                f"length; they have {len(users)}, {len(names)} and {len(scores)}"
            )
    else:
        users = [row.user_id for row in observations]
        names = [row.item_id for row in observations]
        scores = [row.is_correct for row in observations]
    if not users:
        raise EstimationError("observations are empty; there is nothing to fit")
    bad = next((score for score in scores if score not in (0, 1)), None)
    if bad is not None:
        raise EstimationError(f"observations: is_correct is {bad}; it must be true, false, 1 or 0")
    learners: dict[str, int] = {}
    items: dict[str, int] = {}
    learner = np.array([learners.setdefault(user, len(learners)) for user in users], np.int64)
    item = np.array([items.setdefault(name, len(items)) for name in names], np.int64)
    correct = np.array(scores, np.bool_)
    responses = Responses(learner, item, correct, len(learners), len(items))
    return responses, list(learners), list(items)


def _anchors(
    records: list[AnchorRecord], items: list[str]
) -> tuple[dict[int, ItemParams], list[str]]:
    """Return the fixed anchors by item index, and those without any response."""
    index = {item: i for i, item in enumerate(items)}
    fixed = {r.item_id: _checked(r.item_id, r.params) for r in records if r.fixed}
    unused = sorted(item for item in fixed if item not in index)
    if fixed and len(unused) == len(fixed):
        raise EstimationError(
            f"none of the {len(fixed)} fixed anchors has a response, so nothing ties this fit to "
            "their scale; send observations of anchors, or no anchors for a free fit"
        )
    return {index[item]: params for item, params in fixed.items() if item in index}, unused


def _checked(item: str, params: ParamsRecord) -> ItemParams:
    try:
        return item_params(params.a, params.b, params.c)
    except ItemParamsError as error:
        raise EstimationError(f"item {item!r}: {error}") from error


def _fitted_items(
    fit: Calibration, items: list[str], anchors: dict[int, ItemParams], run_id: str
) -> list[FittedItem]:
    columns = (fit.a, fit.b, fit.c, fit.se_a, fit.se_b, fit.se_c, fit.n, fit.n_correct)
    rows = zip(items, *(column.tolist() for column in columns), fit.at_bound.tolist(), strict=True)
    return [
        FittedItem(
            item_id=item,
            params=ParamsRecord(a, b, c),
            se={"a": _known(se_a), "b": _known(se_b), "c": _known(se_c)},
            model=fit.model,
            version=run_id,
            n=n,
            flags=[] if i in anchors else _flags(n, right, a, se_b, at_bound=at_bound),
        )
        for i, (item, a, b, c, se_a, se_b, se_c, n, right, at_bound) in enumerate(rows)
    ]


def _known(se: float) -> float | None:
    return se if math.isfinite(se) else None


def _flags(n: int, right: int, a: float, se_b: float, *, at_bound: bool) -> list[str]:
    """Why an item is poorly determined; empty if it is not."""
    flags = []
    if n < FEW_RESPONSES:
        flags.append("few_responses")
    if right in (0, n):
        flags.append("all_right" if right else "all_wrong")
    if at_bound:
        flags.append("at_bound")
    if not a * se_b <= LARGE_ERROR:  # nan counts as large
        flags.append("large_error")
    return flags


def _meta(
    fit: Calibration, responses: Responses, anchors: list[str], unused: list[str], run_id: str
) -> FitMeta:
    warnings = []
    if not fit.converged:
        warnings.append(f"The fit did not converge in {fit.iterations} steps.")
    if unused:
        warnings.append(f"{len(unused)} fixed anchors have no response and took no part.")
    if 0 < len(anchors) < FEW_ANCHORS:
        warnings.append(f"The scale rests on {len(anchors)} fixed anchors only.")
    if anchors:
        link = "Anchors were fixed and the group's mean and sd free: 1 and 0 by construction."
    else:
        link = "A free fit on its own scale, group N(0, 1): 1 and 0 mean not linked yet."
    prior = Priors()
    n_flagged = int(
        sum(
            bool(_flags(n, right, a, se_b, at_bound=bound))
            for n, right, a, se_b, bound in zip(
                *(x.tolist() for x in (fit.n, fit.n_correct, fit.a, fit.se_b, fit.at_bound)),
                strict=True,
            )
        )
    )
    return FitMeta(
        run_id=run_id,
        model_spec={
            "model": fit.model,
            "metric": "logistic, D = 1, P = c + (1-c)/(1+exp(-a(theta-b)))",
            "estimator": "marginal maximum a posteriori, EM",
            "priors": {
                "log_a_sd": prior.log_a_sd,
                "b_sd": prior.b_sd,
                "c_beta": [prior.c_alpha, prior.c_beta] if fit.model == "3PL" else None,
            },
            "fixed_anchors": anchors,
            "linking": link,
        },
        metrics={
            "converged": fit.converged,
            "iterations": fit.iterations,
            "change": fit.change,
            "loglik": fit.loglik,
            "n_learners": responses.n_learners,
            "n_items": responses.n_items,
            "n_responses": len(responses.learner),
            "n_flagged": n_flagged,
            "group": {
                "mean": fit.mean,
                "sd": fit.sd,
                "mean_se": _known(fit.mean_se),
                "sd_se": _known(fit.sd_se),
            },
            "se_method": fit.se_method,
            "warnings": warnings,
        },
        linking_constants=LinkingConstantsRecord(1.0, 0.0),
    )


def _abilities(learners: list[str], theta: Any, se: Any) -> list[AbilityRecord]:
    return [AbilityRecord(*row) for row in zip(learners, theta.tolist(), se.tolist(), strict=True)]
