"""One trial: a pipeline of its own, a replay, some rounds of faults, then the comparison."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.chaos import faults
from bench.chaos.check import CheckReport, check_all
from bench.chaos.cluster import Cluster, HangError, wait_for
from bench.chaos.expected import ExpectedAll, expect
from bench.chaos.progress import Replay, RoleProgress, unfinished
from bench.chaos.workload import Workload
from schemas.calibration import MANIFEST_KEY, ItemParamsRecord, ParamsManifest
from schemas.codec import encode
from stream.kafka.admin import create_topics
from stream.kafka.transaction import Outgoing, TransactionalPublisher
from stream.local.stack import Stack
from stream.migrate import migrate
from stream.settings import Settings
from topics.catalogue import item_params_topic

__all__ = ["Round", "Trial", "TrialConfig"]

RECOVERY_S = 120.0
"""Seconds from a fault's end within which everything sent before must be done."""

DRAIN_S = 180.0

_LOOKUPS = 25
"""Learners asked for after each round."""

_FIXED = {
    # Triggers off: the parameters published before the first attempt stay.
    "THETASTREAM_TRIGGER_RESPONSES": "1000000000",
    "THETASTREAM_TRIGGER_ITEM_RESPONSES": "1000000000",
}
_LIVE = {
    "THETASTREAM_TRIGGER_RESPONSES": "5000",
    "THETASTREAM_TRIGGER_COOLDOWN_SECS": "10",
    "THETASTREAM_PROVISIONAL_SECS": "1",
}


@dataclass(frozen=True)
class TrialConfig:
    """What a trial is like.

    Attributes
    ----------
    kinds
        The fault of each round.
    fixed_params
        Item parameters are published before the first attempt and stay; otherwise the
        calibrator's triggers are on.
    rate
        Records a second.
    round_records
        Records sent in each round.
    """

    name: str
    kinds: Sequence[str]
    seed: int
    fixed_params: bool
    rate: float = 2000.0
    round_records: int = 20_000
    learners: int = 800
    items: int = 80
    partitions: int = 6


