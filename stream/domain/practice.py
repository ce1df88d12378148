"""What makes an answer easier for reasons other than ability: practice, memory and form.

The chance of a correct answer is c + (1 - c) / (1 + exp(-(a (theta - b) + advantage))). The
advantage, in logits, is a weighted sum of

- practice: right and wrong answers so far in the topic,
- memory: what is remembered of this very item (`stream.domain.memory`), and
- form: how the last few answers went against expectation, and that the first answers of all are
  also about finding one's way,

and, where the item is remembered, its own *recall*: some items, the hard ones above all, gain more
than others from having been met.

The difficulty b is thus that of a first meeting with item and topic, once warmed up: all features
but a constant are 0 there. Weights and recall are fitted with the items on the calibration data and
travel with the parameter version; with all of them 0 the model is plain item response theory, and
nothing need be remembered.
What is reported as theta stays ability: the fold sees the item as easier by the advantage.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, isfinite, log1p, sqrt
from typing import NamedTuple

from stream.domain.memory import Trace

__all__ = [
    "FORM_SHARE",
    "MAX_WEIGHT",
    "NEVER_MET",
    "NO_WEIGHTS",
    "Weights",
    "advantage",
    "features",
    "next_form",
    "plug_in",
    "weights_from",
]

FORM_SHARE = 0.2
"""Share of the newest answer in a learner's form: about the last five count."""

MAX_WEIGHT = 20.0
"""Largest |weight| accepted (logits a unit of its feature)."""

NEVER_MET: Trace = (-1, 0, 0, 0, False)
"""Stands for nothing remembered of an item."""

_MINUTES = 3.0  # working memory: an item answered right now is known by heart
_DAY_MINUTES = 1440.0


class Weights(NamedTuple):
    """Logits a unit of each feature. The names are published: add, never rename."""

    level: float = 0.0
    """1, always. Not 0 only where the items were calibrated apart from the weights, so that
    their difficulties already hold the practice of the average answer."""
    practised: float = 0.0
    """The topic was met before: 1, else 0."""
    topic_right: float = 0.0
    """log(1 + right answers in the topic so far)."""
    topic_wrong: float = 0.0
    """log(1 + wrong answers in the topic so far)."""
    topic_age: float = 0.0
    """log(1 + minutes since the topic's last answer)."""
    topic_day: float = 0.0
    """exp(-days since the topic's last answer)."""
    form: float = 0.0
    """Weighted mean of (score - expected score) over the last few answers."""
    seen: float = 0.0
    """The item is remembered: 1, else 0."""
    item_right: float = 0.0
    """log(1 + right answers to the item)."""
    item_wrong: float = 0.0
    """log(1 + wrong answers to the item)."""
    item_last: float = 0.0
    """The item's last answer: 1 right, -1 wrong."""
    item_recency: float = 0.0
    """1 / sqrt(attempts since the item's last answer, this one included)."""
    item_recency_last: float = 0.0
    """``item_recency`` times ``item_last``: an answer just given says little about the next."""
    item_age: float = 0.0
    """log(1 + minutes since the item's last answer)."""
    item_age_last: float = 0.0
    """``item_age`` times ``item_last``: outcomes of long ago say less."""
    item_minutes: float = 0.0
    """exp(-minutes since / 3): still in working memory."""
    item_day: float = 0.0
    """exp(-days since)."""
    warm_up: float = 0.0
    """1 / sqrt(1 + attempts so far): the first ones are also about finding one's way."""


NO_WEIGHTS = Weights()
"""Ability alone; in force until a calibration publishes others."""


