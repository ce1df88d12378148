"""The roles as child processes, and what they say of themselves."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import asyncpg
import httpx
import orjson

from schemas.codec import decode
from stream.engine.state import Position
from stream.kafka.clients import new_producer
from stream.kafka.reader import Record, read_whole
from stream.settings import Settings
from tests.engine.conftest import environment, wait_for
from tests.engine.events import event

# No keep-alive: an old connection says nothing of the process that listens now.
_client = httpx.Client(
    timeout=5.0, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
)


class RoleProcess:
    """One role as a child process."""

    def __init__(self, role: str, settings: Settings, log: Path) -> None:
        self.role = role
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream", "run", "--role", role, "--web-port", "0"],
                env=environment(settings),
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        """Base URL of its HTTP server, as its log tells."""
        found = wait_for(lambda: re.findall(r"listening on \[\('([\d.]+)', (\d+)", self.text()))
        host, port = found[-1]
        return f"http://{host}:{port}"

    def get(self, path: str) -> httpx.Response | None:
        """Ask its HTTP server; None without an answer."""
        try:
            return _client.get(f"{self.url}{path}")
        except httpx.HTTPError:
            return None

    def status(self, path: str) -> int | None:
        """Return the status that a path answers with; None without an answer."""
        response = self.get(path)
        return None if response is None else response.status_code

    def wait_status(self, path: str, wanted: int, timeout_s: float = 60.0) -> None:
        """Wait until a path answers with a status."""
        wait_for(lambda: self.status(path) == wanted, timeout_s)

    def wait_ready(self) -> RoleProcess:
        """Wait until it says that it can do its work."""
        self.wait_status("/readyz", 200)
        return self

    def wait_end(self, timeout_s: float) -> int:
        """Wait until the process has ended by itself; return its exit status."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the {self.role} has not ended within {timeout_s:.0f} s:\n{self.text()[-4000:]}"
            ) from None

    def kill(self) -> None:
        """End it at once, also when it is stopped."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


class Roles:
    """Starts roles and ends them; a context manager.

    Parameters
    ----------
    settings
        Of all of them; the topics have been made.
    directory
        For their logs.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings = settings
        self.started: list[RoleProcess] = []
        self._directory = directory
        self._sent = 0

    def __enter__(self) -> Roles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for one in self.started:
            one.kill()

    def start(self, role: str, **changes: object) -> RoleProcess:
        """Start one more process of a role, with some settings changed."""
        settings = dataclasses.replace(self.settings, **changes)  # type: ignore[arg-type]
        log = self._directory / f"{role}-{len(self.started)}.log"
        process = RoleProcess(role, settings, log)
        self.started.append(process)
        return process

    def send(self, number: int, learners: int = 50, day: float = 0.0) -> None:
        """Send some more attempts, evenly of all learners; returns when the broker has them."""
        producer = new_producer(self.settings)
        topic = self.settings.topic("attempts")
        for n in range(self._sent, self._sent + number):
            one = event(f"a{n}", f"u{n % learners}", day)
            producer.produce(topic, orjson.dumps(one), one["user_id"].encode())
            producer.poll(0)
        assert producer.flush(60) == 0
        self._sent += number

    def read(self, name: str) -> list[Record]:
        """Return all committed records of a topic, in order a partition."""
        records: list[Record] = []
        read_whole(self.settings, {name: records.extend})
        return records

    def counted(self) -> int:
        """Return how many attempts have been counted, as committed."""
        rows = [r for r in self.read("engine-state") if r.key() == b"O"]
        newest = {r.partition(): decode(r.value() or b"", Position) for r in rows}
        return sum(position.counts.get("accepted", 0) for position in newest.values())

    def in_tables(self) -> int:
        """Return the attempts that the daily rows in PostgreSQL add up to."""

        async def read() -> int:
            connection = await asyncpg.connect(self.settings.database_url)
            try:
                total: int = await connection.fetchval(
                    f'select coalesce(sum(attempts), 0) from "{self.settings.db_schema}".'
                    "features_topic_daily"
                )
            finally:
                await connection.close()
            return int(total)

        return asyncio.run(read())

    def wait_in_tables(self, number: int) -> None:
        """Wait until the daily rows add up to exactly so many attempts."""
        wait_for(lambda: self.in_tables() >= number, 90.0)
        assert self.in_tables() == number

    def wait_counted(self, number: int) -> None:
        """Wait until exactly so many attempts have been counted."""
        wait_for(lambda: self.counted() >= number)
        assert self.counted() == number


def end_all(processes: list[RoleProcess], within_s: float) -> dict[str, int]:
    """Send SIGTERM to all at once; return the exit status of each, all within a time."""
    began = time.monotonic()
    for one in processes:
        one.process.send_signal(signal.SIGTERM)
    return {one.role: one.wait_end(within_s - (time.monotonic() - began)) for one in processes}
