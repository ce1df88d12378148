"""The checker finds a row lost, doubled or stale on purpose, wherever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from bench.chaos.check import check_all
from bench.chaos.expected import ExpectedAll
from bench.chaos.trial import Trial, TrialConfig
from schemas.codec import decode, encode
from schemas.outputs import ThetaUpdate
from stream.kafka.clients import client_config, new_producer
from stream.kafka.reader import Record, read_whole
from stream.local.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@dataclass
class Settled:
    """A trial without faults, drained and ended, and what must be there."""

    trial: Trial
    expected: ExpectedAll

    def differences(self) -> dict[str, int]:
        report = check_all(self.trial.settings, self.expected)
        return {name: count for name, count in report.differences.items() if count}

    def read(self, name: str) -> list[Record]:
        records: list[Record] = []
        read_whole(self.trial.settings, {name: records.extend})
        return records

    def send(self, name: str, record: Record, value: bytes | None) -> None:
        """Write a record once more, with another value."""
        producer = new_producer(self.trial.settings)
        producer.produce(
            self.trial.settings.topic(name),
            value,
            record.key(),
            record.partition(),
            headers=[*(record.headers() or [])],
        )
        assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def settled(chaos_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settled]:
    directory: Path = tmp_path_factory.mktemp("settled")
    config = TrialConfig(
        "settled",
        (),
        seed=5,
        fixed_params=True,
        rate=1500,
        round_records=4000,
        learners=60,
        items=20,
        partitions=2,
    )
    trial = Trial(chaos_stack, config, directory)
    with trial.running(engines=1, sinks=1) as cluster:
        trial.send_all(cluster)
    with trial.expected() as expected:
        yield Settled(trial, expected)


async def _run(settled: Settled, statements: list[str]) -> None:
    connection = await asyncpg.connect(settled.trial.settings.database_url)
    try:
        await connection.execute(f'set search_path to "{settled.trial.settings.db_schema}"')
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def test_nothing_is_found_where_nothing_is_wrong(settled: Settled) -> None:
    assert settled.differences() == {}


ONE_FEATURE = "(user_id, topic_id, date) = (select user_id, topic_id, date from {0} limit 1)"
ONE_WEEK = (
    "(user_id, week_start) = "
    "(select user_id, week_start from {0} where kpis->>'S' is not null limit 1)"
)
ONE_TOPIC = "topic_id = 't01' and partition = 0"
ONE_ITEM = "item_id = 'i0001' and partition = 0"
ONE_LIVE = "user_id = (select user_id from {0} where version = 'live' limit 1)"
ONE_THETA = "(user_id, topic_id) = (select user_id, topic_id from {0} limit 1)"


@pytest.mark.parametrize(
    ("table", "damage", "found"),
    [
        ("features_topic_daily", f"delete from {{0}} where {ONE_FEATURE}", "features_topic_daily"),
        (
            "features_topic_daily",
            f"update {{0}} set attempts = attempts * 2 where {ONE_FEATURE}",
            "features_topic_daily",
        ),
        (
            "features_topic_daily",
            "insert into {0} (user_id, topic_id, date, attempts, correct) "
            "select user_id, topic_id, date + 4000, attempts, correct from {0} limit 1",
            "features_topic_daily",
        ),
        (
            "features_topic_daily",
            f"update {{0}} set attempts = attempts - 1 where {ONE_FEATURE}",
            "features_topic_daily",
        ),
        ("weekly_kpi", f"delete from {{0}} where {ONE_WEEK}", "weekly_kpi"),
        (
            "weekly_kpi",
            f"update {{0}} set kpis = kpis || '{{{{\"S\": 0.123}}}}' where {ONE_WEEK}",
            "weekly_kpi",
        ),
        ("topic_partials", f"delete from {{0}} where {ONE_TOPIC}", "topic_totals"),
        (
            "topic_partials",
            "insert into {0} select topic_id, 7, attempts, correct, learners, source_offset "
            f"from {{0}} where {ONE_TOPIC}",
            "topic_totals",
        ),
        (
            "topic_partials",
            f"update {{0}} set correct = correct - 1 where {ONE_TOPIC}",
            "topic_totals",
        ),
        ("item_partials", f"delete from {{0}} where {ONE_ITEM}", "item_totals"),
        ("item_partials", f"update {{0}} set attempts = 0 where {ONE_ITEM}", "item_totals"),
        ("mirt_ability", f"delete from {{0}} where {ONE_LIVE}", "mirt_ability, live"),
        (
            "mirt_ability",
            f"update {{0}} set source_offset = source_offset - 1 where {ONE_LIVE}",
            "mirt_ability, live",
        ),
        (
            "student_topic_theta",
            f"update {{0}} set theta = theta + 1e-8 where {ONE_THETA}",
            "student_topic_theta",
        ),
    ],
)
def test_a_damaged_row_in_postgresql_is_found(
    settled: Settled, table: str, damage: str, found: str
) -> None:
    asyncio.run(
        _run(settled, [f"create table saved as select * from {table}", damage.format(table)])
    )
    try:
        differences = settled.differences()
    finally:
        restore = f"insert into {table} select * from saved"
        asyncio.run(_run(settled, [f"truncate {table}", restore, "drop table saved"]))
    assert set(differences) == {found}
    assert differences[found] >= 1


def test_a_learner_missing_in_the_expectation_is_unexpected(settled: Settled) -> None:
    user, counts = settled.expected.learners.popitem()
    try:
        assert settled.differences() == {"counts of learners": 1}
    finally:
        settled.expected.learners[user] = counts


def test_an_ability_off_by_more_than_the_tolerance_is_found(settled: Settled) -> None:
    thetas: dict[str, Any] = settled.expected.thetas or {}
    user = next(iter(thetas))
    kept = thetas[user]
    topic = next(iter(kept.topics))
    theta, se = kept.topics[topic]
    thetas[user] = type(kept)(kept.theta, kept.se, {**kept.topics, topic: (theta + 2e-9, se)})
    try:
        assert settled.differences() == {"theta as without faults": 1}
    finally:
        thetas[user] = kept


# The log cannot be mended, so each of these leaves its damage; they come last, in this order.


def test_a_doubled_dead_letter_is_found(settled: Settled) -> None:
    letter = settled.read("attempts.dlq")[0]
    settled.send("attempts.dlq", letter, letter.value())
    assert settled.differences() == {"attempts.dlq": 1}


def test_a_lost_dead_letter_is_found(settled: Settled) -> None:
    before = settled.differences()["attempts.dlq"]
    first = settled.read("attempts.dlq")[0]
    part = TopicPartition(first.topic(), first.partition(), first.offset() + 1)
    admin = AdminClient(client_config(settled.trial.settings))
    for future in admin.delete_records([part]).values():
        future.result(30)
    # The one doubled before may be this very one; then it is now there once.
    assert settled.differences().get("attempts.dlq", 0) != before


def test_a_stale_learner_is_found_in_every_table_that_has_it(settled: Settled) -> None:
    newest = settled.read("theta-updates")[-1]
    # The learner as of an attempt less.
    update = decode(newest.value() or b"", ThetaUpdate)
    update.n -= 1
    update.theta -= 0.1
    update.source_offset -= 1
    update.computed_at -= 1
    for topic in update.topics:
        topic.n -= 1
        topic.theta -= 0.1
    settled.send("theta-updates", newest, encode(update))
    assert {
        "counts of learners",
        "counts of learners by topic",
        "theta as without faults",
        "mirt_ability, live",
        "student_topic_theta",
    } <= settled.differences().keys()


def test_a_record_that_is_in_the_log_twice_is_told_as_the_logs_fault(settled: Settled) -> None:
    record = settled.read("attempts")[0]
    settled.send("attempts", record, record.value())
    with settled.trial.expected() as expected:
        assert len(expected.input_faults) == 1
