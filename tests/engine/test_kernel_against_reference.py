"""The compiled engine against a plain Python form of the same rules, on random attempts."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from msgspec.structs import asdict

from schemas.calibration import BatchAbility
from schemas.codec import decode_any, encode
from stream.domain.practice import NO_WEIGHTS, Weights
from stream.domain.window import DAY_MS
from stream.engine.day import Day
from stream.engine.flush import Flush, Indicators
from stream.engine.learner import Learner
from stream.engine.params import ItemInForce, ParamsStore
from stream.engine.rows import StateLoader
from stream.engine.state import PartitionState
from stream.kafka.transaction import Outgoing
from tests.engine.events import MONDAY, FakeRecord, packed_rows, unpacked
from tests.engine.reference.flush import Flush as PlainFlush
from tests.engine.reference.state import PartitionState as PlainState

_TOPICS: list[str | None] = ["algebra", 'with "quotes" and \\', "größer", None]
_MANY_TOPICS = [f"topic-{k}" for k in range(60)] + [None]
"""More than a short row can tell: a learner's rows widen on the way."""
_WEIGHTS = Weights(*(0.03 * (-1) ** k * (k + 1) for k in range(len(NO_WEIGHTS))))


def _order(message: Outgoing) -> tuple[str, bytes, bool]:
    return message.topic, message.key or b"", message.value is None


def _readable(message: Outgoing) -> Any:
    """Return a value whose numbers can be compared."""
    if message.value is None or message.topic == "attempts.dlq":
        return message.value
    if message.topic == "engine-state" and message.key is not None:
        if message.key[:1] == b"L":
            learner = Learner.from_rows("u", message.value, b"")
            topics = [
                {name: getattr(topic, name) for name in topic.__slots__} for topic in learner.topics
            ]
            numbers = {
                name: getattr(learner, name)
                for name in ("g", "vg", "shift", "form", "folded", "attempts", "correct")
            }
            return {
                **numbers,
                "first": learner.first_day,
                "latest": learner.latest_ms,
                "topics": topics,
            }
        if message.key[:1] == b"D":
            day, _ = Day.unpack(message.value)
            return {
                "day": day.day,
                "theta": day.theta,
                "variance": day.variance,
                "topics": {str(k): list(v) for k, v in day.topics.items()},
                "counts": [day.attempts, day.correct],
                "hashes": day.hashes(),
                "rows": [day.row(k) for k in range(len(day))],
            }
    return decode_any(message.value)


def _memory(state: PartitionState | PlainState, user: str) -> bytes:
    learner = state.learner(user)
    assert learner is not None
    return learner.memory.pack()


def _assert_same(ours: Any, plain: Any, where: str) -> None:
    if isinstance(plain, dict):
        assert ours.keys() == plain.keys(), where
        for key in plain:
            _assert_same(ours[key], plain[key], f"{where}.{key}")
    elif isinstance(plain, list):
        assert len(ours) == len(plain), where
        for k, (one, other) in enumerate(zip(ours, plain, strict=True)):
            _assert_same(one, other, f"{where}[{k}]")
    elif isinstance(plain, float):
        assert ours == pytest.approx(plain, abs=1e-9, rel=1e-9), where
    else:
        assert ours == plain, where


def _params(rng: random.Random, weights: Weights) -> ParamsStore:
    params = ParamsStore()
    params.items = {
        f"item-{k}": ItemInForce(
            *(rng.uniform(0.4, 2.0), rng.gauss(0, 1), rng.choice([0.0, 0.2])),
            *(rng.choice([0.0, 0.1]), rng.choice([0.0, -0.4, 0.7])),
        )
        for k in range(15)
    }
    params.version = f"v{rng.randrange(10**6)}"
    params.weights = weights
    return params


def _value(
    rng: random.Random,
    seen: list[dict[str, Any]],
    clock: dict[str, float],
    topics: list[str | None],
) -> bytes:
    kind = rng.random()
    if kind < 0.02:
        return rng.choice([b"rubbish", b"{}", b'{"attempt_id":1}', b"\xff\xfe", b"{}\n{}"])
    if seen and kind < 0.08:
        return encode(rng.choice(seen))
    user = f"learner-{rng.randrange(12)}"
    clock[user] = clock.get(user, rng.uniform(0, 20)) + rng.expovariate(1) * rng.choice(
        [0.0004, 0.01, 0.3, 3.0]
    )
    day = clock[user] - rng.choice([0, 0, 0, 0, 1, 3, 6.9, 7.2, 30])
    value: dict[str, Any] = {
        "attempt_id": f"a{rng.randrange(10**9)}",
        "user_id": user,
        "item_id": f"item-{rng.randrange(30)}",
        "topic_id": rng.choice(topics),
        "correct": rng.random() < 0.6,
        "response_time_ms": rng.choice([None, 0, 86_400_000, rng.randrange(90_000)]),
        "hint_used": rng.random() < 0.2,
        "completed_at": int((MONDAY + max(day, -100)) * DAY_MS),
    }
    attempts = [one for one in seen if "op" not in one]
    if attempts and kind < 0.16:
        target = rng.choice(attempts[-40:])
        value |= {
            "user_id": target["user_id"],
            "item_id": target["item_id"] if rng.random() < 0.9 else "item-other",
            "op": rng.choice(["void", "regrade"]),
            "supersedes": target["attempt_id"],
        }
    seen.append(value)
    return encode(value)


