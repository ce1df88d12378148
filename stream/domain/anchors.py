"""Choosing anchors: items fit to hold the scale from one calibration to the next."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum, sqrt

__all__ = ["AnchorCandidate", "AnchorRules", "choose_anchors", "unfit_reasons"]

_RESPONSE_INFORMATION = 0.2
"""About what a response tells of b (1 / logits^2): P (1 - P) averaged over N(0, 1) learners."""


@dataclass(frozen=True, slots=True)
class AnchorCandidate:
    """What is known of a calibrated item.

    Parameters
    ----------
    item_id
        The item.
    a, b
        Parameters in force, on the reference scale.
    n
        Responses they rest on.
    b_history
        Difficulty in the recent calibrations, on the reference scale, the latest among them.
    """

    item_id: str
    a: float
    b: float
    n: int
    b_history: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class AnchorRules:
    """What an anchor must fulfil."""

    min_responses: int = 100
    """Fewest responses: about .2 logits of error in b."""

    max_abs_b: float = 2.0
    """Largest absolute b (logits): beyond, few learners answer near the item's difficulty."""

    min_a: float = 0.5
    """Least slope: a flat item's difficulty is hardly determined."""

    max_sd_b: float = 0.5
    """Largest standard deviation of b over the recent calibrations (logits)."""

    min_calibrations: int = 2
    """Fewest recent calibrations: from one alone nobody knows whether an item stands still."""


def unfit_reasons(candidate: AnchorCandidate, rules: AnchorRules = AnchorRules()) -> list[str]:
    """Return why an item cannot be an anchor, a phrase each; empty if it can."""
    reasons = []
    if candidate.n < rules.min_responses:
        reasons.append(f"{candidate.n} responses, fewer than {rules.min_responses}")
    # Written so that nan fails.
    if not abs(candidate.b) <= rules.max_abs_b:
        reasons.append(f"b {candidate.b:.2f} beyond {rules.max_abs_b:g}")
    if not candidate.a >= rules.min_a:
        reasons.append(f"a {candidate.a:.2f} below {rules.min_a:g}")
    if len(candidate.b_history) < rules.min_calibrations:
        reasons.append(
            f"{len(candidate.b_history)} recent calibrations, fewer than {rules.min_calibrations}"
        )
    elif not _sd(candidate) <= rules.max_sd_b:
        reasons.append(f"b varies by {_sd(candidate):.2f} between calibrations")
    return reasons


def choose_anchors(
    candidates: Iterable[AnchorCandidate],
    max_candidates: int = 50,
    rules: AnchorRules = AnchorRules(),
) -> list[str]:
    """Choose anchors spread over the difficulties.

    Of the fit items the range of difficulty is cut into as many slots as anchors are wanted;
    the best item of each slot (steady, much answered) comes first, then the second best, until
    there are enough. How steep an item came out counts for nothing beyond ``min_a``: the steepest
    of many owe it to chance in part, and as the reference they would hold the scale too narrow
    for good (regression to the mean).

    Parameters
    ----------
    candidates
        Items; order does not matter.
    max_candidates
        Most anchors.
    rules
        See `AnchorRules`.

    Returns
    -------
    list
        Item ids in alphabetical order; fewer than wanted, even none, where few are fit.
    """
    fit = [candidate for candidate in candidates if not unfit_reasons(candidate, rules)]
    if max_candidates <= 0:
        return []
    width = 2.0 * rules.max_abs_b / max_candidates
    slots: dict[int, list[AnchorCandidate]] = {}
    for candidate in sorted(fit, key=_rank):
        slots.setdefault(int((candidate.b + rules.max_abs_b) / width), []).append(candidate)
    in_turn = sorted(
        (place, _rank(candidate), candidate.item_id)
        for slot in slots.values()
        for place, candidate in enumerate(slot)
    )
    return sorted(item_id for _, _, item_id in in_turn[:max_candidates])


def _sd(candidate: AnchorCandidate) -> float:
    history = candidate.b_history
    if len(history) < 2:
        return 0.0
    mean = fsum(history) / len(history)
    return sqrt(fsum((b - mean) ** 2 for b in history) / len(history))


def _rank(candidate: AnchorCandidate) -> tuple[float, int, str]:
    """Sort key, best first: variance of b by its few responses and its wandering; responses."""
    sampling = 1.0 / (_RESPONSE_INFORMATION * max(1, candidate.n))
    return sampling + _sd(candidate) ** 2, -candidate.n, candidate.item_id
