"""Reading the datasets' tables: as of a day, in one snapshot, in one order."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Any

import asyncpg
from asyncpg.exceptions import InterfaceError, PostgresError

from stream.database import CONNECT_TIMEOUT_S, SESSION, convert_error, quoted
from stream.models.kind import Dataset, ModelKind
from stream.settings import Settings

__all__ = ["monday", "read_dataset", "whole_learners"]

logger = logging.getLogger(__name__)

_QUERY_TIMEOUT_S = 600.0


async def read_dataset(kind: ModelKind, settings: Settings, as_of: date) -> Dataset:
    """Read what a fit is asked of.

    Parameters
    ----------
    kind
        Whose dataset.
    settings
        Where the tables are.
    as_of
        What happened before this day (UTC) counts.

    Raises
    ------
    DatabaseUnavailableError, DatabaseSchemaError
        The tables cannot be read.
    EstimationError
        There is nothing to fit.
    """
    try:
        async with _snapshot(settings) as connection:
            return await kind.dataset(connection, settings, as_of)
    except (OSError, PostgresError, InterfaceError, ValueError, TimeoutError) as error:
        # EstimationError is a ValueError of ours and comes back as it is.
        raise convert_error(error, settings.database_url) from error


def monday(day: date) -> date:
    """Return the Monday of a day's week.

    Examples
    --------
    >>> monday(date(2024, 3, 24))
    datetime.date(2024, 3, 18)
    """
    return day - timedelta(days=day.weekday())


def whole_learners(
    rows: Sequence[Any], most: int, seed: str, user: str = "user_id"
) -> tuple[list[Any], int]:
    """Leave out whole learners until no more than ``most`` rows are left.

    Which ones is decided by their names alone: the same learners stay from week to week.

    Returns
    -------
    list, int
        The rows that stay, in their order, and the number of learners left out.
    """
    if len(rows) <= most:
        return list(rows), 0
    counts: dict[str, int] = {}
    for row in rows:
        counts[row[user]] = counts.get(row[user], 0) + 1
    chosen: set[str] = set()
    room = most
    for name in sorted(counts, key=lambda n: hashlib.sha256(f"{seed}|{n}".encode()).digest()):
        room -= counts[name]
        if room < 0:
            break
        chosen.add(name)
    return [row for row in rows if row[user] in chosen], len(counts) - len(chosen)


@asynccontextmanager
async def _snapshot(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """Open a transaction in which all queries see the same rows; the schema is first on its path.

    Sums of floats depend on their order: queries add integers and numerics, which do not.
    """
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        connection = await asyncpg.connect(
            settings.database_url, server_settings=SESSION, command_timeout=_QUERY_TIMEOUT_S
        )
    try:
        await connection.execute(f"set search_path to {quoted(settings.db_schema)}")
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    finally:
        await connection.close(timeout=1.0)
