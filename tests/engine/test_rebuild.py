"""The state made anew from the log is the state that was; refused where it could not be."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import httpx
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from bench.chaos.workload import Workload
from schemas.calibration import MANIFEST_KEY, ItemParamsRecord, ParamsManifest
from schemas.codec import decode_any, encode
from stream.engine.params import ParamsStore
from stream.engine.rebuild import forget
from stream.engine.rows import StateLoader
from stream.engine.state import PartitionState
from stream.engine.survey import refuse_if_unfit, survey
from stream.errors import StreamError
from stream.kafka.clients import client_config, new_consumer
from tests.engine.conftest import Cluster, EngineProcess, environment, wait_for
from tests.engine.events import FakeRecord, event, packed_rows

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WORKLOAD = Workload(4000, 3, learners=60, items=40)
"""With duplicates, late attempts, voids, regrades and rubbish."""

LEARNER = next(record.key for record in WORKLOAD.records if record.reason is None) or b""

EXTRA = event("older", LEARNER.decode(), completed_at=0)
"""Too late, whatever else the learner has done."""

SENT = len(WORKLOAD.records) + 1

Rows = dict[tuple[int, bytes], Any]


def publish_params(cluster: Cluster, sequence: int, shift: float = 0.0) -> None:
    """Put the items' true parameters, their difficulties shifted, in force."""
    topic = cluster.settings.topic("item-params")
    version = f"irt-{sequence}"
    items = WORKLOAD.item_params()
    for item_id, a, b in items:
        record = ItemParamsRecord(item_id, a, b + shift, 0.0, 0.1, version)
        cluster.producer.produce(topic, encode(record), item_id.encode())
    manifest = ParamsManifest(
        version, sequence, "calibrated", "fixed", len(items), 1.0, 0.0, "reference", 0
    )
    cluster.producer.produce(topic, encode(manifest), MANIFEST_KEY)
    assert cluster.producer.flush(30) == 0


def send(cluster: Cluster) -> None:
    topic = cluster.settings.topic("attempts")
    for record in WORKLOAD.records:
        # -1: placed by its key.
        place = -1 if record.partition is None else record.partition % cluster.settings.partitions
        cluster.producer.produce(topic, record.value, record.key, place)
        cluster.producer.poll(0)
    cluster.send([EXTRA])


def live_rows(cluster: Cluster) -> Rows:
    """Return the state's rows but for what says when, or with which flush, they were written."""
    rows: Rows = {}
    for record in cluster.read("engine-state"):
        place = record.partition(), record.key()
        rows.pop(place, None)
        if record.value() is not None:
            rows[place] = record.value()
    for (_, key), value in rows.items():
        if key[:1] in b"OTI":
            plain = decode_any(value)
            plain.pop("source_offset", None)
            plain.pop("abilities", None)
            rows[_, key] = plain
    return rows


def lookups(engine: EngineProcess) -> dict[str, Any]:
    """Return what the lookup says of every learner."""
    found = {}
    with httpx.Client(base_url=engine.url) as client:
        for user in sorted({r.key.decode() for r in WORKLOAD.records if r.key and not r.reason}):
            reply = client.get(f"/theta/{user}")
            # Without PostgreSQL an unknown learner (of refused records alone) is 503.
            body = reply.json() if reply.status_code == 200 else {}
            found[user] = {k: v for k, v in body.items() if k not in ("as_of", "staleness_ms")}
    return found


def letters(cluster: Cluster) -> Counter[tuple[bytes, bytes, bytes]]:
    """Return the dead letters by reason and source, and how often each is there."""
    found: Counter[tuple[bytes, bytes, bytes]] = Counter()
    for record in cluster.read("attempts.dlq"):
        headers = dict(record.headers())
        found[headers["reason"], headers["source_partition"], headers["source_offset"]] += 1
    return found


def newest(cluster: Cluster, name: str) -> dict[bytes, Any]:
    """Return the newest record of each key, but for when and with which flush it was written."""
    found = {record.key(): decode_any(record.value()) for record in cluster.read(name)}
    for plain in found.values():
        plain.pop("source_offset", None)
        plain.pop("computed_at", None)
    return found


