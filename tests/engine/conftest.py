"""Engine processes on the real broker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from schemas.codec import decode
from stream.engine.state import Position
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.kafka.reader import read_whole
from stream.settings import Settings, describe

WAIT_S = 60.0


def environment(settings: Settings) -> dict[str, str]:
    """Return settings as a process's environment."""
    values = {row["env"]: getattr(settings, row["field"]) for row in describe()}
    return {
        **{k: v for k, v in os.environ.items() if k not in values},
        **{name: str(value).lower() if isinstance(value, bool) else str(value)
           for name, value in values.items()},
    }  # fmt: skip


class EngineProcess:
    """One engine as a child process."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream", "run", "--role", "engine", "--web-port", "0"],
                env=environment(settings),
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def url(self) -> str:
        """Base URL of its HTTP server, as its log tells."""
        found = wait_for(lambda: re.findall(r"listening on \[\('([\d.]+)', (\d+)", self.text()))
        host, port = found[-1]
        return f"http://{host}:{port}"

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_ready(self) -> EngineProcess:
        url = self.url
        wait_for(lambda: httpx.get(f"{url}/readyz", timeout=5).is_success, ignore=httpx.HTTPError)
        return self

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the engine did not end:\n{self.text()[-4000:]}") from None


def wait_for(
    found: Callable[[], Any],
    timeout_s: float = WAIT_S,
    ignore: type[Exception] | tuple[type[Exception], ...] = (),
) -> Any:
    """Wait until something is truthy and return it."""
    ends_at = time.monotonic() + timeout_s
    while True:
        try:
            value = found()
        except ignore:
            value = None
        if value:
            return value
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(0.1)


class Cluster:
    """Topics of one test, its engines, and what they have written."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings = settings
        self.engines: list[EngineProcess] = []
        self._directory = directory
        create_topics(settings)
        self.producer = new_producer(settings)

    def start(self) -> EngineProcess:
        engine = EngineProcess(self.settings, self._directory / f"engine{len(self.engines)}.log")
        self.engines.append(engine)
        return engine

    def send(self, events: Any) -> None:
        """Send events, or (key, bytes) pairs as they are."""
        topic = self.settings.topic("attempts")
        for event in events:
            if isinstance(event, dict):
                event = (event["user_id"].encode(), orjson.dumps(event))
            self.producer.produce(topic, event[1], event[0])
            self.producer.poll(0)
        assert self.producer.flush(30) == 0

    def read(self, name: str) -> list[Any]:
        """Return all committed records of a topic, in order a partition."""
        records: list[Any] = []
        read_whole(self.settings, {name: records.extend})
        return records

    def counts(self) -> dict[str, int]:
        """Return the outcomes of all partitions, as committed."""
        newest = {r.partition(): r.value() for r in self.read("engine-state") if r.key() == b"O"}
        total: dict[str, int] = {}
        for value in newest.values():
            for outcome, count in decode(value, Position).counts.items():
                total[outcome] = total.get(outcome, 0) + count
        return total

    def wait_counted(self, number: int) -> dict[str, int]:
        """Wait until that many attempt records have an outcome."""

        def enough() -> dict[str, int] | None:
            counts = self.counts()
            done = sum(v for k, v in counts.items() if k != "batch_ability")
            return counts if done >= number else None

        counts: dict[str, int] = wait_for(enough)
        return counts


@pytest.fixture
def cluster(settings: Settings, tmp_path: Path) -> Iterator[Cluster]:
    one = Cluster(settings, tmp_path)
    yield one
    for engine in one.engines:
        if engine.process.poll() is None:
            engine.process.kill()
            engine.process.wait(10)
