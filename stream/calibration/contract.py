"""The calibration service's HTTP contract, as records.

``POST /irt/calibrate``: `CalibrateRequest` -> `CalibrateResponse`;
``POST /irt/score``: `ScoreRequest` -> `ScoreResponse`; ``GET /healthz``: `Health`; errors of
a service: `Failure`. The R service and the embedded one both speak it. Observations are rows,
or the same as columns where the service says in its health that it takes them.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec

from stream.domain.irt import item_params
from stream.errors import CalibrationResponseError, ItemParamsError

__all__ = [
    "AbilityRecord",
    "AnchorRecord",
    "CalibrateRequest",
    "CalibrateResponse",
    "Failure",
    "FitMeta",
    "FittedItem",
    "Health",
    "ItemRecord",
    "LinkingConstantsRecord",
    "ObservationColumns",
    "ObservationRow",
    "ParamsRecord",
    "ScoreRequest",
    "ScoreResponse",
    "check_abilities",
    "check_calibration",
]


class ObservationRow(msgspec.Struct, gc=False):
    """One scored answer; ``responded_at`` is epoch ms or RFC 3339, for the service's records."""

    user_id: str
    item_id: str
    is_correct: bool | int
    responded_at: int | float | str | None = None


class ObservationColumns(msgspec.Struct):
    """The same as columns of equal length."""

    user_id: list[str]
    item_id: list[str]
    is_correct: list[bool | int]
    responded_at: list[int | float | str | None] | None = None

    def rows(self) -> list[ObservationRow]:
        """Return the rows."""
        at = self.responded_at or [None] * len(self.user_id)
        return [
            ObservationRow(*row)
            for row in zip(self.user_id, self.item_id, self.is_correct, at, strict=True)
        ]


class ParamsRecord(msgspec.Struct):
    """Item parameters, logistic metric D = 1."""

    a: float
    b: float
    c: float = 0.0


class AnchorRecord(msgspec.Struct):
    """An item whose parameters are held in the fit."""

    item_id: str
    params: ParamsRecord
    fixed: bool = True


class CalibrateRequest(msgspec.Struct):
    """Asks for a fit."""

    observations: list[ObservationRow] | ObservationColumns
    model: str = "2PL"
    anchors: list[AnchorRecord] = msgspec.field(default_factory=list)


class FittedItem(msgspec.Struct):
    """An item's estimates.

    Attributes
    ----------
    se
        Standard errors by parameter name; null where the service has none.
    n, flags
        Responses, and why the item is poorly determined (not from every service).
    """

    item_id: str
    params: ParamsRecord
    se: dict[str, float | None] | None = None
    model: str = ""
    version: str = ""
    n: int | None = None
    flags: list[str] = msgspec.field(default_factory=list)


class AbilityRecord(msgspec.Struct, gc=False):
    """A learner's ability on the scale of the fit."""

    user_id: str
    theta: float
    se: float


class LinkingConstantsRecord(msgspec.Struct):
    """theta* = slope theta + intercept."""

    slope: float = 1.0
    intercept: float = 0.0


class FitMeta(msgspec.Struct):
    """What is to be known of a fit."""

    run_id: str
    model_spec: dict[str, Any] = msgspec.field(default_factory=dict)
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    linking_constants: LinkingConstantsRecord = msgspec.field(
        default_factory=LinkingConstantsRecord
    )


class CalibrateResponse(msgspec.Struct):
    """The result of a fit."""

    status: str
    item_params: list[FittedItem]
    abilities: list[AbilityRecord]
    fit_meta: FitMeta


class ItemRecord(msgspec.Struct):
    """An item to score with."""

    item_id: str
    params: ParamsRecord


class ScoreRequest(msgspec.Struct):
    """Asks for abilities under known item parameters."""

    observations: list[ObservationRow] | ObservationColumns
    item_params: list[ItemRecord]


class ScoreResponse(msgspec.Struct):
    """Abilities, N(0, 1) prior."""

    abilities: list[AbilityRecord]
    status: str = "succeeded"


class Health(msgspec.Struct):
    """``GET /healthz``."""

    status: str = "ok"
    service: str = ""
    observations: list[str] = msgspec.field(default_factory=lambda: ["rows"])
    """Forms of observations that are taken: ``rows``, ``columns``."""
    busy: bool = False


class Failure(msgspec.Struct):
    """Why a service did not do it; the body of its 4xx and 5xx."""

    error: str
    status: str = "failed"


_FAILED = {"failed", "error", "failure"}


def check_calibration(response: CalibrateResponse, items: set[str], learners: set[str]) -> None:
    """Check a response against what was asked.

    Parameters
    ----------
    response
        As decoded.
    items, learners
        Those of the request.

    Raises
    ------
    CalibrationResponseError
        A status that says failed, no items, numbers that are not finite or no curve, items or
        learners that were not asked for or come twice.
    """
    if response.status.lower() in _FAILED:
        raise CalibrationResponseError(
            f"the calibration service answered with status {response.status!r}: "
            f"{response.fit_meta.metrics.get('error', 'no reason given')}"
        )
    if not response.item_params:
        raise CalibrationResponseError("the calibration service returned no item parameters")
    _check_ids("item", [item.item_id for item in response.item_params], items)
    for item in response.item_params:
        try:
            item_params(item.params.a, item.params.b, item.params.c)
        except ItemParamsError as error:
            raise CalibrationResponseError(
                f"the calibration service returned item {item.item_id!r}: {error}"
            ) from error
        for name, se in (item.se or {}).items():
            if se is not None and not (isfinite(se) and se >= 0.0):
                raise CalibrationResponseError(
                    f"the calibration service returned a standard error of {se} for {name} of "
                    f"item {item.item_id!r}"
                )
    constants = response.fit_meta.linking_constants
    if not (isfinite(constants.slope) and constants.slope > 0.0 and isfinite(constants.intercept)):
        raise CalibrationResponseError(
            f"the calibration service returned linking constants {constants.slope}, "
            f"{constants.intercept}; the slope must be positive and both finite"
        )
    check_abilities(response.abilities, learners)


def check_abilities(abilities: list[AbilityRecord], learners: set[str]) -> None:
    """Check abilities against the learners that were asked for.

    Raises
    ------
    CalibrationResponseError
        A learner nobody asked for or twice, theta not finite, se not finite or not positive.
    """
    _check_ids("learner", [ability.user_id for ability in abilities], learners)
    for ability in abilities:
        if not (isfinite(ability.theta) and isfinite(ability.se) and ability.se > 0.0):
            raise CalibrationResponseError(
                f"the calibration service returned theta {ability.theta}, se {ability.se} for "
                f"learner {ability.user_id!r}; both must be finite and se positive"
            )


def _check_ids(kind: str, returned: list[str], asked: set[str]) -> None:
    unknown = [name for name in returned if name not in asked]
    if unknown:
        raise CalibrationResponseError(
            f"the calibration service returned {len(unknown)} {kind}s that were not in the "
            f"request, {unknown[0]!r} for one"
        )
    if len(set(returned)) != len(returned):
        raise CalibrationResponseError(f"the calibration service returned a {kind} twice")
