"""Anchors come from the users' own ``question`` table."""

from __future__ import annotations

import asyncpg
import pytest

from stream.calibration.tagged import tagged_anchors
from stream.settings import Settings

pytestmark = pytest.mark.integration


async def _questions(database_url: str, column: str, *rows: tuple[str, str | None]) -> Settings:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f"create table question (id text primary key, meta {column})")
        await connection.executemany(
            f"insert into question values ($1, $2::text::{column})",
            rows,
        )
    finally:
        await connection.close()
    return Settings(database_url=database_url)


@pytest.mark.parametrize("column", ["jsonb", "json"])
async def test_tagged_items_with_parameters_are_anchors(database_url: str, column: str) -> None:
    settings = await _questions(
        database_url,
        column,
        ("both", '{"irt": {"a": 1.5, "b": -0.25, "c": 0.1}, "tags": ["x", "anchor"]}'),
        ("no guessing", '{"irt": {"a": 1, "b": 2}, "tags": ["anchor"]}'),
        ("not tagged", '{"irt": {"a": 1, "b": 2}, "tags": ["x"]}'),
        ("no parameters", '{"tags": ["anchor"]}'),
        ("no tags", '{"irt": {"a": 1, "b": 2}}'),
        ("no curve", '{"irt": {"a": -1, "b": 2}, "tags": ["anchor"]}'),
        ("no numbers", '{"irt": {"a": "?", "b": null}, "tags": ["anchor"]}'),
        ("no object", '{"irt": 3, "tags": ["anchor"]}'),
        ("nothing", None),
    )
    assert await tagged_anchors(settings) == {
        "both": (1.5, -0.25, 0.1),
        "no guessing": (1.0, 2.0, 0.0),
    }


async def test_a_database_without_the_table_or_none_at_all_gives_no_answer(
    database_url: str,
) -> None:
    assert await tagged_anchors(Settings(database_url=database_url)) is None
    assert await tagged_anchors(Settings(database_url="postgresql://127.0.0.1:1/none")) is None
    assert await tagged_anchors(Settings(database_url="no address")) is None
