"""What the engine publishes: absolute rows, so that repeating one changes nothing."""

from __future__ import annotations

import msgspec

__all__ = [
    "FeatureRow",
    "FeatureUpdate",
    "ItemPartial",
    "KpiRow",
    "KpiUpdate",
    "ThetaUpdate",
    "TopicPartial",
    "TopicTheta",
    "Watermark",
]


class TopicTheta(msgspec.Struct, gc=False):
    """Ability of a learner in one topic (logits): global + topic deviation."""

    topic_id: str
    theta: float
    se: float
    n: int
    last_attempt_at: int


class ThetaUpdate(msgspec.Struct, gc=False):
    """``theta-updates`` (key user_id, compacted): a learner's abilities, whole.

    ``last_attempt_at`` and ``computed_at`` are epoch milliseconds. ``source_partition`` and
    ``source_offset`` say how far the attempts log was folded; a sink writes only what is newer.
    """

    user_id: str
    theta: float
    se: float
    n: int
    correct: int
    last_attempt_at: int
    params_version: str
    topics: list[TopicTheta]
    source_partition: int
    source_offset: int
    computed_at: int


class FeatureRow(msgspec.Struct, gc=False):
    """One row of features_topic_daily; ``date`` in days since 1970-01-01, times in epoch ms."""

    topic_id: str
    date: int
    attempts: int
    correct: int
    hints: int
    avg_time_ms: float | None
    rt_median: float | None
    theta_estimate: float | None
    theta_sd: float | None
    improvement: float | None
    improvement_accuracy: float | None
    last_seen_at: int | None


class FeatureUpdate(msgspec.Struct, gc=False):
    """``feature-updates`` (key user_id): the daily rows of a learner that changed."""

    user_id: str
    rows: list[FeatureRow]
    params_version: str
    source_partition: int
    source_offset: int
    computed_at: int


class KpiRow(msgspec.Struct, gc=False):
    """One row of weekly_kpi; ``week_start`` in days since 1970-01-01 (a Monday)."""

    week_start: int
    kpis: dict[str, float | None]


class KpiUpdate(msgspec.Struct, gc=False):
    """``kpi-updates`` (key user_id): the weekly rows of a learner that changed."""

    user_id: str
    rows: list[KpiRow]
    params_version: str
    source_partition: int
    source_offset: int
    computed_at: int


class TopicPartial(msgspec.Struct, gc=False):
    """``topic-partials`` (key partition|topic_id, compacted): one partition's totals of a topic."""

    topic_id: str
    partition: int
    attempts: int
    correct: int
    learners: int
    source_offset: int


class ItemPartial(msgspec.Struct, gc=False):
    """``item-partials`` (key partition|item_id, compacted): one partition's totals of an item.

    ``expected`` and ``variance`` sum P and P (1 - P) of the folded attempts under the parameters
    in force, for drift statistics.
    """

    item_id: str
    partition: int
    attempts: int
    correct: int
    expected: float
    variance: float
    source_offset: int


class Watermark(msgspec.Struct, gc=False):
    """``watermarks`` (key partition, compacted): latest week with an accepted attempt."""

    partition: int
    week_start: int
