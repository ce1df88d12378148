"""State comes back whole: from Kafka alone, also while the broker compacts what is being read."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from stream.kafka import clients, reader
from stream.kafka.clients import new_producer
from stream.kafka.reader import Record, read_whole
from stream.settings import Settings
from tests.engine.conftest import wait_for
from tests.faults.compaction import compact_at_once, records_in
from tests.faults.roles import Roles

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TOPIC = "engine-state"
KEYS = 300
VERSIONS = 40


def write_versions(settings: Settings) -> None:
    """Write every key many times, in transactions of which each fourth is aborted."""
    producer = new_producer(settings, **{"transactional.id": settings.topic("writer")})
    producer.init_transactions(30)
    topic = settings.topic(TOPIC)
    for version in range(VERSIONS):
        producer.begin_transaction()
        for key in range(KEYS):
            # Some keys are removed again, for good or for a while.
            removed = key % 10 == version % 10 and key % 3 == 0
            value = None if removed else b"%d:%d:" % (key, version) + os.urandom(600)
            producer.produce(topic, value, b"D%06d" % key, 0)
            producer.poll(0)
        if version % 4 == 3:
            producer.flush(30)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)


class Newest:
    """What a loader keeps: the newest value of each key, without those removed."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.records = 0

    def take(self, records: list[Record]) -> None:
        for record in records:
            self.records += 1
            key, value = record.key() or b"", record.value()
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value


@pytest.fixture
def short_sighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's client fetches little ahead, so that most is read after a compaction."""
    little = {"queued.max.messages.kbytes": 64, "fetch.message.max.bytes": 16_384}
    monkeypatch.setattr(reader, "new_consumer", partial(clients.new_consumer, **little))


@pytest.mark.usefixtures("short_sighted")
def test_a_topic_compacted_while_it_is_read_gives_the_same_state(fault_settings: Settings) -> None:
    write_versions(fault_settings)
    plain = Newest()
    read_whole(fault_settings, {TOPIC: plain.take})
    assert plain.records == KEYS * VERSIONS * 3 // 4

    compacted = Newest()

    def take(records: list[Record]) -> None:
        first = compacted.records == 0
        compacted.take(records)
        if first:
            compact_at_once(fault_settings, TOPIC)
            producer = new_producer(fault_settings)
            topic = fault_settings.topic(TOPIC)

            def is_compacted() -> bool:
                # The segment that is written to is never compacted; a record more closes it.
                producer.produce(topic, b"", b"later", 0)
                assert producer.flush(30) == 0
                return records_in(fault_settings, TOPIC) < plain.records // 2

            wait_for(is_compacted, 90.0)

    read_whole(fault_settings, {TOPIC: take})
    # Less than all was left to be read, and yet nothing is missing or stale.
    assert compacted.records < plain.records
    compacted.rows.pop(b"later", None)
    assert compacted.rows == plain.rows


def test_an_engine_recovers_from_a_changelog_that_is_being_compacted(
    roles: Roles, tmp_path: Path
) -> None:
    compact_at_once(roles.settings, TOPIC)
    engine = roles.start("engine").wait_ready()
    sent = 0
    for _ in range(6):
        roles.send(1000)
        sent += 1000
        roles.wait_counted(sent)
        time.sleep(0.5)
    for restart in range(3):
        engine.kill()
        # Nothing on its disk matters: the next one starts in an empty directory.
        directory = tmp_path / f"empty-{restart}"
        engine = roles.start("engine", state_dir=str(directory)).wait_ready()
        answers = [engine.get(f"/theta/u{n}") for n in range(50)]
        assert [a.json()["n"] for a in answers if a is not None] == [sent // 50] * 50
        roles.send(1000)
        sent += 1000
        roles.wait_counted(sent)
