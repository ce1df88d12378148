"""What ``/metrics`` shows, in Prometheus' terms. Names are listed in ``docs/operations.md``."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["EngineMetrics", "engine_metrics"]


@dataclass(frozen=True)
class EngineMetrics:
    """Metrics of the engine role."""

    records: Counter = field(
        default_factory=lambda: Counter(
            "thetastream_records", "Records folded, by input", ["source"]
        )
    )
    outcomes: Counter = field(
        default_factory=lambda: Counter(
            "thetastream_outcomes", "Attempt records by outcome and dead-letter reason", ["outcome"]
        )
    )
    learners: Gauge = field(
        default_factory=lambda: Gauge("thetastream_learners", "Learners held by this process")
    )
    partitions: Gauge = field(
        default_factory=lambda: Gauge("thetastream_partitions", "Partitions held by this process")
    )
    params_sequence: Gauge = field(
        default_factory=lambda: Gauge(
            "thetastream_params_sequence", "Number of the item-parameter version in force"
        )
    )
    recovery_seconds: Gauge = field(
        default_factory=lambda: Gauge(
            "thetastream_recovery_seconds", "Duration of the last take-over of partitions"
        )
    )
    flush_seconds: Histogram = field(
        default_factory=lambda: Histogram(
            "thetastream_flush_seconds",
            "Duration of a flush, from encoding to commit",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
        )
    )
    flush_records: Counter = field(
        default_factory=lambda: Counter("thetastream_flush_records", "Records published by flushes")
    )
    oldest_change_seconds: Gauge = field(
        default_factory=lambda: Gauge(
            "thetastream_oldest_change_seconds", "Age of the oldest change not yet committed"
        )
    )


engine_metrics = EngineMetrics()
"""The process's own; other roles leave it at zero."""