def everything(cluster: Cluster) -> dict[str, Any]:
    names = ("theta-updates", "topic-partials", "item-partials", "watermarks")
    return {
        "state": live_rows(cluster),
        "letters": letters(cluster),
        **{name: newest(cluster, name) for name in names},
    }


def run_and_stop(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let an engine fold all there is, and end it; return its lookups and what it has written."""
    engine = cluster.start().wait_ready()
    cluster.wait_counted(SENT)
    seen = lookups(engine)
    assert engine.end() == 0
    return seen, everything(cluster)


def rebuilt(cluster: Cluster) -> None:
    refuse_if_unfit(cluster.settings, survey(cluster.settings))
    asyncio.run(forget(cluster.settings))


@pytest.fixture
def folded(cluster: Cluster) -> tuple[Cluster, dict[str, Any], dict[str, Any]]:
    """A log folded with parameters fixed before the first attempt, and no engine any more."""
    publish_params(cluster, 1)
    send(cluster)
    return cluster, *run_and_stop(cluster)


def test_a_rebuild_gives_the_same_state_lookups_and_outputs(
    folded: tuple[Cluster, dict[str, Any], dict[str, Any]],
) -> None:
    cluster, seen, written = folded
    counts = cluster.counts()
    assert {"duplicate", "too_late", "void", "regrade", "not_json"} <= counts.keys()
    assert set(written["letters"].values()) == {1}
    rebuilt(cluster)
    emptied = live_rows(cluster)
    assert {key for _, key in emptied} == {b"O"}
    assert letters(cluster) == {}
    again, rewritten = run_and_stop(cluster)
    assert again == seen
    assert rewritten == written


def test_a_rebuild_folds_everything_with_the_newest_parameters(
    folded: tuple[Cluster, dict[str, Any], dict[str, Any]],
) -> None:
    cluster, seen, written = folded
    publish_params(cluster, 2, shift=0.7)
    rebuilt(cluster)
    again, rewritten = run_and_stop(cluster)
    assert rewritten["topic-partials"] == written["topic-partials"]
    for user, before in seen.items():
        counts = "n", "correct", "last_attempt_at"
        assert [again[user].get(name) for name in counts] == [before.get(name) for name in counts]
    params = ParamsStore()
    for record in cluster.read("item-params"):
        params.add(record.key(), record.value())
    assert params.version == "irt-2"
    compared = 0
    for number in range(cluster.settings.partitions):
        state = PartitionState(number, cluster.settings.lateness_days, params)
        state.fold(
            [
                FakeRecord(r.key(), r.value(), r.offset(), r.timestamp()[1])
                for r in cluster.read("attempts")
                if r.partition() == number
            ]
        )
        for user in again:
            learner = state.learner(user)
            if learner is not None:
                compared += 1
                assert again[user]["theta"] == pytest.approx(learner.g, abs=1e-9)
                assert again[user]["theta"] > seen[user]["theta"]
    assert compared > 50


DIES = """
import asyncio, os, signal
from stream.engine.rebuild import forget
from stream.settings import Settings
asyncio.run(forget(Settings.from_env(),
                   after_each=lambda number: os.kill(os.getpid(), signal.SIGKILL)))
"""


@pytest.mark.parametrize("between", ["nothing", "an engine"])
def test_a_rebuild_killed_between_partitions_is_completed_by_another(
    folded: tuple[Cluster, dict[str, Any], dict[str, Any]], between: str
) -> None:
    cluster, seen, written = folded
    died = subprocess.run(
        [sys.executable, "-c", DIES], env=environment(cluster.settings), timeout=60, check=False
    )
    assert died.returncode == -signal.SIGKILL
    rows = Counter(number for number, _ in live_rows(cluster))
    assert rows[0] == 1
    assert rows[1] == sum(number == 1 for number, _ in written["state"])
    if between == "an engine":
        assert run_and_stop(cluster) == (seen, written)
    rebuilt(cluster)
    assert run_and_stop(cluster) == (seen, written)


def test_an_engine_that_starts_meanwhile_keeps_its_state_and_the_rebuild_says_so(
    folded: tuple[Cluster, dict[str, Any], dict[str, Any]],
) -> None:
    cluster, seen, written = folded
    started: list[EngineProcess] = []

    async def start() -> None:
        started.append(await asyncio.to_thread(lambda: cluster.start().wait_ready()))

    with pytest.raises(StreamError, match="An engine has started and taken partition 0 over"):
        asyncio.run(forget(cluster.settings, before_first=start))
    assert lookups(started[0]) == seen
    assert started[0].end() == 0
    assert everything(cluster) == written


def test_a_rebuild_is_refused_while_an_engine_runs_and_changes_nothing(
    folded: tuple[Cluster, dict[str, Any], dict[str, Any]],
) -> None:
    cluster, seen, _ = folded
    settings = cluster.settings
    engine = cluster.start().wait_ready()
    partitions = survey(settings)
    with pytest.raises(StreamError, match=r"1 member\(s\) of the group .*thetastream-engine"):
        refuse_if_unfit(settings, partitions)
    # Also when it has joined only after that was looked at.
    before = live_rows(cluster)
    with pytest.raises(StreamError, match=r"Nothing was changed\. Stop every engine"):
        asyncio.run(forget(settings))
    assert live_rows(cluster) == before
    # Its transactional ids were taken, so that it cannot write any more: it ends and is restarted.
    cluster.send([(LEARNER, b"more")])
    wait_for(lambda: engine.process.poll() is not None)
    assert engine.process.returncode != 0
    # Only rubbish came.
    again = cluster.start().wait_ready()
    cluster.wait_counted(SENT + 1)
    assert lookups(again) == seen


def test_a_rebuild_is_refused_while_a_calibrator_runs(cluster: Cluster) -> None:
    settings = cluster.settings
    consumer = new_consumer(settings, **{"group.id": settings.topic("thetastream-calibrator")})
    try:
        consumer.subscribe([settings.topic("calibration-requests")])
        wait_for(lambda: consumer.poll(0.5) is not None or consumer.assignment())
        with pytest.raises(StreamError, match="Stop every calibrator"):
            refuse_if_unfit(settings, survey(settings))
    finally:
        consumer.close()
    refuse_if_unfit(settings, survey(settings))


def test_a_log_that_has_lost_its_beginning_is_refused(
    folded: tuple[Cluster, dict[str, Any], dict[str, Any]],
) -> None:
    cluster, _, written = folded
    settings = cluster.settings
    admin = AdminClient(client_config(settings))
    for done in admin.delete_records([TopicPartition(settings.topic("attempts"), 1, 700)]).values():
        done.result(30)
    with pytest.raises(StreamError, match="partition 1 has lost its first 700 and begins 20") as e:
        refuse_if_unfit(settings, survey(settings))
    assert "partition 0" not in str(e.value)
    assert everything(cluster) == written


def test_a_log_that_is_not_the_one_that_was_folded_is_refused(cluster: Cluster) -> None:
    settings = cluster.settings
    topic = settings.topic("engine-state")
    cluster.producer.produce(topic, b'{"attempts": 41}', b"O", 1)
    assert cluster.producer.flush(30) == 0
    with pytest.raises(StreamError, match="partition 1 was folded up to offset 41, its log ends"):
        refuse_if_unfit(settings, survey(settings))


def test_a_state_that_cannot_be_read_is_forgotten(cluster: Cluster) -> None:
    topic = cluster.settings.topic("engine-state")
    for key in (b"O", b"Lsomebody"):
        cluster.producer.produce(topic, b"\xffof another release", key, 0)
    assert cluster.producer.flush(30) == 0
    rebuilt(cluster)
    state = PartitionState(0, 7, ParamsStore())
    loader = StateLoader(state)
    for record in cluster.read("engine-state"):
        if record.partition() == 0:
            loader.add(packed_rows([(record.key() or b"", record.value())]))
    loader.finish()
    assert (state.position.attempts, len(state)) == (-1, 0)
