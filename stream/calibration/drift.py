"""Drift between calibrations: which items' answers do not fit their parameters any more.

The totals of an item when its parameters came into force are part of the parameters' record, so
that whoever leads next counts from the same point. A request notes which items had drifted, and
an alert names item and version: both are found again in the topics.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.calibration import CalibrationAlert
from schemas.codec import encode
from stream.calibration.state import CalibratorState
from stream.domain import drift
from stream.domain.drift import AnswerSums, ItemDrift, WatchedItem
from stream.kafka.transaction import Outgoing
from topics.catalogue import calibration_results_topic

__all__ = ["alerts", "drifted_items", "fresh_drift"]

_GROWTH = 2
"""An item that a calibration did not put right asks again at so many times the responses."""


def drifted_items(state: CalibratorState) -> dict[str, ItemDrift]:
    """Compare the answers to calibrated items with the parameters they were folded with."""
    return drift.drifted_items(_watched(state))


def fresh_drift(state: CalibratorState, kind: str = "irt") -> str | None:
    """Name the drifted items that are worth a calibration, or None.

    Those are the ones that the last calibration did not know of yet, or that have twice as many
    responses now.
    """
    last = state.runs.last_calibration(kind)
    known = last[0].drifted_items if last else {}
    fresh = [item for item, d in state.drifted.items() if d.n >= _GROWTH * known.get(item, 0)]
    if not fresh:
        return None
    named = ", ".join(f"{item} ({state.drifted[item].shift:+.2f})" for item in fresh[:5])
    more = ", ..." if len(fresh) > 5 else ""
    return f"{len(fresh)} items are easier (+) or harder (-) than calibrated, logits: {named}{more}"


def alerts(state: CalibratorState, now_ms: int) -> list[Outgoing]:
    """Return the alerts that were not published yet: one an item and version of its parameters."""
    found = []
    for item, seen in state.drifted.items():
        version = state.params.items[item].version
        if (item, version) not in state.runs.drift_told:
            alert = _alert(item, seen, version, now_ms)
            key = version.encode()
            found.append(Outgoing(calibration_results_topic.name, key, encode(alert), 0))
    return found


def _watched(state: CalibratorState) -> Iterator[WatchedItem]:
    sums = state.totals.sums()
    for name, item in state.params.items.items():
        if not item.provisional and item.baseline is not None and name in sums:
            window = sums[name].since(AnswerSums(*item.baseline))
            yield WatchedItem(name, item.a, item.se_b, window)


def _alert(item: str, seen: ItemDrift, version: str, now_ms: int) -> CalibrationAlert:
    return CalibrationAlert(
        run_id="",
        request_id="",
        kind="item_drift",
        detail=(
            f"Of {seen.n} responses since its calibration {seen.observed:.3f} are right, "
            f"{seen.expected:.3f} were expected: against the other items it is "
            f"{abs(seen.shift):.2f} logits {'easier' if seen.shift > 0 else 'harder'} than its "
            "parameters say. They stay in force until the next calibration."
        ),
        raised_at=now_ms,
        item_id=item,
        metrics={
            "n": seen.n,
            "observed": seen.observed,
            "expected": seen.expected,
            "shift": seen.shift,
            "z": seen.z,
        },
        version=version,
    )
