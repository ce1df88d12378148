from __future__ import annotations

from typing import Any

import orjson

from stream.sources.produce import send_attempts


class Producer:
    """Remembers what was produced; its queue is full now and then."""

    def __init__(self, full_every: int = 0) -> None:
        self.sent: list[tuple[str, dict[str, Any], str]] = []
        self.calls = 0
        self.full_every = full_every

    def produce(self, topic: str, value: bytes, key: str) -> None:
        self.calls += 1
        if self.full_every and self.calls % self.full_every == 0:
            raise BufferError
        self.sent.append((topic, orjson.loads(value), key))

    def poll(self, timeout: float) -> int:
        return 0

    def flush(self) -> int:
        return 0


def attempts(*times_ms: int) -> list[dict[str, Any]]:
    return [{"user_id": f"u{n}", "completed_at": at} for n, at in enumerate(times_ms)]


def test_attempts_go_out_in_order_keyed_by_learner() -> None:
    producer, counted = Producer(), []
    assert send_attempts(producer, "attempts", attempts(1, 2), progress=counted.append) == 2
    assert [(key, event["completed_at"]) for _, event, key in producer.sent] == [
        ("u0", 1),
        ("u1", 2),
    ]
    assert counted == [2]


def test_a_full_queue_loses_nothing() -> None:
    producer = Producer(full_every=3)
    assert send_attempts(producer, "attempts", attempts(*range(50))) == 50
    assert [event["completed_at"] for _, event, _ in producer.sent] == list(range(50))


def test_a_speed_keeps_the_distances_and_sends_late_ones_at_once() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds

    times = attempts(0, 60_000, 30_000, 180_000)
    send_attempts(Producer(), "attempts", times, speed=60.0, sleep=sleep, clock=lambda: now[0])
    assert slept == [1.0, 2.0]
