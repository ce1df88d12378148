"""`thetastream local` as it is typed, with a database only and addresses of others for the rest."""

import json
import socket

import pytest
from typer.testing import CliRunner

from stream.cli.local import app
from stream.local.stack import Stack


@pytest.fixture
def run(tmp_path, monkeypatch):
    with socket.socket() as others:
        others.bind(("127.0.0.1", 0))
        others.listen()
        port = others.getsockname()[1]
        monkeypatch.setenv("KAFKA_BROKER", f"127.0.0.1:{port}")
        monkeypatch.setenv("R_IRT_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("DATABASE_URL", raising=False)
        monkeypatch.setenv("THETASTREAM_STATE_DIR", str(tmp_path / "state"))
        yield lambda *arguments: CliRunner().invoke(app, arguments)
        Stack(tmp_path / "state", env={}).down()


def test_up_status_and_down_tell_programs_by_json_and_exit_code(run, tmp_path):
    stopped = run("status", "--json")
    assert stopped.exit_code == 3
    assert json.loads(stopped.stdout)["all_running"] is False

    up = run("up", "--json")
    assert up.exit_code == 0, up.output
    told = json.loads(up.stdout)
    assert {part["name"]: part["state"] for part in told["parts"]} == {
        "kafka": "external",
        "postgres": "running",
        "calibrator": "external",
    }
    assert ":***@" in told["addresses"]["DATABASE_URL"]
    assert told["env_file"] == str(tmp_path / "state" / "stack.env")

    running = run("status")
    assert running.exit_code == 0
    assert "running" in running.stdout

    down = run("down", "--json")
    assert down.exit_code == 0
    assert json.loads(down.stdout)["ended"] == ["postgres"]
    assert run("down").stdout == "nothing was running\n"


def test_a_failing_start_exits_1_and_says_why_on_standard_error(run, tmp_path):
    (tmp_path / "state" / "postgres").mkdir(parents=True)
    (tmp_path / "state" / "postgres" / "data").write_text("a file where a directory belongs")
    failed = run("up")
    assert failed.exit_code == 1
    assert "error: the local postgres cannot use its directory" in failed.stderr


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_help_shows_an_example(run, command):
    shown = run(command, "--help")
    assert shown.exit_code == 0
    assert f"thetastream local {command}" in " ".join(shown.stdout.split())
