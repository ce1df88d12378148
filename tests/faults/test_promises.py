"""docs/guarantees.md promises what the code does, and names the test of every promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stream.domain.window import storage_days
from stream.settings import Settings
from tests.faults.roles import Roles
from topics.catalogue import (
    TopicSpec,
    attempts_topic,
    calibration_requests_topic,
    calibration_results_topic,
    dead_letters_topic,
    feature_updates_topic,
    kpi_updates_topic,
)

PAGE = (Path(__file__).parents[2] / "docs/guarantees.md").read_text()

PROMISES = re.findall(r"^\| ([^|]+) \| ([^|]*tests/[^|]*|[^|]*) \|$", PAGE, re.MULTILINE)


def test_every_section_is_a_table_of_promises() -> None:
    headings = [
        lines[0]
        for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
        for lines in [section.splitlines()]
        if "| promise | test |" in lines
    ]
    for wanted in (
        *("Delivery and exactness", "Ordering", "Lateness", "De-duplication", "Corrections"),
        *("Abilities", "Rows in PostgreSQL", "Retention", "A lost broker disk", "Availability"),
    ):
        assert wanted in headings


@pytest.mark.parametrize(
    ("promise", "shown_by"),
    [one for one in PROMISES if one[0] != "promise" and not one[0].startswith("---")],
    ids=lambda text: text[:40],
)
def test_every_promise_names_a_test(promise: str, shown_by: str) -> None:
    assert re.search(r"`tests/[\w/]+\.py::test_\w+`", shown_by), promise


@pytest.mark.parametrize(
    ("spec", "days"),
    [
        (attempts_topic, 90),
        (dead_letters_topic, 90),
        (feature_updates_topic, 14),
        (kpi_updates_topic, 14),
        (calibration_requests_topic, 30),
        (calibration_results_topic, 30),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_topic_is_kept_as_long_as_promised(spec: TopicSpec, days: int) -> None:
    assert spec.retention_days == days
    assert f"{days} days" in PAGE


@pytest.mark.integration
@pytest.mark.slow
def test_a_learners_day_is_dropped_once_it_is_older_than_promised(roles: Roles) -> None:
    kept = storage_days(Settings().lateness_days)
    assert kept == 62
    assert f"{kept} days" in PAGE
    roles.start("engine").wait_ready()

    def days() -> list[bytes]:
        newest = {r.key(): r.value() for r in roles.read("engine-state")}
        return sorted(key for key, value in newest.items() if key[:1] == b"D" and value is not None)

    roles.send(1, learners=1, day=0.0)
    roles.send(1, learners=1, day=float(kept))
    roles.wait_counted(2)
    assert len(days()) == 2
    roles.send(1, learners=1, day=float(kept + 1))
    roles.wait_counted(3)
    after = days()
    assert len(after) == 2
