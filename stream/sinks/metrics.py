"""What the sink counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

__all__ = [
    "SINK_FAILURES",
    "SINK_LAST_WRITE",
    "SINK_RECORDS",
    "SINK_REJECTS",
    "SINK_ROWS",
    "SINK_WAITED_SECONDS",
    "SINK_WAITING",
]

SINK_RECORDS = Counter(
    "thetastream_sink_records", "Records whose rows are in PostgreSQL.", ["topic"]
)
SINK_ROWS = Counter(
    "thetastream_sink_rows", "Rows inserted or changed; an older row that lost is not.", ["table"]
)
SINK_REJECTS = Counter(
    "thetastream_sink_rejects", "Rows PostgreSQL refused, set aside in sink_rejects.", ["table"]
)
SINK_FAILURES = Counter(
    "thetastream_sink_failures", "Writes that failed and were tried again.", ["reason"]
)
SINK_WAITED_SECONDS = Counter(
    "thetastream_sink_waited_seconds", "Seconds agents spent waiting for PostgreSQL to come back."
)
SINK_WAITING = Gauge(
    "thetastream_sink_waiting_agents", "Agents waiting now for PostgreSQL to come back."
)
SINK_LAST_WRITE = Gauge(
    "thetastream_sink_last_write_timestamp_seconds",
    "When rows were last written to a table.",
    ["table"],
)
