"""thetastream's whole job: engine processes as they are deployed, watched from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bench.meter import Figure, Meter
from bench.pipeline import wait_until
from schemas.codec import decode
from stream.engine.rows import POSITION_KEY
from stream.engine.state import Position
from stream.kafka.admin import create_topics
from stream.kafka.clients import client_config, new_consumer
from stream.settings import Settings, describe

__all__ = ["Positions", "RoleProcess", "environment", "reset", "run_engine", "running_role"]

_TIMEOUT_S = 1800.0


def environment(settings: Settings) -> dict[str, str]:
    """Return settings as a process's environment."""
    values = {row["env"]: getattr(settings, row["field"]) for row in describe()}
    return {
        **{name: value for name, value in os.environ.items() if name not in values},
        **{
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in values.items()
        },
    }


class RoleProcess:
    """A role in a process of its own, as ``thetastream run --role ROLE`` starts it."""

    def __init__(self, role: str, settings: Settings, log: Path) -> None:
        self.role = role
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream", "run", "--role", role, "--web-port", "0"],
                env=environment(settings),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._url: str | None = None

    @property
    def url(self) -> str | None:
        """Base URL of its HTTP server, as its log tells; None before that."""
        if self._url is None:
            found = re.search(r"listening on \[\('([\d.]+)', (\d+)", self._log.read_text())
            self._url = f"http://{found[1]}:{found[2]}" if found else None
        return self._url

    def ready(self) -> bool:
        """Tell whether it answers that its partitions are loaded."""
        self.check()
        try:
            return self.url is not None and httpx.get(f"{self.url}/readyz", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def check(self) -> None:
        """End the measurement if the process has ended."""
        if self.process.poll() is not None:
            tail = self._log.read_text(errors="replace")[-3000:]
            sys.exit(f"the {self.role} ended with {self.process.returncode}:\n{tail}")

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(name) and line[len(name)] in "{ "
        )

    def end(self) -> None:
        """Ask it to end, and see that it does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def running_role(role: str, settings: Settings) -> Iterator[RoleProcess]:
    """Run a role for as long as the block lasts; it may not be ready yet."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{role}-") as directory:
        process = RoleProcess(role, settings, Path(directory) / "log")
        try:
            yield process
        finally:
            process.end()


class Positions:
    """How far the attempts are folded **and committed**: the engine's offset rows.

    A flush ends with its partition's offset row, and the commit marker follows it. So only the
    end of each partition of ``engine-state`` is read, which costs next to nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self._state = settings.topic("engine-state")
        self._attempts = settings.topic("attempts")
        self._admin = AdminClient(client_config(settings))
        self._consumer: Consumer = new_consumer(
            settings, **{"group.id": "bench-positions", "fetch.wait.max.ms": 10}
        )
        count = len(self._consumer.list_topics(self._attempts, timeout=15).topics[
            self._attempts
        ].partitions)  # fmt: skip
        self._seen = dict.fromkeys(range(count), 0)
        self.folded = dict.fromkeys(range(count), 0)
        self.total = sum(self._ends(self._attempts).values())

    def look(self) -> int:
        """Return the number of attempts that committed flushes cover."""
        try:
            ends = self._ends(self._state)
        except KafkaException:
            # The topics were made anew a moment ago: the next look knows their leaders.
            ends = {}
        for partition, end in ends.items():
            if end > self._seen[partition]:
                self._seen[partition] = end
                self._read_tail(partition, end)
        return sum(self.folded.values())

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def _ends(self, topic: str) -> dict[int, int]:
        """Return where each partition ends for who reads committed records."""
        futures = self._admin.list_offsets(
            {TopicPartition(topic, partition): OffsetSpec.latest() for partition in self._seen},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=15,
        )
        return {tp.partition: future.result().offset for tp, future in futures.items()}

    def _read_tail(self, partition: int, end: int) -> None:
        # The last offset is the commit marker, the one before it the offset row.
        self._consumer.assign([TopicPartition(self._state, partition, max(0, end - 8))])
        ends_at = time.monotonic() + 10
        while time.monotonic() < ends_at:
            message = self._consumer.poll(1)
            if message is None:
                continue
            if message.error():
                break
            value, offset = message.value(), message.offset()
            assert offset is not None
            if message.key() == POSITION_KEY and value is not None:
                self.folded[partition] = decode(value, Position).attempts + 1
            if offset >= end - 2:
                break
        self._consumer.unassign()


def reset(settings: Settings) -> None:
    """Forget all that engines made of the attempts; the attempts stay."""
    admin = AdminClient(client_config(settings))
    own = settings.topic("")
    attempts = settings.topic("attempts")
    topics = [
        name
        for name in admin.list_topics(timeout=15).topics
        if name.startswith(own) and name != attempts
    ]
    if topics:
        for future in admin.delete_topics(topics, operation_timeout=30).values():
            future.result()
        wait_until(lambda: not set(topics) & set(admin.list_topics(timeout=15).topics.keys()), 60)
    group = settings.topic("thetastream-engine")
    with suppress(KafkaException):  # There was none yet.
        admin.delete_consumer_groups([group])[group].result()
    create_topics(settings)


def run_engine(settings: Settings, *, learners: int, version: str, processes: int = 1) -> Figure:
    """Let thetastream fold a topic once.

    The clock starts when the engine (the last of several) says that it is ready, with the whole
    topic there, and stops when the flush that covers the last attempt is seen committed. Several
    engines: what the first folded before the last was ready does not count.
    """
    reset(settings)
    positions = Positions(settings)
    with ExitStack() as stack:
        stack.callback(positions.close)
        engines = [stack.enter_context(running_role("engine", settings)) for _ in range(processes)]
        wait_until(lambda: all(engine.ready() for engine in engines), 120, every_s=0.02)
        meter = Meter(*(engine.process.pid for engine in engines))
        meter.begin()
        before = positions.look()

        def done() -> bool:
            for engine in engines:
                engine.check()
            return positions.look() >= positions.total

        wait_until(done, _TIMEOUT_S, every_s=0.05)
        measured = meter.end()
    return Figure.of(
        measured,
        positions.total - before,
        engine="thetastream" if processes == 1 else f"thetastream, {processes} processes",
        job="whole",
        learners=learners,
        version=version,
        cpu_s_each=meter.cpu_s_each if processes > 1 else (),
    )