def weights_from(values: Mapping[str, float]) -> Weights:
    """Read published weights by name.

    Names that this release does not know are refused rather than dropped: without its term
    the others would be wrong.

    Raises
    ------
    ValueError
        An unknown name, or a value that is not finite or beyond `MAX_WEIGHT`.

    Examples
    --------
    >>> weights_from({"seen": 0.5}).seen
    0.5
    """
    unknown = sorted(set(values) - set(Weights._fields))
    if unknown:
        raise ValueError(
            f"unknown weights {', '.join(unknown)}; known: {', '.join(NO_WEIGHTS._fields)}"
        )
    for name, value in values.items():
        if not isfinite(value) or abs(value) > MAX_WEIGHT:
            raise ValueError(
                f"weight {name} is {value}; it must be in [-{MAX_WEIGHT:g}, {MAX_WEIGHT:g}]"
            )
    return Weights(**{name: float(value) for name, value in values.items()})


def advantage(
    weights: Weights,
    right: int,
    wrong: int,
    topic_s: float,
    form: float,
    trace: Trace | None,
    number: int,
    start_s: float,
    recall: float = 0.0,
) -> float:
    """Logits by which this answer is easier than a first one.

    Parameters
    ----------
    weights
        In force.
    right, wrong
        Answers of the learner in the item's topic so far; 0, 0 for an item without topic.
    topic_s
        When the topic was answered last, seconds since 1970; 0 = never or not known.
    form
        As `next_form` left it, 0 before any answer.
    trace
        What is remembered of the item, None for nothing.
    number
        Attempts of the learner before this one.
    start_s
        When the item was put (time of the answer less the response time), seconds since
        1970; 0 where not known. The answer's own time would tell how long it took.
    recall
        Logits by which this item, where it is remembered, is easier than items are on average.

    Returns
    -------
    float
        0 for a learner who has warmed up and meets topic and item for the first time in
        average form.
    """
    row = features(right, wrong, topic_s, form, trace or NEVER_MET, number, start_s)
    gain = sum(w * x for w, x in zip(weights, row, strict=True))
    return gain if trace is None else gain + recall


def features(
    right: int,
    wrong: int,
    topic_s: float,
    form: float,
    trace: Trace,
    number: int,
    start_s: float,
) -> tuple[float, ...]:
    """Return the features that `advantage` weighs, in the order of `Weights`.

    Arguments likewise, but for an item not remembered `NEVER_MET`. Also compiled, as it stands.
    """
    practised = topic_age = topic_day = 0.0
    if right or wrong:
        practised = 1.0
        if topic_s and start_s:
            minutes = max(0.0, (start_s - topic_s) / 60.0)  # late attempts, and clocks
            topic_age, topic_day = log1p(minutes), exp(-minutes / _DAY_MINUTES)
    before, time_s, n_right, n_wrong, was_right = trace
    seen = last = recency = age = working = day = 0.0
    if before >= 0:
        seen, last = 1.0, 1.0 if was_right else -1.0
        recency = max(1, number - before) ** -0.5
        if time_s and start_s:
            minutes = max(0.0, (start_s - time_s) / 60.0)
            age = log1p(minutes)
            working, day = exp(-minutes / _MINUTES), exp(-minutes / _DAY_MINUTES)
    return (
        1.0,
        practised,
        log1p(right),
        log1p(wrong),
        topic_age,
        topic_day,
        form,
        seen,
        log1p(n_right),
        log1p(n_wrong),
        last,
        recency,
        recency * last,
        age,
        age * last,
        working,
        day,
        1.0 / sqrt(1.0 + number),
    )


def plug_in(theta: float, a: float, b: float, c: float, gain: float) -> float:
    """Probability of a correct answer, the uncertainty of theta left aside.

    ``gain`` is the answer's `advantage`; the rest as for `stream.domain.irt`.

    Examples
    --------
    >>> plug_in(0.3, 1.0, 0.3, 0.0, 0.0)
    0.5
    """
    x = a * (theta - b) + gain
    return c + (1.0 - c) / (1.0 + exp(-x if x > -500.0 else 500.0))


def next_form(form: float, expected: float, correct: bool) -> float:
    """Return the form after an answer of which ``expected`` (`plug_in`) was expected."""
    return form + FORM_SHARE * ((1.0 if correct else 0.0) - expected - form)
