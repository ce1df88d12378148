"""From a result to one versioned publication: gates, linking, parameters, abilities, outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import isfinite

from schemas.calibration import (
    MANIFEST_KEY,
    BatchAbility,
    CalibratedItem,
    CalibrationAlert,
    CalibrationOutcome,
    CalibrationResult,
    ItemParamsRecord,
    ParamsManifest,
)
from schemas.codec import encode
from stream.calibration.gates import failed_gates, is_well_determined
from stream.calibration.link import Link, link_to_reference
from stream.calibration.runs import Ability
from stream.calibration.state import ParamsInForce
from stream.domain.ability import filter_from, rescaled_filter
from stream.domain.drift import AnswerSums
from stream.errors import LinkingError
from stream.kafka.transaction import Outgoing
from stream.settings import Settings
from topics.catalogue import (
    batch_abilities_topic,
    calibration_results_topic,
    item_params_topic,
)

__all__ = ["decide", "linked_items", "refuse"]

_NO_ANSWERS = AnswerSums(0, 0, 0.0, 0.0)
_NO_SUMS: Mapping[str, AnswerSums] = {}


def decide(
    result: CalibrationResult,
    abilities: list[Ability],
    params: ParamsInForce,
    settings: Settings,
    now_ms: int,
    sums: Mapping[str, AnswerSums] = _NO_SUMS,
) -> list[Outgoing]:
    """Decide on a result that succeeded.

    Parameters
    ----------
    result, abilities
        As they came, on the scale of the fit.
    params
        In force now; not changed.
    settings
        Thresholds, and DRY_RUN.
    now_ms
        Wall clock, epoch ms.
    sums
        Totals of the items' answers, from which on drift against the new parameters is counted.

    Returns
    -------
    list
        What to publish as one transaction: parameters, abilities, the outcome, alerts and, last,
        the manifest that brings the version into force; or the outcome and an alert alone.
    """
    reasons = failed_gates(result, len(abilities), settings)
    if any(not (isfinite(theta) and isfinite(se)) for _, theta, se in abilities):
        reasons.append("It has abilities that are not finite.")
    link: Link | None = None
    items: list[ItemParamsRecord] = []
    sequence = params.sequence + 1
    version = f"irt-{sequence}-{result.request_id[:8]}"
    if not reasons:
        try:
            link = link_to_reference(result, params.calibrated())
        except LinkingError as error:
            reasons.append(f"It cannot be linked to the reference scale: {error}")
        else:
            items = linked_items(result.items, link, params, version, sums)
            if all(item.provisional for item in items):
                reasons.append("No item is determined well enough.")
    applied = not reasons and not settings.dry_run
    outcome = _outcome(result, reasons, now_ms, link)
    if not applied or link is None:
        outcome.status = "refused" if reasons else "dry_run"
        return _told(result, outcome)
    outcome.status = "applied"
    outcome.version, outcome.sequence = version, sequence
    outcome.n_items, outcome.n_abilities = len(items), len(abilities)
    return [
        *_item_messages(items),
        *_ability_messages(abilities, link, result, version),
        *_told(result, outcome),
        _manifest(result, link, outcome),
    ]


def refuse(result: CalibrationResult, reason: str, now_ms: int) -> list[Outgoing]:
    """Return what to publish of a result that could not even be decided on."""
    return _told(result, _outcome(result, [reason], now_ms, None))


def _outcome(
    result: CalibrationResult, reasons: list[str], now_ms: int, link: Link | None
) -> CalibrationOutcome:
    """Return the outcome of a result that is not applied (yet)."""
    return CalibrationOutcome(
        run_id=result.run_id,
        request_id=result.request_id,
        kind=result.kind,
        status="refused",
        reasons=reasons,
        warnings=[*result.warnings, *(link.warnings if link else ())],
        version="",
        sequence=0,
        slope=link.slope if link else 1.0,
        intercept=link.intercept if link else 0.0,
        se_slope=link.se_slope if link else None,
        se_intercept=link.se_intercept if link else None,
        method=link.method if link else "none",
        n_common=len(link.common) if link else 0,
        dropped=sorted(link.dropped) if link else [],
        n_items=0,
        n_abilities=0,
        cut_time=result.cut_time,
        decided_at=now_ms,
    )


def _told(result: CalibrationResult, outcome: CalibrationOutcome) -> list[Outgoing]:
    """Return the outcome and its alerts as records of ``calibration-results``."""
    key = result.request_id.encode()
    return [
        Outgoing(calibration_results_topic.name, key, encode(record), 0)
        for record in (outcome, *_alerts(result, outcome))
    ]


def linked_items(
    fitted: Iterable[CalibratedItem],
    link: Link,
    params: ParamsInForce,
    version: str,
    sums: Mapping[str, AnswerSums] = _NO_SUMS,
) -> list[ItemParamsRecord]:
    """Return the records of a version: a* = a / slope, b* = slope b + intercept.

    Anchors that the link rests on keep their parameters: they are what holds the scale. Of an
    item that the fit hardly determines, calibrated parameters in force stay as they are; without
    such it becomes provisional, that is uncertain.
    """
    records = []
    for item in fitted:
        in_force = params.items.get(item.item_id)
        calibrated = in_force is not None and not in_force.provisional
        determined = is_well_determined(item) or item.item_id in link.fixed
        if in_force is not None and calibrated and item.item_id in link.anchors:
            records.append(
                ItemParamsRecord(
                    item_id=item.item_id,
                    a=in_force.a,
                    b=in_force.b,
                    c=in_force.c,
                    se_b=in_force.se_b,
                    version=version,
                    n=in_force.n,
                    baseline=sums.get(item.item_id, _NO_ANSWERS),
                    live=_linked_live(item, link),
                    recall=item.recall,
                )
            )
        elif determined or not calibrated:
            records.append(
                ItemParamsRecord(
                    item_id=item.item_id,
                    a=item.a / link.slope,
                    b=link.slope * item.b + link.intercept,
                    c=item.c,
                    se_b=link.slope * (item.se_b or 0.0),
                    version=version,
                    provisional=not determined,
                    n=item.n or 0,
                    baseline=sums.get(item.item_id, _NO_ANSWERS) if determined else None,
                    live=_linked_live(item, link),
                    recall=item.recall,
                )
            )
    return records


def _linked_live(item: CalibratedItem, link: Link) -> tuple[float, float, float] | None:
    if item.live is None:
        return None
    a, b, se_b = item.live
    return a / link.slope, link.slope * b + link.intercept, link.slope * se_b


def _linked_filter(values: Mapping[str, float], link: Link) -> dict[str, float]:
    return (
        asdict(rescaled_filter(filter_from(values), link.slope, link.intercept)) if values else {}
    )


def _item_messages(items: list[ItemParamsRecord]) -> list[Outgoing]:
    return [Outgoing(item_params_topic.name, i.item_id.encode(), encode(i), 0) for i in items]


def _ability_messages(
    abilities: list[Ability], link: Link, result: CalibrationResult, version: str
) -> list[Outgoing]:
    return [
        Outgoing(
            batch_abilities_topic.name,
            user_id.encode(),
            encode(
                BatchAbility(
                    user_id=user_id,
                    theta=link.slope * theta + link.intercept,
                    se=link.slope * se,
                    run_id=result.run_id,
                    version=version,
                    cut_time=result.cut_time,
                )
            ),
        )
        for user_id, theta, se in abilities
    ]


def _manifest(result: CalibrationResult, link: Link, outcome: CalibrationOutcome) -> Outgoing:
    manifest = ParamsManifest(
        version=outcome.version,
        sequence=outcome.sequence,
        kind="calibrated",
        run_id=result.run_id,
        n_items=outcome.n_items,
        linking_slope=link.slope,
        linking_intercept=link.intercept,
        linking_method=link.method,
        published_at=outcome.decided_at,
        weights=result.weights,
        filter=_linked_filter(result.filter, link),
    )
    return Outgoing(item_params_topic.name, MANIFEST_KEY, encode(manifest), 0)


def _alerts(result: CalibrationResult, outcome: CalibrationOutcome) -> list[CalibrationAlert]:
    """Return what a person should look at: a refusal, and each item that drifted."""
    alerts = []
    if outcome.status == "refused":
        alerts.append(
            CalibrationAlert(
                run_id=result.run_id,
                request_id=result.request_id,
                kind="refused",
                detail=" ".join([*outcome.reasons, "The old parameters stay in force."]),
                raised_at=outcome.decided_at,
                metrics={"n_observations": result.n_observations, "n_learners": result.n_learners},
            )
        )
    alerts.extend(
        CalibrationAlert(
            run_id=result.run_id,
            request_id=result.request_id,
            kind="item_drift",
            detail="It moved against the other common items and was left out of the link.",
            raised_at=outcome.decided_at,
            item_id=item_id,
        )
        for item_id in outcome.dropped
    )
    return alerts