@dataclass
class Round:
    """What happened in one round."""

    number: int
    trial: str
    fault: str
    target: str
    pid: int | None
    at_record: int
    recovery_s: float
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return the round as one line."""
        pid = f"pid {self.pid}" if self.pid else ""
        notes = f"  [{'; '.join(self.notes)}]" if self.notes else ""
        return (
            f"{self.number:3d} {self.trial:8s} {self.fault:17s} {self.target:13s} {pid:12s} "
            f"at record {self.at_record:7,d}  recovered in {self.recovery_s:5.1f} s{notes}"
        )


class Trial:
    """A pipeline of its own (topics and tables by a prefix and a schema) on a running stack.

    Parameters
    ----------
    stack
        Kafka, PostgreSQL and the calibration service; those that are needed.
    config
        What to do.
    directory
        For logs and files.
    say
        Told what happens.
    """

    def __init__(
        self,
        stack: Stack,
        config: TrialConfig,
        directory: Path,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.stack = stack
        self.config = config
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.say = say
        self.rng = random.Random(config.seed)
        self.env = {
            **faults.base_environment(),
            **stack.addresses.environment(),
            "THETASTREAM_TOPIC_PREFIX": f"{config.name}.",
            "THETASTREAM_DB_SCHEMA": f"chaos_{config.name}",
            "THETASTREAM_PARTITIONS": str(config.partitions),
            "THETASTREAM_STATE_DIR": str(directory),
            "THETASTREAM_SESSION_TIMEOUT_SECS": "6",
            "THETASTREAM_FLUSH_INTERVAL_SECS": "0.5",
            **(_FIXED if config.fixed_params else _LIVE),
        }
        self.settings = Settings.from_env(self.env)
        self.workload = Workload(
            config.round_records * max(1, len(config.kinds)),
            config.seed,
            learners=config.learners,
            items=config.items,
        )
        self.rounds: list[Round] = []

    @contextmanager
    def running(self, engines: int = 2, sinks: int = 2) -> Iterator[Cluster]:
        """Run the pipeline, ready, for as long as the block lasts."""
        asyncio.run(migrate(self.settings.database_url, self.settings.db_schema))
        create_topics(self.settings)
        if self.config.fixed_params:
            asyncio.run(self._publish_params())
        with Cluster(self.env, self.directory) as cluster:
            for role, number in (("engine", engines), ("sink", sinks), ("calibrator", 1)):
                for _ in range(number):
                    cluster.add(role)
            self.replay = Replay(self.settings, self.config.rate)
            try:
                self.wait_ready(cluster)
                yield cluster
            finally:
                self.replay.stop()

    def run(self, first_number: int = 1) -> tuple[CheckReport, list[str]]:
        """Do the rounds, drain and compare.

        Returns
        -------
        tuple
            The comparison, and what else must not have happened.

        Raises
        ------
        HangError
            Something did not happen in time.
        """
        with self.running() as cluster:
            for number, kind in enumerate(self.config.kinds):
                self._round(cluster, first_number + number, kind, number)
            self.drain(cluster)
            with self.expected() as expected:
                report = check_all(self.settings, expected)
                report.add(
                    "lookups", len(expected.learners), self._wrong_lookups(cluster, expected)
                )
        return report, cluster.violations

    def send_all(self, cluster: Cluster) -> None:
        """Send everything without a fault, and drain."""
        self.replay.start(self.workload.records)
        self.drain(cluster)

    def expected(self) -> ExpectedAll:
        """Compute what must be there."""
        return expect(
            self.settings,
            self.workload,
            self.directory,
            fixed_params=self.config.fixed_params,
        )

    def drain(self, cluster: Cluster) -> None:
        """Wait until everything sent is folded, committed and in PostgreSQL."""
        if left := self.replay.finish(60):
            raise HangError(f"the broker has not taken {left} records within 60 s")
        if self.replay.failures:
            raise HangError(f"the broker refused records: {self.replay.failures[:3]}")
        wait_for(
            "the pipeline to drain: " + unfinished(self.settings),
            lambda: not unfinished(self.settings),
            DRAIN_S,
            lambda: f"{unfinished(self.settings)}\n{cluster.tails()}",
            poll_s=1.0,
        )

    def wait_ready(self, cluster: Cluster) -> float:
        """Wait until every process says that it can do its work."""
        return wait_for(
            "every process to be ready",
            lambda: all(member.is_ready() for member in cluster.members),
            RECOVERY_S,
            lambda: f"{_readiness(cluster)}\n{cluster.tails()}",
        )

    def known_learners(self, sent: int, most: int) -> list[str]:
        """Return some learners of the first records."""
        good = [r for r in self.workload.records[:sent] if r.reason is None]
        # Even of a record that is refused as late or repeated, the learner is known by then.
        users = sorted({r.key.decode() for r in good if r.key})
        return self.rng.sample(users, min(most, len(users)))

    def _round(self, cluster: Cluster, number: int, kind: str, index: int) -> None:
        size = self.config.round_records
        self.replay.start(self.workload.records[index * size : (index + 1) * size])
        moment = self.rng.uniform(0.1, 0.6) * size / self.config.rate
        time.sleep(moment)
        began = time.monotonic()
        at_record = self.replay.sent
        done = faults.FAULTS[kind](faults.Context(self, cluster, self.rng))
        ended = time.monotonic()
        self._wait_recovered(cluster, kind)
        notes = list(done.notes)
        notes += [
            f"{member.name} {what}"
            for member in cluster.members
            for what in member.exits_since(began)
            if member is not done.member or done.pid is None or "SIGKILL" not in what
        ]
        if kind.endswith("-pause") and done.member is not None and done.pid == done.member.pid:
            notes.append("it rejoined")
        self._check_lookups_agree(cluster, kind, at_record)
        one = Round(
            number,
            self.config.name,
            kind,
            done.target,
            done.pid,
            at_record,
            time.monotonic() - ended,
            notes,
        )
        self.rounds.append(one)
        self.say(one.line())
        if self.replay.failures:
            raise HangError(f"the broker refused records: {self.replay.failures[:3]}")

    def _wait_recovered(self, cluster: Cluster, kind: str) -> None:
        """All processes ready, and what was sent up to now is folded and in the tables."""
        self.wait_ready(cluster)
        # The sink's moment comes after the engine's, so that it covers what was sent.
        for role in ("engine", "sink"):
            progress = RoleProgress(self.settings, role)
            wait_for(
                f"the {role} to go on after {kind}",
                progress.is_past_mark,
                RECOVERY_S,
                partial(_told, progress, cluster),
                poll_s=0.3,
            )
        self.wait_ready(cluster)

    def _check_lookups_agree(self, cluster: Cluster, kind: str, at_record: int) -> None:
        """Ready means recovered: each learner is answered from memory by exactly one engine."""
        sample = self.known_learners(at_record, _LOOKUPS)

        def agree() -> bool:
            return all(len(cluster.holders(user)) == 1 for user in sample)

        wait_for(f"each learner to be held by one engine after {kind}", agree, 30.0, cluster.tails)

    def _wrong_lookups(self, cluster: Cluster, expected: ExpectedAll) -> list[str]:
        wrong = []
        for user, (attempts, correct, _) in expected.learners.items():
            answers = cluster.holders(user)
            if answers != [(attempts, correct)]:
                wrong.append(f"{user}: expected one of {(attempts, correct)}, found {answers}")
        return wrong

    async def _publish_params(self) -> None:
        """Bring the school's own parameters into force, as one version."""
        items = self.workload.item_params()
        topic = item_params_topic.name
        messages = [
            Outgoing(topic, i.encode(), encode(ItemParamsRecord(i, a, b, 0.0, 0.05, "fixed-1")), 0)
            for i, a, b in items
        ]
        manifest = ParamsManifest(
            "fixed-1", 1, "calibrated", "fixed", len(items), 1.0, 0.0, "reference", 0
        )
        messages.append(Outgoing(topic, MANIFEST_KEY, encode(manifest), 0))
        publisher = TransactionalPublisher(self.settings, "calibrator")
        await publisher.init()
        try:
            await publisher.publish(messages)
        finally:
            await publisher.close()


def _told(progress: RoleProgress, cluster: Cluster) -> str:
    return f"{progress.left()}\n{cluster.tails()}"


def _readiness(cluster: Cluster) -> str:
    return "\n".join(
        f"{m.name}: pid {m.pid}, /healthz {m.status('/healthz')}, /readyz {m.status('/readyz')}"
        for m in cluster.members
    )
