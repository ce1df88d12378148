"""``thetastream rebuild`` by the command line, with engine and sink, up to the rows."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from click.testing import Result
from typer.testing import CliRunner

from schemas.calibration import MANIFEST_KEY, ItemParamsRecord, ParamsManifest
from schemas.codec import encode
from stream.cli.main import app
from stream.domain.window import DAY_MS
from stream.errors import StreamError
from stream.migrate import migrate
from tests.engine.conftest import Cluster, cluster, environment, wait_for
from tests.engine.events import event

__all__ = ["cluster"]

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SENT = 600
TABLES = {
    "features_topic_daily": "user_id, topic_id, date, attempts, correct, theta_estimate",
    "weekly_kpi": "user_id, week_start, kpis::text",
    "student_topic_theta": "user_id, topic_id, theta, se, params_version",
    "mirt_ability": "user_id, version, theta, se, params_version",
    "topic_partials": "topic_id, partition, attempts, correct, learners",
    "item_partials": "item_id, partition, attempts, correct",
}


def run(cluster: Cluster, *arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(
        app, ["rebuild", *arguments], env=environment(cluster.settings), **more
    )


def verified(cluster: Cluster, file: Path) -> dict[str, Any]:
    """Compare the tables, abilities too, with what the file and the newest parameters lead to."""
    result = CliRunner().invoke(
        app, ["verify", str(file), "--abilities", "--json"], env=environment(cluster.settings)
    )
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["ok"] is (result.exit_code == 0)
    return report


def publish_params(cluster: Cluster, sequence: int, difficulty: float) -> None:
    topic = cluster.settings.topic("item-params")
    record = ItemParamsRecord("i1", 1.0, difficulty, 0.0, 0.1, f"irt-{sequence}")
    manifest = ParamsManifest(
        f"irt-{sequence}", sequence, "calibrated", "fixed", 1, 1.0, 0.0, "reference", 0
    )
    cluster.producer.produce(topic, encode(record), b"i1")
    cluster.producer.produce(topic, encode(manifest), MANIFEST_KEY)
    assert cluster.producer.flush(30) == 0


async def fetch(url: str) -> dict[str, set[tuple[Any, ...]]]:
    connection = await asyncpg.connect(url)
    try:
        return {
            table: {tuple(row) for row in await connection.fetch(f"select {columns} from {table}")}
            for table, columns in TABLES.items()
        }
    finally:
        await connection.close()


@contextmanager
def sink(cluster: Cluster, log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream", "run", "--role", "sink", "--web-port", "0"],
            env=environment(cluster.settings),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_a_rebuild_brings_the_newest_parameters_into_every_row_and_doubles_none(
    cluster: Cluster, database_url: str, tmp_path: Path
) -> None:
    cluster.settings = dataclasses.replace(cluster.settings, database_url=database_url)
    asyncio.run(migrate(database_url))
    publish_params(cluster, 1, 0.0)
    # Noon of yesterday, so that all are of one day.
    noon_ms = int(time.time() * 1000) // DAY_MS * DAY_MS - DAY_MS // 2
    engine = cluster.start().wait_ready()
    sent = [
        event(f"a{n}", f"u{n % 37}", correct=n % 3 > 0, completed_at=noon_ms + n)
        for n in range(SENT)
    ]
    file = tmp_path / "sent.jsonl"
    file.write_bytes(b"\n".join(map(orjson.dumps, sent)))
    for start in range(0, SENT, 100):
        # Flush upon flush: most rows end with an offset that no flush of the rebuild may hit.
        cluster.send(sent[start : start + 100])
        cluster.wait_counted(start + 100)

    refused = run(cluster, "--yes")
    assert isinstance(refused.exception, StreamError)
    assert "Stop every engine" in str(refused.exception)
    assert engine.end() == 0
    refused = run(cluster, "--yes")
    assert "The sink has not written all records of" in str(refused.exception)

    def written_with(version: str) -> bool:
        rows = asyncio.run(fetch(database_url))
        made = [row[-1] for row in rows["mirt_ability"] | rows["student_topic_theta"]]
        return len(made) == 74 and set(made) == {version}

    with sink(cluster, tmp_path / "sink.log"):
        wait_for(lambda: written_with("irt-1"))
        wait_for(lambda: run(cluster, "--dry-run").exit_code == 0)
        before = asyncio.run(fetch(database_url))
        report = verified(cluster, file)
        assert (report["total"], report["mismatches"]) == (0, [])
        assert {one["table"]: one["compared_rows"] for one in report["tables"]} == {
            "features_topic_daily": 37, "weekly_kpi": 37, "topic_totals": 1, "item_totals": 1,
            "mirt_ability (live)": 37, "student_topic_theta": 37,
        }  # fmt: skip
        assert "It can be done; nothing was changed." in run(cluster, "--dry-run").output
        asked = run(cluster, input="n\n")
        assert (asked.exit_code, "Nothing was changed." in asked.output) == (1, True)
        assert cluster.counts() == {"accepted": SENT}

        publish_params(cluster, 2, 1.5)
        # What was folded with other parameters is not what the newest lead to.
        differing = {one["table"]: one["differing"] for one in verified(cluster, file)["tables"]}
        assert differing["mirt_ability (live)"] == dict.fromkeys(
            ("params_version", "theta", "se"), 37
        )
        done = run(cluster, "--yes", "--json")
        assert done.exit_code == 0, done.output
        plan = json.loads(done.stdout)
        assert plan["dry_run"] is False
        assert sum(one["learners"] for one in plan["partitions"]) == 37
        assert sum(one["log_end"] for one in plan["partitions"]) == SENT
        assert cluster.counts() == {}
        assert asyncio.run(fetch(database_url)) == before

        cluster.start().wait_ready()
        assert cluster.wait_counted(SENT) == {"accepted": SENT}
        wait_for(lambda: written_with("irt-2"))
        wait_for(lambda: verified(cluster, file)["ok"])
    after = asyncio.run(fetch(database_url))
    for table in ("topic_partials", "item_partials"):
        assert after[table] == before[table]
    counts = [{row[:5] for row in rows["features_topic_daily"]} for rows in (before, after)]
    assert counts[0] == counts[1]
    keys = [{row[:2] for row in rows["weekly_kpi"]} for rows in (before, after)]
    assert keys[0] == keys[1]
    thetas = [{row[0]: row[2] for row in rows["mirt_ability"]} for rows in (before, after)]
    assert all(thetas[1][user] > thetas[0][user] + 0.3 for user in thetas[0])
