"""Lookups of random learners, in a process of their own: ``python -m bench.outage_lookups``.

Arguments: URL and seconds; learners come on standard input, as a list in JSON. One lookup every
20 ms, over one connection. Prints one line of JSON: answers by status, and the times of those with
status 200.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter

import httpx

from bench.pipeline import percentile

_EVERY_S = 0.02


def main() -> None:
    """Look learners up for a while."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    learners = json.load(sys.stdin)
    rng = random.Random(1)
    answers: Counter[str] = Counter()
    times_ms: list[float] = []
    ends_at = time.perf_counter() + seconds
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        while (began := time.perf_counter()) < ends_at:
            try:
                status = client.get(f"/theta/{rng.choice(learners)}").status_code
            except httpx.HTTPError as error:
                answers[type(error).__name__] += 1
            else:
                answers[str(status)] += 1
                if status == httpx.codes.OK:
                    times_ms.append((time.perf_counter() - began) * 1000)
            time.sleep(max(0.0, _EVERY_S - (time.perf_counter() - began)))
    times = times_ms or [float("inf")]
    found = {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99)}
    rounded = {name: round(value, 2) for name, value in {**found, "max_ms": max(times)}.items()}
    print(json.dumps({**rounded, "answers": dict(answers)}))


if __name__ == "__main__":
    main()
