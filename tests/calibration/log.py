"""A small log of attempts with the totals an engine would publish, and ways to look at topics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from schemas.calibration import MANIFEST_KEY, ParamsManifest
from schemas.codec import decode, decode_any, encode
from schemas.outputs import ItemPartial
from stream.kafka.clients import new_producer
from stream.kafka.reader import Record, read_whole
from stream.settings import Settings

DEADLINE_S = 120.0
LEARNERS, ITEMS = 60, 10
NOW_MS = 1_750_000_000_000


def respond(settings: Settings, repeat: int = 0) -> None:
    """Write what learners answered (each item once), and the totals as the engine would."""
    rng = np.random.default_rng(repeat)
    theta = rng.normal(size=LEARNERS)
    producer = new_producer(settings)
    offsets: list[int] = []
    totals: dict[tuple[int, int], list[int]] = {}

    def delivered(_error: object, message: Any) -> None:
        offsets.append(message.offset())

    for learner in range(LEARNERS):
        for item in range(ITEMS):
            correct = rng.random() < 1 / (1 + np.exp(-(theta[learner] - difficulty(item))))
            event = {
                "attempt_id": f"{learner}-{item}-{repeat}",
                "user_id": f"u{repeat}-{learner}",
                "item_id": f"i{item}",
                "correct": bool(correct),
                "completed_at": NOW_MS + repeat * 1000,
            }
            row = totals.setdefault((item, learner % 2), [0, 0])
            row[0] += repeat + 1
            row[1] += int(correct)
            producer.produce(
                settings.topic("attempts"),
                msgspec.json.encode(event),
                f"u{repeat}-{learner}".encode(),
                learner % 2,
                on_delivery=delivered,
            )
    producer.flush(DEADLINE_S)
    assert len(offsets) == LEARNERS * ITEMS
    for (item, partition), (n, correct) in totals.items():
        partial = ItemPartial(f"i{item}", partition, n, correct, 0.0, 0.0, max(offsets))
        producer.produce(
            settings.topic("item-partials"), encode(partial), f"{partition}|i{item}".encode()
        )
    producer.flush(DEADLINE_S)


def difficulty(item: int) -> float:
    return item / 3 - 1.5


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - topics set no event
            await asyncio.sleep(0.05)


def whole(settings: Settings, topic: str) -> list[Record]:
    found: list[Record] = []
    read_whole(settings, {topic: found.extend})
    return found


def results(settings: Settings) -> list[dict[str, Any]]:
    return [decode_any(r.value() or b"") for r in whole(settings, "calibration-results")]


def result_types(settings: Settings) -> list[str]:
    return [record["type"] for record in results(settings)]


def manifests(settings: Settings) -> list[ParamsManifest]:
    return [
        decode(r.value() or b"", ParamsManifest)
        for r in whole(settings, "item-params")
        if r.key() == MANIFEST_KEY
    ]
