"""The limit of reading: aiokafka and orjson, and nothing is done with what was read."""

from __future__ import annotations

import asyncio

import aiokafka
import orjson
import uvloop
from small_job import Job


async def read(job: Job) -> None:
    """Parse the topic's attempts."""
    consumer = aiokafka.AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.broker,
        group_id=job.name,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    seen = 0
    while seen < job.events:
        batches = await consumer.getmany(timeout_ms=1000, max_records=4000)
        if batches and not seen:
            job.begin()
        for records in batches.values():
            for record in records:
                orjson.loads(record.value)
            seen += len(records)
    await consumer.commit()
    job.end(None)
    await consumer.stop()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(read(Job.from_argument()))
