"""The smaller job in Quix Streams: a stateful function, RocksDB and a changelog topic."""

from __future__ import annotations

from typing import Any

from quixstreams import Application, State
from small_job import PRIOR, Job, updated

job = Job.from_argument()
app = Application(
    broker_address=job.broker,
    consumer_group=job.name,
    auto_offset_reset="earliest",
    state_dir=job.directory,
    loglevel="WARNING",
)
folded = 0
theta_sum = 0.0


def fold(attempt: dict[str, Any], state: State) -> None:
    """Fold one attempt into its learner's state."""
    global folded, theta_sum
    if not folded:
        job.begin()
    before = state.get("learner") or PRIOR
    after = updated(tuple(before), attempt["correct"])
    state.set("learner", after)
    theta_sum += after[2] - before[2]
    folded += 1
    if folded == job.events:
        # Commits its checkpoint: state, changelog and offsets.
        app.stop()


attempts = app.dataframe(app.topic(job.topic, value_deserializer="json"))
attempts.update(fold, stateful=True)

if __name__ == "__main__":
    app.run()
    job.end(theta_sum)
