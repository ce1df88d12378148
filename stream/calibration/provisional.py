"""Difficulties of items not calibrated yet, from the running totals, as versioned publications.

Engines fold with what was published, never with live statistics, so that a replay folds alike.
"""

from __future__ import annotations

from statistics import fmean, pstdev

from schemas.calibration import MANIFEST_KEY, ItemParamsRecord, ParamsManifest
from schemas.codec import encode
from stream.calibration.state import ItemTotals, ParamsInForce
from stream.domain.ability import provisional_difficulty
from stream.kafka.transaction import Outgoing
from topics.catalogue import item_params_topic

__all__ = ["MIN_RESPONSES", "due_difficulties", "publication"]

MIN_RESPONSES = 5
"""Responses an item needs before its proportion correct says more than its absence."""

GROWTH = 2
"""Evidence must have grown by this factor before an item is published again: versions stay few."""

_MANY_RESPONSES = 30
"""Responses from which a calibrated item's proportion correct tells of the learners' level."""

_LEAST_SPREAD = 0.5
"""Smallest prior standard deviation of a new item's difficulty (logits)."""


def due_difficulties(totals: ItemTotals, params: ParamsInForce) -> list[tuple[str, float, float]]:
    """Return (item_id, b, standard error of b) of the items to publish now, by item_id.

    Those are items with at least 5 responses and no parameters, or provisional ones whose
    responses have at least doubled since. The learners' level on the reference scale is taken
    from the calibrated items: how far their difficulties lie from what their own proportions
    correct would give.
    """
    due = [
        item
        for item, n in totals.n.items()
        if n >= MIN_RESPONSES
        and 0 <= totals.correct[item] <= n
        and _is_due(n, params.items.get(item))
    ]
    if not due:
        return []
    level, prior_mean, prior_sd = _population(totals, params)
    found = []
    for item in sorted(due):
        b, se = provisional_difficulty(
            totals.n[item], totals.correct[item], prior_mean - level, prior_sd
        )
        found.append((item, b + level, se))
    return found


def publication(
    due: list[tuple[str, float, float]],
    totals: ItemTotals,
    sequence: int,
    now_ms: int,
    weights: dict[str, float],
    constants: dict[str, float],
) -> list[Outgoing]:
    """Return the records of one version of provisional difficulties, its manifest last.

    Parameters
    ----------
    due
        As :func:`due_difficulties` gives it.
    totals
        For the number of responses.
    sequence
        Number of the version, one more than the newest in force.
    now_ms
        Wall clock, epoch ms.
    weights, constants
        Of practice, memory and form, and of the live filter, those in force: every manifest
        names them, since the topic keeps only the newest.
    """
    version = f"prov-{sequence}"
    records = [
        ItemParamsRecord(
            item_id=item,
            a=1.0,
            b=b,
            c=0.0,
            se_b=se,
            version=version,
            provisional=True,
            n=totals.n[item],
        )
        for item, b, se in due
    ]
    manifest = ParamsManifest(
        version=version,
        sequence=sequence,
        kind="provisional",
        run_id="",
        n_items=len(records),
        linking_slope=1.0,
        linking_intercept=0.0,
        linking_method="none",
        published_at=now_ms,
        weights=weights,
        filter=constants,
    )
    return [
        *(Outgoing(item_params_topic.name, r.item_id.encode(), encode(r), 0) for r in records),
        Outgoing(item_params_topic.name, MANIFEST_KEY, encode(manifest), 0),
    ]


def _is_due(n: int, in_force: ItemParamsRecord | None) -> bool:
    if in_force is None:
        return True
    return in_force.provisional and n >= GROWTH * max(in_force.n, 1)


def _population(totals: ItemTotals, params: ParamsInForce) -> tuple[float, float, float]:
    """Return the learners' level, and mean and spread of difficulty among calibrated items."""
    known = [
        item
        for item in params.calibrated().values()
        if (n := totals.n.get(item.item_id, 0)) >= _MANY_RESPONSES
        and 0 <= totals.correct[item.item_id] <= n
    ]
    if not known:
        # No scale yet: learners are N(0, 1), and items lie where the overall share correct says.
        correct = min(max(0, sum(totals.correct.values())), totals.responses)
        mean, _ = provisional_difficulty(totals.responses, correct, 0.0)
        return 0.0, mean, 1.0
    offsets = [
        _live_difficulty(item)
        - provisional_difficulty(totals.n[item.item_id], totals.correct[item.item_id], 0.0, 10.0)[0]
        for item in known
    ]
    difficulties = [_live_difficulty(item) for item in known]
    return fmean(offsets), fmean(difficulties), max(_LEAST_SPREAD, pstdev(difficulties))


def _live_difficulty(item: ItemParamsRecord) -> float:
    """Return the difficulty that is folded with, on whose level new items must lie."""
    return item.live[1] if item.live else item.b