def _records(rng: random.Random, n: int, topics: list[str | None]) -> list[FakeRecord]:
    seen: list[dict[str, Any]] = []
    clock: dict[str, float] = {}
    records = []
    for offset in range(n):
        value = _value(rng, seen, clock, topics)
        try:
            user = msgspec.json.decode(value).get("user_id", "?")
        except (msgspec.DecodeError, AttributeError):
            user = "?"
        records.append(FakeRecord(user.encode(), value, offset))
    return records


@pytest.mark.parametrize("seed", range(8))
def test_every_row_and_every_message_is_that_of_the_plain_form(seed: int) -> None:
    rng = random.Random(seed)
    records = _records(rng, 1500, _MANY_TOPICS if seed >= 6 else _TOPICS)
    params = _params(rng, _WEIGHTS if seed % 2 else NO_WEIGHTS)
    ours, plain = PartitionState(3, 7, params), PlainState(3, 7, params)
    at = 0
    ours_watermark = plain_watermark = 0
    log: list[tuple[bytes, bytes | None]] = []
    while at < len(records):
        size = rng.choice([1, 5, 60, 200])
        part = records[at : at + size]
        # As the engine does: never more than a slice at once.
        for start in range(0, len(part), 37):
            ours.fold(part[start : start + 37])
        for record in part:
            plain.fold(record)
        at += size
        if rng.random() < 0.2:
            user = f"learner-{rng.randrange(12)}"
            batch = BatchAbility(
                user, rng.gauss(0, 1), 0.2, "run", "v", (MONDAY + rng.randrange(40)) * DAY_MS
            )
            record = FakeRecord(user.encode(), encode(batch), at)
            ours.fold_abilities([record])
            plain.fold_ability(record)
        if rng.random() < 0.2:
            fresh = _params(rng, params.weights)
            params.items, params.version = {**params.items, **fresh.items}, fresh.version
        week = max(ours.position.stream_week, rng.choice([0, MONDAY + 35]))
        flush = Flush(ours, Indicators(), week, 77, published_watermark=ours_watermark)
        expected = PlainFlush(plain, Indicators(), week, 77, published_watermark=plain_watermark)
        for _ in flush.build():
            pass
        for _ in expected.build():
            pass
        ours_watermark = plain_watermark = ours.position.stream_week
        order = lambda m: (m.topic, m.key or b"", m.value is None)  # noqa: E731
        got, wanted = (
            sorted(unpacked(flush.messages), key=order),
            sorted(expected.messages, key=order),
        )
        assert [(m.topic, m.key, m.partition, m.headers) for m in got] == [
            (m.topic, m.key, m.partition, m.headers) for m in wanted
        ]
        for one, other in zip(got, wanted, strict=True):
            _assert_same(_readable(one), _readable(other), f"{one.topic} {one.key!r}")
            if one.topic == "theta-updates":
                # Its rows may hold a part of it only: the latest answers lie in the days.
                user = (one.key or b"").decode()
                assert _memory(ours, user) == _memory(plain, user), user
        assert flush.outcomes == expected.outcomes
        log.extend(
            (message.key, message.value)
            for message in got
            if message.topic == "engine-state" and message.key is not None
        )
        if rng.random() < 0.1:
            # A new owner, from the rows alone, some of the older ones compacted away.
            newest = {key: place for place, (key, _) in enumerate(log)}
            log = [
                row
                for place, row in enumerate(log)
                if newest[row[0]] == place or rng.random() < 0.5
            ]
            ours = PartitionState(3, 7, params)
            loader, loaded = StateLoader(ours), 0
            while taken := log[loaded : loaded + 100]:
                loader.add(packed_rows(taken))
                loaded += len(taken)
            loader.finish()
            assert asdict(ours.position) == asdict(plain.position)
    assert len(ours) == len(plain)
    assert {"accepted", "duplicate", "too_late", "void", "regrade"} <= set(plain.position.counts)
    learners = [plain.learner(f"learner-{k}") for k in range(12)]
    most = max(len(learner.topics) for learner in learners if learner is not None)
    assert (most > 31) == (seed >= 6)
