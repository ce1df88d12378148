"""A broker that has lost its disk: PostgreSQL keeps its rows, and the log can be sent again."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bench.chaos.progress import unfinished
from stream.kafka.admin import create_topics
from stream.local.stack import Stack
from stream.migrate import migrate
from stream.settings import Settings
from tests.engine.conftest import wait_for
from tests.faults.roles import Roles, end_all

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SENT = 3000


async def _rows(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the tables say, apart from when and out of which log it was written."""
    connection = await asyncpg.connect(settings.database_url)
    try:
        await connection.execute(f'set search_path to "{settings.db_schema}"')
        return {
            name: [tuple(row) for row in await connection.fetch(query)]
            for name, query in (
                ("daily", "select user_id, topic_id, date, attempts, correct, theta_estimate "
                 "from features_topic_daily order by 1, 2, 3"),
                ("weekly", "select user_id, week_start, kpis from weekly_kpi order by 1, 2"),
                ("live", "select user_id, theta, se from mirt_ability order by 1"),
                ("topics", "select topic_id, attempts, correct from topic_totals order by 1"),
            )
        }  # fmt: skip
    finally:
        await connection.close()


async def _forget_offsets(settings: Settings) -> None:
    """Set source_offset to null everywhere, and spoil a count that is to be written anew."""
    connection = await asyncpg.connect(settings.database_url)
    try:
        tables = await connection.fetch(
            "select table_name from information_schema.columns natural join "
            "information_schema.tables where table_schema = $1 and table_type = 'BASE TABLE' "
            "and column_name = 'source_offset'",
            settings.db_schema,
        )
        for (name,) in tables:
            await connection.execute(
                f'update "{settings.db_schema}"."{name}" set source_offset = null'
            )
        await connection.execute(
            f'update "{settings.db_schema}".features_topic_daily set attempts = 0'
        )
    finally:
        await connection.close()


def _settle(settings: Settings, directory: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Send the attempts, wait until all is in the tables, and return those."""
    create_topics(settings)
    with Roles(settings, directory) as roles:
        running = [roles.start("engine"), roles.start("sink")]
        for one in running:
            one.wait_ready()
        roles.send(SENT)
        roles.wait_counted(SENT)
        roles.wait_in_tables(SENT)
        wait_for(lambda: not unfinished(settings), 90.0)
        assert end_all(running, 10.0) == {"engine": 0, "sink": 0}
    return asyncio.run(_rows(settings))


@pytest.mark.parametrize("way", ["into a fresh schema", "with source_offset set to null"])
def test_after_a_lost_disk_the_attempts_sent_again_give_the_same_rows(
    breakable: Stack, fault_settings: Settings, tmp_path: Path, way: str
) -> None:
    before = _settle(fault_settings, tmp_path)
    breakable.kafka.stop()
    shutil.rmtree(breakable.kafka.data)
    breakable.kafka.start()
    # What PostgreSQL has stays as it was.
    assert asyncio.run(_rows(fault_settings)) == before

    again = fault_settings
    if way == "into a fresh schema":
        again = dataclasses.replace(again, db_schema=f"{again.db_schema}_again")
        asyncio.run(migrate(again.database_url, again.db_schema))
    else:
        asyncio.run(_forget_offsets(again))
    directory = tmp_path / "again"
    directory.mkdir()
    assert _settle(again, directory) == before
