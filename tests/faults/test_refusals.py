"""A role that must not go on says why, what was kept and what to do, and ends with an error."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from schemas.codec import decode, encode
from stream.engine.state import Position
from stream.kafka.clients import client_config, new_producer
from stream.kafka.reader import Record, read_whole
from tests.faults.roles import Roles, end_all

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REFUSED_S = 40.0
"""Seconds from a process's start to its refusal; generous, since it starts slowly on few cores."""


def test_a_state_of_a_future_version_is_refused_and_left_as_it_is(roles: Roles) -> None:
    engine = roles.start("engine").wait_ready()
    roles.send(200)
    roles.wait_counted(200)
    assert end_all([engine], 10.0) == {"engine": 0}
    records: list[Record] = []
    read_whole(roles.settings, {"engine-state": records.extend})
    last = [r for r in records if r.key() == b"O"][-1]
    position = decode(last.value() or b"", Position)
    position.state_version += 1
    producer = new_producer(roles.settings)
    topic = roles.settings.topic("engine-state")
    producer.produce(topic, encode(position), b"O", last.partition())
    assert producer.flush(30) == 0

    engine = roles.start("engine")
    assert engine.wait_end(REFUSED_S) not in (0, None)
    assert f"has version {position.state_version}; this release reads" in engine.text()
    assert "Nothing was changed. Start the release that wrote it" in engine.text()
    after: list[Record] = []
    read_whole(roles.settings, {"engine-state": after.extend})
    assert len(after) == len(records) + 1


@pytest.mark.parametrize("role", ["engine", "calibrator"])
def test_a_topic_of_attempts_with_partitions_added_is_refused(roles: Roles, role: str) -> None:
    topic = roles.settings.topic("attempts")
    admin = AdminClient(client_config(roles.settings))
    for done in admin.create_partitions([NewPartitions(topic, 3)]).values():
        done.result(30)
    process = roles.start(role)
    assert process.wait_end(REFUSED_S) not in (0, None)
    assert f"Topic {topic} has 3 partitions, 2 are wanted" in process.text()
    assert "a learner's state lives in the partition of its key; nothing was" in process.text()
    assert "Set THETASTREAM_PARTITIONS to the topic's number" in process.text()
