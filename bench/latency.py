"""How soon is an attempt in the lookup, and in PostgreSQL? ``make latency``.

Each of 200 attempts by new learners is produced alone, then looked up until it is there; after
that, its row is awaited in PostgreSQL. Times run from just before the produce call.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time

import asyncpg
import httpx
import orjson

from bench.pipeline import RESULTS, Pipeline, percentile, running_pipeline
from stream.kafka.clients import new_producer

ATTEMPTS = 200
WARM_UP = 10
_GIVE_UP_S = 30.0


async def measure(pipeline: Pipeline) -> dict[str, float]:
    """Send attempts one by one and time them.

    Returns
    -------
    dict
        attempt_to_lookup_p50_ms, attempt_to_lookup_p99_ms, attempt_to_row_p50_ms,
        attempt_to_row_p99_ms.
    """
    producer = new_producer(pipeline.settings, **{"linger.ms": 0})
    lookups: list[float] = []
    rows: list[asyncio.Task[float]] = []
    pool = await asyncpg.create_pool(pipeline.settings.database_url, min_size=2, max_size=8)
    async with httpx.AsyncClient(base_url=pipeline.url, timeout=10) as client:
        for number in range(WARM_UP + ATTEMPTS):
            user = f"latency-{number}"
            event = {
                "attempt_id": user,
                "user_id": user,
                "item_id": f"item-{number % 20}",
                "topic_id": "topic",
                "correct": number % 3 > 0,
                "response_time_ms": 1000,
                "completed_at": int(time.time() * 1000),
            }
            began = time.perf_counter()
            producer.produce("attempts", orjson.dumps(event), user)
            producer.poll(0)
            while (await client.get(f"/theta/{user}")).status_code != httpx.codes.OK:
                if time.perf_counter() - began > _GIVE_UP_S:
                    raise SystemExit(f"{user} did not appear in the lookup")
                await asyncio.sleep(0.001)
            if number >= WARM_UP:
                lookups.append((time.perf_counter() - began) * 1000)
                rows.append(asyncio.create_task(_row(pool, user, began)))
            await asyncio.sleep(0.02)
    row_times = await asyncio.gather(*rows)
    await pool.close()
    return {
        "attempt_to_lookup_p50_ms": round(statistics.median(lookups), 2),
        "attempt_to_lookup_p99_ms": round(percentile(lookups, 0.99), 2),
        "attempt_to_row_p50_ms": round(statistics.median(row_times), 2),
        "attempt_to_row_p99_ms": round(percentile(row_times, 0.99), 2),
    }


async def _row(pool: asyncpg.Pool, user: str, began: float) -> float:
    """Return after how many milliseconds the learner's daily row is in PostgreSQL."""
    query = "select 1 from features_topic_daily where user_id = $1"
    while await pool.fetchval(query, user) is None:
        if time.perf_counter() - began > _GIVE_UP_S:
            raise SystemExit(f"the row of {user} did not appear")
        await asyncio.sleep(0.02)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Measure, print and write ``bench/results/latency.json``."""
    with running_pipeline() as pipeline:
        result = asyncio.run(measure(pipeline))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latency.json").write_text(json.dumps(result, indent=2) + "\n")
    for name, value in result.items():
        print(f"{name:28s} {value:10.2f}")


if __name__ == "__main__":
    main()
