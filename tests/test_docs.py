"""The documentation names everything there is, and nothing that is not there.

A row that is missing is shown as it should be, to be pasted into the page.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from typer.main import get_command

import stream.errors
from schemas.attempt import REASONS
from schemas.frozen import EVENTS
from stream.cli.main import app
from stream.domain import improvement, kpi
from stream.migrate import migrations
from stream.settings import describe
from topics.catalogue import CATALOGUE, TopicSpec

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
]
ADRS = sorted(path for path in (DOCS / "adr").glob("[0-9]*.md") if not path.match("0000-*"))

WITH_METRICS = (
    "stream.engine.engine",
    "stream.calibration.agents",
    "stream.sinks",
    "stream.lookup",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def page(name: str) -> str:
    return (DOCS / name).read_text()


def default_of(row: dict[str, Any]) -> str:
    value = row["default"]
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "empty" if value == "" else f"`{value}`"


def settings_row(row: dict[str, Any]) -> str:
    secret = " Secret: shown nowhere." if row["secret"] else ""
    return (
        f"| `{row['env']}` | {row['type']} | {default_of(row)} | {row['allowed']} "
        f"| {row['doc']}{secret} |"
    )


def topic_row(spec: TopicSpec) -> str:
    partitions = "learners" if spec.partitions == "learners" else str(spec.partitions)
    kept = "newest a key" if spec.retention_days is None else f"{spec.retention_days} days"
    size = f"{spec.max_message_bytes // 2**20} MiB"
    key = spec.key.replace("|", "\\|")
    return f"| `{spec.name}` | {key} | {partitions} | {spec.cleanup} | {kept} | {size} |"


@pytest.mark.parametrize("row", describe(), ids=lambda row: row["env"])
def test_every_setting_stands_in_its_table_as_the_code_has_it(row: dict[str, Any]) -> None:
    assert settings_row(row) in page("settings.md").splitlines()


def test_settings_name_nothing_that_is_not_a_setting() -> None:
    named = re.findall(r"^\| `([A-Z_]+)` \| \w+ \|", page("settings.md"), re.MULTILINE)
    assert sorted(named) == sorted(row["env"] for row in describe())


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_every_topic_stands_in_its_table_as_the_catalogue_has_it(spec: TopicSpec) -> None:
    assert topic_row(spec) in page("topics.md").splitlines()


@pytest.mark.parametrize("event", EVENTS)
def test_every_frozen_schema_is_linked(event: str) -> None:
    newest = max((ROOT / "schemas/json" / event).glob("*.json"), key=lambda path: int(path.stem))
    assert f"](../{name_of(newest)})" in page("topics.md")


def columns() -> Iterator[tuple[str, str]]:
    """Return (table or view, column) of all migrations, without the source columns."""
    sql = "\n".join(re.sub(r"--.*", "", one.sql) for one in migrations())
    shapes = r"create table if not exists (\w+) \((.*?)\n\);|alter table (\w+)(.*?);"
    for made, inside, altered, added in re.findall(shapes, sql, re.DOTALL):
        pattern = r"^ {4}(?:add column if not exists )?(?!primary)(\w+) "
        for column in re.findall(pattern, inside or added, re.MULTILINE):
            yield made or altered, column
    for view in re.findall(r"create or replace view (\w+)", sql):
        yield view, view


@pytest.mark.parametrize(("table", "column"), sorted(set(columns())))
def test_every_column_stands_with_its_table(table: str, column: str) -> None:
    sections = re.split(r"^### ", page("tables.md"), flags=re.MULTILINE)
    mine = [section for section in sections if f"`{table}`" in section.splitlines()[0]]
    assert len(mine) == 1, f"docs/tables.md has no heading '### `{table}`'"
    common = "source_partition", "source_offset", "params_version"
    assert column in common or f"`{column}`" in mine[0]


def test_every_metric_is_explained() -> None:
    for module in WITH_METRICS:
        importlib.import_module(module)
    names = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in REGISTRY.collect()
        if metric.name.startswith("thetastream_")
    }
    assert len(names) > 10
    explained = page("operations.md")
    assert [name for name in sorted(names) if f"`{name}`" not in explained] == []


@pytest.mark.parametrize("name", stream.errors.__all__)
def test_every_error_is_explained(name: str) -> None:
    assert f"| `{name}` |" in page("operations.md")


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_a_dead_letter_is_explained(reason: str) -> None:
    assert f"| `{reason}` |" in page("operations.md")


def commands(command: Any, path: str) -> list[str]:
    """Return the full names of a command's leaves."""
    parts: dict[str, Any] = getattr(command, "commands", {})
    leaves = [leaf for name, part in parts.items() for leaf in commands(part, f"{path} {name}")]
    return leaves or [path]


