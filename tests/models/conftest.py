"""Settings with a school in the tables."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from stream.migrate import migrate
from stream.settings import Settings
from tests.models.school import fill


@pytest.fixture
async def school(database_url: str) -> Settings:
    """Settings of a database with the school's rows."""
    await migrate(database_url)
    connection = await asyncpg.connect(database_url)
    await fill(connection)
    await connection.close()
    # The school has eight weeks with an I_t, and is looked at before its end, too.
    return replace(Settings(), database_url=database_url, forecast_min_weeks=4)
