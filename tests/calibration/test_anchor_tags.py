"""Which items become anchors, and what that changes in the users' catalogue."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from stream.calibration.anchor_tags import KnownItem, plan_anchors, tag_anchors
from stream.calibration.tagged import tagged_anchors
from stream.cli.main import app
from stream.domain.irt import ItemParams
from stream.errors import DatabaseSchemaError, DatabaseUnavailableError
from stream.migrate import migrate
from stream.settings import Settings


def known(name: str, b: float = 0.0, a: float = 1.0, **fields: Any) -> KnownItem:
    values: dict[str, Any] = {"n": 200, "b_history": (b, b + 0.1), "has_irt": True}
    return KnownItem(name, ItemParams(a, b), **{**values, **fields})


def test_an_anchor_stays_even_where_a_better_item_has_appeared() -> None:
    items = [known("old", 0.1, a=0.6, has_tag=True), known("better", 0.1, a=2.0)]
    plan = plan_anchors(items, 1)
    assert (plan.added, plan.kept, plan.spare) == ({}, ["old"], ["better"])


def test_others_fill_up_to_the_number_wanted_spread_over_the_difficulties() -> None:
    items = [known("old", -1.5, has_tag=True), known("near", -1.4), known("far", 1.5)]
    plan = plan_anchors(items, 2)
    assert (list(plan.added), plan.kept, plan.spare) == (["far"], ["old"], ["near"])
    assert list(plan_anchors(items, 3).added) == ["far", "near"]


def test_an_unfit_anchor_loses_its_tag_only_when_asked() -> None:
    items = [known("wanders", b_history=(-1.0, 1.0), has_tag=True)]
    plan = plan_anchors(items)
    assert (plan.kept, plan.removed) == (["wanders"], [])
    assert plan.unfit == {"wanders": ["b varies by 1.00 between calibrations"]}
    plan = plan_anchors(items, prune=True)
    assert (plan.kept, plan.removed) == ([], ["wanders"])


def test_a_tag_without_parameters_is_completed() -> None:
    plan = plan_anchors([known("i", has_tag=True, has_irt=False)])
    assert (plan.added, plan.kept) == ({"i": ItemParams(1.0, 0.0)}, [])


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (KnownItem("i", None), "it has no calibrated parameters"),
        (known("i", n=99), "99 responses, fewer than 100"),
        (known("i", in_catalogue=False), "the table question has no row for it"),
        (known("i", can_be_tagged=False), "question.meta is no object, or its tags are no list"),
    ],
)
def test_every_item_that_is_not_chosen_is_told_why(item: KnownItem, reason: str) -> None:
    assert plan_anchors([item]).unfit == {"i": [reason]}


CATALOGUE = {
    "good": '{"tags": ["algebra"], "title": "x"}',
    "bare": None,
    "null tags": '{"tags": null}',
    "held": '{"tags": ["anchor"], "irt": {"a": 2, "b": 0.5}}',
    "wanders": '{"tags": ["anchor", "algebra"], "irt": {"a": 1, "b": 0}}',
    "odd": '{"tags": "algebra"}',
    "unknown": "{}",
    "by hand": '{"tags": ["anchor"], "irt": {"a": 1, "b": 0}}',
}
DIFFICULTIES = {
    "good": (0.5, 0.6),
    "bare": (-1.0, -1.1),
    "null tags": (1.0, 1.1),
    "held": (0.5, 0.5),
    "wanders": (0.0, 1.5),
    "odd": (0.2, 0.2),
    "elsewhere": (0.3, 0.3),
    "once": (0.0,),
}
"""b of each calibration, the newest first."""


@pytest.fixture(params=["jsonb", "json"])
async def catalogue(database_url: str, request: pytest.FixtureRequest) -> Settings:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            f"create table question (id text primary key, meta {request.param})"
        )
        await migrate(database_url)
        await connection.executemany(
            f"insert into question values ($1, $2::text::{request.param})", CATALOGUE.items()
        )
        for item, difficulties in DIFFICULTIES.items():
            for age, b in enumerate(difficulties):
                metrics = '{"n": 150}' if item != "bare" else "{}"
                await connection.execute(
                    "insert into item_calibration (item_id, version, params, metrics, fitted_at) "
                    "values ($1, $2, $3, $4, now() - $5 * interval '1 day')",
                    *(item, f"irt-{9 - age}", json.dumps({"a": 1.25, "b": b}), metrics, age),
                )
            await connection.execute(
                "insert into mirt_item_params (item_id, params) values ($1, $2)",
                *(item, json.dumps({"a": 1.25, "b": difficulties[0], "c": 0.0})),
            )
        # Where a calibration did not tell its responses, the attempts counted do.
        await connection.execute(
            "insert into item_partials values ('bare', 0, 70, 1), ('bare', 1, 40, 1)"
        )
    finally:
        await connection.close()
    return Settings(database_url=database_url)


async def metas(settings: Settings) -> dict[str, Any]:
    connection = await asyncpg.connect(settings.database_url)
    try:
        rows = await connection.fetch("select id, meta::text from question")
    finally:
        await connection.close()
    return {row["id"]: json.loads(row["meta"] or "null") for row in rows}


@pytest.mark.integration
async def test_tags_are_written_beside_what_is_there(catalogue: Settings) -> None:
    before = await metas(catalogue)
    plan = await tag_anchors(catalogue)
    assert list(plan.added) == ["bare", "good", "null tags"]
    assert plan.kept == ["by hand", "held", "wanders"]
    assert plan.unfit == {
        "by hand": ["it has no calibrated parameters"],
        "elsewhere": ["the table question has no row for it"],
        "odd": ["question.meta is no object, or its tags are no list"],
        "once": [
            "1 recent calibrations, fewer than 2",
            "the table question has no row for it",
        ],
        "wanders": ["b varies by 0.75 between calibrations"],
    }
    after = await metas(catalogue)
    irt = {"a": 1.25, "c": 0.0}
    assert after.pop("good") == {
        "tags": ["algebra", "anchor"],
        "title": "x",
        "irt": {**irt, "b": 0.5},
    }
    assert after.pop("bare") == {"tags": ["anchor"], "irt": {**irt, "b": -1.0}}
    assert after.pop("null tags") == {"tags": ["anchor"], "irt": {**irt, "b": 1.0}}
    assert after == {item: before[item] for item in after}
    anchors = await tagged_anchors(catalogue)
    assert anchors is not None
    assert anchors["good"] == (1.25, 0.5, 0.0)
    assert (await tag_anchors(catalogue)).added == {}


@pytest.mark.integration
async def test_pruning_takes_the_tag_alone(catalogue: Settings) -> None:
    plan = await tag_anchors(catalogue, prune=True)
    assert plan.removed == ["by hand", "wanders"]
    assert (await metas(catalogue))["wanders"] == {"tags": ["algebra"], "irt": {"a": 1, "b": 0}}


@pytest.mark.integration
def test_a_dry_run_tells_all_and_writes_nothing(catalogue: Settings) -> None:
    def run(*arguments: str) -> str:
        environment = {"DATABASE_URL": catalogue.database_url, "KAFKA_BROKER": "127.0.0.1:1"}
        result = CliRunner().invoke(app, ["tag-anchors", *arguments], env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    shown = json.loads(run("--dry-run", "--prune", "--json", "--max-candidates", "2"))
    assert shown["dry_run"] is True
    assert (list(shown["added"]), shown["kept"]) == (["bare"], ["held"])
    assert shown["removed"] == ["by hand", "wanders"]
    assert shown["spare"] == ["good", "null tags"]
    text = run("--dry-run")
    assert "+ bare: a 1.25, b -1.00\n" in text
    assert "! wanders is tagged but unfit (--prune): b varies by 0.75" in text
    assert "  odd is unfit: question.meta is no object" in text
    assert "3 items would be tagged, 0 would be untagged, 3 stay" in text
    assert "3 items tagged" in run()
    assert "0 items tagged" in run()


@pytest.mark.integration
async def test_a_database_without_tables_or_none_at_all_is_said(database_url: str) -> None:
    with pytest.raises(DatabaseSchemaError, match="thetastream migrate"):
        await tag_anchors(Settings(database_url=database_url))
    with pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1:1"):
        await tag_anchors(Settings(database_url="postgresql://127.0.0.1:1/none"))
    await migrate(database_url)
    assert (await tag_anchors(Settings(database_url=database_url))).unfit == {}
