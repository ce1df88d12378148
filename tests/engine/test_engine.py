"""The engine as a process, on the real broker."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import httpx
import orjson
import pytest

from schemas.codec import decode
from schemas.outputs import ThetaUpdate
from stream.domain.window import DAY_MS
from tests.engine.conftest import Cluster, wait_for
from tests.engine.events import event

pytestmark = pytest.mark.integration

NOW_MS = int(time.time() * 1000)


def recent(attempt_id: str, user_id: str = "u1", **fields: Any) -> dict[str, Any]:
    return event(attempt_id, user_id, **{"completed_at": NOW_MS, **fields})


def thetas(cluster: Cluster) -> dict[str, ThetaUpdate]:
    updates = [decode(record.value(), ThetaUpdate) for record in cluster.read("theta-updates")]
    return {update.user_id: update for update in updates}


def test_an_attempt_is_in_the_lookup_and_survives_a_restart(cluster: Cluster) -> None:
    engine = cluster.start().wait_ready()
    cluster.send([recent("a"), recent("b", correct=False)])
    url = f"{engine.url}/theta/u1"
    body = wait_for(lambda: httpx.get(url).status_code == 200 and httpx.get(url).json())
    wait_for(lambda: httpx.get(url).json()["n"] == 2)
    before = httpx.get(url).json()
    assert body["source"] == "live"
    assert [topic["topic_id"] for topic in before["topics"]] == ["t1"]
    assert engine.end() == 0
    after = httpx.get(f"{cluster.start().wait_ready().url}/theta/u1").json()
    for name in ("theta", "se", "n", "correct", "last_attempt_at", "topics"):
        assert after[name] == before[name]


def test_an_unknown_learner_is_503_without_a_store_and_health_is_served(cluster: Cluster) -> None:
    # No PostgreSQL in this test: the engine says that it cannot know.
    url = cluster.start().wait_ready().url
    assert httpx.get(f"{url}/theta/nobody").status_code == 503
    assert httpx.get(f"{url}/healthz").json() == {"status": "alive"}
    assert "thetastream_learners" in httpx.get(f"{url}/metrics").text


def test_rubbish_goes_to_the_dead_letters_and_the_good_around_it_is_counted(
    cluster: Cluster,
) -> None:
    rubbish: list[tuple[bytes | None, bytes, str]] = [
        (b"u1", b"not json", "not_json"),
        (b"u1", orjson.dumps(recent("x", correct="yes")), "invalid"),
        (b"u1", orjson.dumps({"attempt_id": "x"}), "invalid"),
        (b"u1", orjson.dumps(recent("x", schema_version=9)), "unknown_version"),
        (b"u2", orjson.dumps(recent("x")), "key_mismatch"),
        (b"u1", orjson.dumps(recent("x", completed_at="2099-01-01T00:00:00Z")), "too_early"),
        (b"u1", orjson.dumps(recent("x", completed_at=NOW_MS - 60 * DAY_MS)), "too_late"),
        (b"u1", b"x" * (1024 * 1024), "too_large"),
        (b"u1", b'{"attempt_id": "\xff\xfe"}', "not_utf8"),
    ]
    sent: list[Any] = [recent("first")]
    for number, (key, value, _) in enumerate(rubbish):
        sent += [(key, value), recent(f"good{number}")]
    cluster.start().wait_ready()
    cluster.send(sent)
    counts = cluster.wait_counted(len(sent))
    assert counts.pop("accepted") == 1 + len(rubbish)
    assert sum(counts.values()) == len(rubbish)
    letters = {
        (dict(record.headers())["reason"].decode(), record.key(), record.value())
        for record in cluster.read("attempts.dlq")
    }
    assert letters == {(reason, key, value) for key, value, reason in rubbish}


def test_a_killed_engine_loses_and_doubles_nothing(cluster: Cluster) -> None:
    rng = random.Random(5)
    events = [recent(f"a{n}", f"u{rng.randrange(40)}") for n in range(6000)]
    with_duplicates = [e for e in events for _ in range(2 if rng.random() < 0.05 else 1)]
    engine = cluster.start().wait_ready()
    for start in range(0, len(with_duplicates), 1500):
        cluster.send(with_duplicates[start : start + 1500])
        time.sleep(0.15)
        assert engine.end(signal.SIGKILL) == -signal.SIGKILL
        engine = cluster.start().wait_ready()
    counts = cluster.wait_counted(len(with_duplicates))
    assert counts == {"accepted": 6000, "duplicate": len(with_duplicates) - 6000}
    want: dict[str, int] = {}
    for one in events:
        want[one["user_id"]] = want.get(one["user_id"], 0) + 1
    assert {user: update.n for user, update in thetas(cluster).items()} == want


def test_a_paused_engine_that_wakes_writes_nothing_stale(cluster: Cluster) -> None:
    zombie = cluster.start().wait_ready()
    cluster.send(recent(f"a{n}", f"u{n % 7}") for n in range(500))
    cluster.wait_counted(500)
    cluster.send(recent(f"b{n}", f"u{n % 7}") for n in range(500))
    zombie.send_signal(signal.SIGSTOP)
    other = cluster.start().wait_ready()
    cluster.send(recent(f"c{n}", f"u{n % 7}") for n in range(500))
    counts = cluster.wait_counted(1500)
    assert counts == {"accepted": 1500}
    zombie.send_signal(signal.SIGCONT)
    # Awake again it either learns that it holds nothing, or is fenced at its flush.
    wait_for(lambda: zombie.process.poll() is not None or "Joined group" in zombie.text()[-20000:])
    cluster.send(recent(f"d{n}", f"u{n % 7}") for n in range(500))
    assert cluster.wait_counted(2000) == {"accepted": 2000}
    assert sum(update.n for update in thetas(cluster).values()) == 2000
    assert other.process.poll() is None
    if zombie.process.poll() is not None:
        assert zombie.process.returncode != 0


def test_a_second_engine_takes_partitions_over_and_gives_them_back(cluster: Cluster) -> None:
    first = cluster.start().wait_ready()
    cluster.send(recent(f"a{n}", f"u{n % 11}") for n in range(1000))
    cluster.wait_counted(1000)
    second = cluster.start().wait_ready()
    cluster.send(recent(f"b{n}", f"u{n % 11}") for n in range(1000))
    cluster.wait_counted(2000)
    held = [
        sum(httpx.get(f"{e.url}/theta/u{n}").status_code == 200 for n in range(11))
        for e in (first, second)
    ]
    assert sum(held) == 11
    assert second.end() == 0
    cluster.send(recent(f"c{n}", f"u{n % 11}") for n in range(1000))
    assert cluster.wait_counted(3000) == {"accepted": 3000}
    want = {f"u{n}": 273 if n < 10 else 270 for n in range(11)}
    assert {user: update.n for user, update in thetas(cluster).items()} == want
