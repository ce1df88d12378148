"""Quality gates: what a result must fulfil before its parameters come into force."""

from __future__ import annotations

from math import isfinite

from schemas.calibration import CalibratedItem, CalibrationResult
from stream.domain.irt import item_params
from stream.errors import ItemParamsError
from stream.settings import Settings

__all__ = ["WELL_DETERMINED_SE", "failed_gates", "is_well_determined"]

WELL_DETERMINED_SE = 0.7
"""Largest standard error (logits at slope 1) of a difficulty that counts as calibrated.

About ten responses of medium difficulty. With fewer they say hardly more than what is known of
items in general, and the live filter does better to treat the difficulty as uncertain.
"""


def failed_gates(result: CalibrationResult, n_abilities: int, settings: Settings) -> list[str]:
    """Return why a result must not be applied, a sentence each; nothing if it may.

    Parameters
    ----------
    result
        Of a fit that succeeded.
    n_abilities
        How many abilities came with it.
    settings
        Thresholds of the gates.
    """
    reasons = []
    metrics = result.fit_meta.get("metrics")
    if isinstance(metrics, dict) and metrics.get("converged") is False:
        reasons.append("The fit did not converge.")
    if result.n_observations < settings.gate_min_responses:
        reasons.append(
            f"It rests on {result.n_observations} responses; "
            f"THETASTREAM_GATE_MIN_RESPONSES asks for {settings.gate_min_responses}."
        )
    if result.n_learners < settings.gate_min_learners:
        reasons.append(
            f"It rests on {result.n_learners} learners; "
            f"THETASTREAM_GATE_MIN_LEARNERS asks for {settings.gate_min_learners}."
        )
    if not result.items:
        reasons.append("It has no items.")
    if n_abilities != result.n_abilities:
        reasons.append(f"{n_abilities} of {result.n_abilities} abilities arrived.")
    bad = [item.item_id for item in result.items if not _is_curve(item)]
    if bad:
        reasons.append(
            f"{len(bad)} items have parameters that are no curve (a > 0, 0 <= c < 1, all finite): "
            f"{', '.join(bad[:5])}."
        )
    return reasons


def is_well_determined(item: CalibratedItem) -> bool:
    """Whether an item's difficulty is known well enough to count as calibrated.

    The error is weighed with the slope: that of a flat item's difficulty is large, but hardly
    changes what an answer to it tells. Without a standard error the service is trusted.
    """
    return item.se_b is None or item.a * item.se_b <= WELL_DETERMINED_SE


def _is_curve(item: CalibratedItem) -> bool:
    try:
        item_params(item.a, item.b, item.c)
    except ItemParamsError:
        return False
    return item.se_b is None or (isfinite(item.se_b) and item.se_b >= 0.0)
