"""``thetastream report`` as a person or a program calls it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.errors import SourceError
from stream.settings import Settings

from .conftest import WEEK, add_day


@pytest.fixture
def school(tables: asyncpg.Connection, report_settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", report_settings.database_url)
    return tables


async def test_data_alone_are_written_beside_the_page_to_be(
    school: asyncpg.Connection, tmp_path: Path
) -> None:
    await add_day(school, "u", WEEK.start, 0.5)
    out = tmp_path / "w13.html"
    done = await asyncio.to_thread(
        CliRunner().invoke,
        app,
        ["report", "--week", "2025-W13", "--data-only", "--out", str(out), "--json"],
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["week"], told["out"], told["renderer"]) == ("2025-W13", None, None)
    assert told["missing"].keys() >= {"calibration", "growth", "churn"}
    assert "summary" not in told["missing"]
    assert told["data"] == str(out.with_suffix(".json"))
    data = json.loads(await asyncio.to_thread(out.with_suffix(".json").read_text))
    assert data["summary"]["weeks"][-1]["attempts"] == 10
    assert not out.exists()


def test_a_week_that_is_none_is_a_wrong_argument() -> None:
    done = CliRunner().invoke(app, ["report", "--week", "2025-W54"])
    assert done.exit_code == 2
    assert "2025-W54" in done.output


def test_the_page_cannot_take_the_name_of_its_data() -> None:
    done = CliRunner().invoke(app, ["report", "--out", "report.json"])
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), ("<html>", "is not JSON"), ('{"schema": "x"}', "not a data file")],
)
def test_a_data_file_that_cannot_be_used_is_told(
    tmp_path: Path, content: str | None, why: str
) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    done = CliRunner().invoke(app, ["report", "--from", str(path)])
    assert isinstance(done.exception, SourceError)
    assert why in str(done.exception)
