"""The smaller job in plain Faust: one event at a time, one table with its changelog."""

from __future__ import annotations

import faust
import uvloop
from small_job import PRIOR, Job, updated

uvloop.install()
job = Job.from_argument()
app = faust.App(
    job.name,
    broker=f"kafka://{job.broker}",
    datadir=job.directory,
    store="memory://",
    value_serializer="json",
    topic_partitions=job.partitions,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    # Without it each changelog record is a request of its own.
    producer_linger_ms=20,
    web_enabled=False,
)
attempts_topic = app.topic(job.topic, partitions=job.partitions, key_type=str)
learners = app.Table("learners", partitions=job.partitions, key_type=str)


@app.agent(attempts_topic)
async def fold(attempts: faust.Stream) -> None:
    """Fold attempts into the table of learners."""
    folded = 0
    theta_sum = 0.0
    async for attempt in attempts:
        if not folded:
            job.begin()
        user = attempt["user_id"]
        before = learners.get(user) or PRIOR
        after = learners[user] = updated(before, attempt["correct"])
        theta_sum += after[2] - before[2]
        folded += 1
        if folded == job.events:
            # Until here the last changelog records and offsets are not at the broker.
            await app.producer.flush()
            await app.consumer.commit()
            job.end(theta_sum)
            await app.stop()


if __name__ == "__main__":
    faust.Worker(
        app, loglevel="warning", quiet=True, redirect_stdouts=False
    ).execute_from_commandline()
