"""Partitions added to ``attempts`` while engines run: they end, saying why, and fold none of it."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from stream.kafka.clients import client_config
from tests.engine.conftest import Cluster, wait_for
from tests.engine.events import event

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def recent(attempt_id: str, user_id: str) -> dict[str, Any]:
    return event(attempt_id, user_id, completed_at=int(time.time() * 1000))


def test_engines_end_with_an_explanation_when_partitions_are_added_under_them(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Faust's own name for how old what its client knows of the topics may be; minutes by default.
    monkeypatch.setenv("CONSUMER_METADATA_MAX_AGE_MS", "1000")
    engines = [cluster.start().wait_ready() for _ in range(2)]
    cluster.send(recent(f"a{n}", f"u{n}") for n in range(200))
    cluster.wait_counted(200)
    topic = cluster.settings.topic("attempts")
    admin = AdminClient(client_config(cluster.settings))
    for done in admin.create_partitions([NewPartitions(topic, 3)]).values():
        done.result(30)
    added = orjson.dumps(recent("added", "u0"))
    wait_for(lambda: topic in cluster.producer.list_topics(topic, timeout=5).topics)
    cluster.producer.produce(topic, added, b"u0", 2)
    assert cluster.producer.flush(30) == 0

    wait_for(lambda: all(engine.process.poll() is not None for engine in engines))
    for engine in engines:
        assert engine.process.returncode != 0
        assert f"Topic {topic} has 3 partitions, 2 are wanted" in engine.text()
        assert "a learner's state lives in the partition of its key; nothing was" in engine.text()
    # Nothing of the added partition was folded, and no state was begun for it.
    assert cluster.counts() == {"accepted": 200}
    assert {record.partition() for record in cluster.read("engine-state")} == {0, 1}
