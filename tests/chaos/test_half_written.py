"""A process that dies between the writes of two tables leaves no half behind."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from schemas.codec import decode
from schemas.outputs import ThetaUpdate, TopicPartial
from stream.kafka.clients import new_consumer
from stream.migrate import migrate
from stream.settings import Settings
from tests.engine.conftest import Cluster, environment, wait_for
from tests.engine.events import event

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HERE = Path(__file__).parent
LEARNERS = 40


@pytest.fixture
def cluster(settings: Settings, tmp_path: Path) -> Iterator[Cluster]:
    one = Cluster(settings, tmp_path)
    yield one
    for engine in one.engines:
        if engine.process.poll() is None:
            engine.process.kill()
            engine.process.wait(10)


def run_to_death(
    script: str, settings: Settings, log: Path, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Run a script of this directory until it has killed itself."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, HERE / script],
            env={**environment(settings), "PYTHONPATH": str(HERE.parent.parent)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        ends_at = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < ends_at:
            meanwhile()
            time.sleep(0.05)
        process.kill()
        code = process.wait(10)
    assert code == -signal.SIGKILL, log.read_text(errors="replace")[-3000:]
    assert time.monotonic() < ends_at, f"it did not die:\n{log.read_text(errors='replace')[-3000:]}"


def attempts(first: int, count: int) -> list[dict[str, Any]]:
    rng = random.Random(first)
    now_ms = int(time.time() * 1000)
    return [
        event(f"a{n}", f"u{rng.randrange(LEARNERS)}", topic_id=f"t{n % 3}", completed_at=now_ms)
        for n in range(first, first + count)
    ]


def uncommitted(settings: Settings, name: str) -> int:
    """Count the records of a topic, those of aborted and open transactions included."""
    consumer = new_consumer(settings, **{"isolation.level": "read_uncommitted"})
    topic = settings.topic(name)
    count = 0
    try:
        consumer.assign(
            [TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(settings.partitions)]
        )
        ended: set[int] = set()
        while len(ended) < settings.partitions:
            message = consumer.poll(5)
            assert message is not None
            if message.error() is None:
                count += 1
            else:
                ended.add(message.partition() or 0)
    finally:
        consumer.close()
    return count


def visible(cluster: Cluster) -> tuple[int, int, int]:
    """Return the attempts that three tables speak of: offset rows, learners, topic totals."""
    thetas = {r.key(): decode(r.value(), ThetaUpdate) for r in cluster.read("theta-updates")}
    partials = {r.key(): decode(r.value(), TopicPartial) for r in cluster.read("topic-partials")}
    return (
        cluster.counts().get("accepted", 0),
        sum(update.n for update in thetas.values()),
        sum(partial.attempts for partial in partials.values()),
    )


def test_nothing_of_a_flush_cut_off_between_two_tables_is_visible(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = cluster.settings
    sent: list[dict[str, Any]] = []

    def send_some() -> None:
        some = attempts(len(sent), 20)
        cluster.send(some)
        sent.extend(some)

    for _ in range(2):
        # Each run commits some flushes, then dies within one.
        run_to_death("dying_engine.py", settings, tmp_path / "dying.log", send_some)
    committed = len(cluster.read("theta-updates"))
    counted, learners, topics = visible(cluster)
    assert uncommitted(settings, "theta-updates") > committed
    assert counted == learners == topics < len(sent)

    cluster.start()
    assert cluster.wait_counted(len(sent)) == {"accepted": len(sent)}
    assert visible(cluster) == (len(sent),) * 3
    want = Counter(e["user_id"] for e in sent)
    thetas = {r.key(): decode(r.value(), ThetaUpdate) for r in cluster.read("theta-updates")}
    assert {update.user_id: update.n for update in thetas.values()} == want


def test_a_sink_killed_between_two_tables_is_made_good_by_the_next(
    cluster: Cluster, database_url: str, tmp_path: Path
) -> None:
    asyncio.run(migrate(database_url))
    cluster.send(attempts(0, 600))
    cluster.start()
    cluster.wait_counted(600)
    updates = {r.key(): decode(r.value(), ThetaUpdate) for r in cluster.read("theta-updates")}
    settings = dataclasses.replace(cluster.settings, database_url=database_url)
    run_to_death("dying_sink.py", settings, tmp_path / "dying.log")
    live, by_topic = asyncio.run(rows(database_url))
    assert live
    assert not by_topic

    with (tmp_path / "sink.log").open("wb") as out:
        sink = subprocess.Popen(
            [sys.executable, "-m", "stream", "run", "--role", "sink", "--web-port", "0"],
            env=environment(settings),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        want_live = {u.user_id: u.source_offset for u in updates.values()}
        want_topics = {
            (u.user_id, t.topic_id): u.source_offset for u in updates.values() for t in u.topics
        }
        wait_for(lambda: asyncio.run(rows(database_url)) == (want_live, want_topics))
    finally:
        sink.terminate()
        assert sink.wait(30) == 0


async def rows(database_url: str) -> tuple[dict[Any, int], dict[Any, int]]:
    """Return the source offsets of the live rows of both tables."""
    connection = await asyncpg.connect(database_url)
    try:
        live = await connection.fetch("select * from mirt_ability where version = 'live'")
        by_topic = await connection.fetch("select * from student_topic_theta")
    finally:
        await connection.close()
    return (
        {r["user_id"]: r["source_offset"] for r in live},
        {(r["user_id"], r["topic_id"]): r["source_offset"] for r in by_topic},
    )