@pytest.mark.parametrize("command", commands(get_command(app), "thetastream"))
def test_every_command_is_explained(command: str) -> None:
    assert " " in command
    assert f"| `{command}` |" in page("operations.md")


def test_every_route_is_explained() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "stream/lookup").glob("*.py"))
    routes = re.findall(r'add_(get|post)\(\s*"([^"]+)"', sources)
    assert len(routes) >= 4
    for method, route in routes:
        assert f"`{method.upper()} {route}`" in page("lookup.md")


@pytest.mark.parametrize(
    "shown",
    [
        f"= {improvement.accuracy_improvement(20, 10, 15, 12):.7f}",
        f"= {improvement.theta_improvement(0.1, 0.6, 0.2, 15):.3f}",
        f"= {kpi.efficiency(10_000, 7_500)}",
        f"= {kpi.recovery(4, 1)}",
        f"= {kpi.engagement(7, [0, 2, 6])}",
        f"= {kpi.chance_above_target(0.5, 0.5, 0.0):.7f}",
        f"= {kpi.stopping_risk(14, [0, 7], 5)}",
    ],
)
def test_worked_examples_give_what_the_code_gives(shown: str) -> None:
    assert shown in page("indicators.md")


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file) if file else path
        assert found.exists(), f"{name_of(path)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, f"{name_of(path)} links to {target}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_test_that_is_named_exists(path: Path) -> None:
    for file, name in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", path.read_text()):
        assert (ROOT / file).is_file(), f"{name_of(path)} names {file}"
        if name:
            assert f"def {name}(" in (ROOT / file).read_text(), f"{name_of(path)} names {name}"


@pytest.mark.parametrize("path", [ROOT / "README.md", DOCS / "guarantees.md"], ids=name_of)
def test_guarantees_name_the_tests_that_show_them(path: Path) -> None:
    assert len(re.findall(r"tests/[\w/]+\.py::test_\w+", path.read_text())) >= 5


FORBIDDEN = re.compile(
    r"/(?:work|root|home|tmp)/|\bissues?\b|\bassistants?\b|\bTODO\b|\bTBD\b|pypi\.org|@[a-z]+\.[a-z]+",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_speak_of_the_project_alone(path: Path) -> None:
    # An address such as user:password@host:5432 is an example, not somebody's.
    text = re.sub(r"\w+://\S+", "", path.read_text())
    assert FORBIDDEN.findall(text) == []


def test_the_map_leads_to_every_page() -> None:
    index = page("index.md")
    for path in DOCS.glob("*.md"):
        assert path.name == "index.md" or f"]({path.name})" in index
    assert "](adr/index.md)" in index


@pytest.mark.parametrize("path", ADRS, ids=name_of)
def test_every_decision_is_listed_short_and_says_what_it_costs(path: Path) -> None:
    text = path.read_text()
    assert f"]({path.name})" in page("adr/index.md")
    assert len(text.splitlines()) <= 60
    for part in ("## Context", "## Decision", "## Consequences", "Good:", "Bad:"):
        assert part in text
