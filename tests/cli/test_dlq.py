"""Dead letters by the command line, with the real engine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from tests.engine.conftest import Cluster, cluster, environment
from tests.engine.events import event

__all__ = ["cluster"]

pytestmark = pytest.mark.integration


def run(cluster: Cluster, *arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env=environment(cluster.settings))
    assert result.exit_code == 0, result.output
    return result.output


def recent(attempt_id: str, **fields: Any) -> dict[str, Any]:
    return event(attempt_id, completed_at=int(time.time() * 1000), **fields)


def test_a_repaired_dead_letter_is_counted_once(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start().wait_ready()
    broken = recent("b", correct="yes")
    cluster.send([recent("a"), (b"u1", orjson.dumps(broken)), (b"u1", b"\xff")])
    assert cluster.wait_counted(3) == {"accepted": 1, "invalid": 1, "not_utf8": 1}

    listed = run(cluster, "dlq", "list", "--reason", "invalid", "--json").splitlines()
    assert len(listed) == 1
    letter = json.loads(listed[0])
    assert (letter["reason"], json.loads(letter["value"])) == ("invalid", broken)
    letter["value"] = {**broken, "correct": True}
    repaired = tmp_path / "letters.jsonl"
    repaired.write_text(json.dumps(letter) + "\n")

    for _ in range(2):  # sending it twice must not count it twice
        assert json.loads(run(cluster, "dlq", "replay", str(repaired), "--json")) == {"sent": 1}
    counts = cluster.wait_counted(5)
    assert counts == {"accepted": 2, "duplicate": 1, "invalid": 1, "not_utf8": 1}


def test_letters_that_are_no_text_survive_the_file(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start().wait_ready()
    cluster.send([(b"\xfe", b"\xff\x00")])
    assert cluster.wait_counted(1) == {"not_utf8": 1}
    letters = tmp_path / "letters.jsonl"
    letters.write_text(run(cluster, "dlq", "list", "--json"))
    run(cluster, "dlq", "replay", str(letters))
    assert cluster.wait_counted(2) == {"not_utf8": 2}
    records = cluster.read("attempts.dlq")
    assert [(r.key(), r.value()) for r in records] == [(b"\xfe", b"\xff\x00")] * 2


def test_a_broken_line_sends_nothing_and_is_named(cluster: Cluster, tmp_path: Path) -> None:
    letters = tmp_path / "letters.jsonl"
    letters.write_text('{"value": {}}\nnot json\n')
    result = CliRunner().invoke(
        app, ["dlq", "replay", str(letters)], env=environment(cluster.settings)
    )
    assert result.exit_code != 0
    assert "line 2" in str(result.exception)
    assert cluster.read("attempts") == []
