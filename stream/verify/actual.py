"""The rows that PostgreSQL holds, brought into DuckDB (``actual_features``, ``actual_weekly``).

Fetching and loading are apart, so that a comparison can be tested without a server. Between them
lie two CSV files: PostgreSQL writes and DuckDB reads them at full speed and in little memory.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import duckdb
from asyncpg.exceptions import InterfaceError, PostgresError, UndefinedTableError

from stream.errors import VerifyError

__all__ = ["FEATURES_FILE", "WEEKLY_FILE", "fetch_actual", "load_actual"]

FEATURES_FILE = "features_topic_daily.csv"
WEEKLY_FILE = "weekly_kpi.csv"

_NULL = r"\N"

_FEATURES_QUERY = """
SELECT
    user_id, topic_id, date, attempts, correct, hints, avg_time_ms, rt_median,
    round(extract(epoch FROM last_seen_at) * 1000, 3) AS last_seen_at,
    improvement, improvement_accuracy
FROM features_topic_daily
"""

_WEEKLY_QUERY = """
SELECT
    user_id, week_start,
    kpis->>'I_t', kpis->>'I_t_accuracy', kpis->>'E_t', kpis->>'R_t', kpis->>'A_t',
    kpis->>'P', kpis->>'S',
    array_to_string(ARRAY(
        SELECT k FROM unnest(ARRAY['I_t', 'I_t_accuracy', 'E_t', 'R_t', 'A_t', 'P', 'S']) AS k
        WHERE NOT coalesce(kpis, '{}') ? k), ' ')
FROM weekly_kpi
"""

_LOAD_FEATURES = """
CREATE OR REPLACE TABLE actual_features AS
FROM read_csv($path, header = true, auto_detect = false, delim = ',', quote = '"', escape = '"',
    nullstr = '\\N', allow_quoted_nulls = false, columns = {
        'user_id': 'VARCHAR', 'topic_id': 'VARCHAR', 'date': 'DATE', 'attempts': 'BIGINT',
        'correct': 'BIGINT', 'hints': 'BIGINT', 'avg_time_ms': 'DOUBLE', 'rt_median': 'DOUBLE',
        'last_seen_at': 'DOUBLE', 'improvement': 'DOUBLE', 'improvement_accuracy': 'DOUBLE'})
"""

_LOAD_WEEKLY = """
-- What is there but is no number must not pass for null: it becomes NaN, which equals nothing.
CREATE OR REPLACE TABLE actual_weekly AS
SELECT
    user_id, week_start, coalesce(missing_keys, '') AS missing_keys,
    CASE WHEN COLUMNS(['I_t', 'I_t_accuracy', 'E_t', 'R_t', 'A_t', 'P', 'S']) IS NOT NULL
        THEN coalesce(
            try_cast(COLUMNS(['I_t', 'I_t_accuracy', 'E_t', 'R_t', 'A_t', 'P', 'S']) AS DOUBLE),
            'nan'::DOUBLE) END
FROM read_csv($path, header = true, auto_detect = false, delim = ',', quote = '"', escape = '"',
    nullstr = '\\N', allow_quoted_nulls = false, columns = {
        'user_id': 'VARCHAR', 'week_start': 'DATE', 'I_t': 'VARCHAR', 'I_t_accuracy': 'VARCHAR',
        'E_t': 'VARCHAR', 'R_t': 'VARCHAR', 'A_t': 'VARCHAR', 'P': 'VARCHAR', 'S': 'VARCHAR',
        'missing_keys': 'VARCHAR'})
"""


def fetch_actual(database_url: str, schema: str, directory: Path) -> None:
    """Copy both tables out of PostgreSQL, as of one moment.

    Parameters
    ----------
    database_url
        As asyncpg takes it.
    schema
        Schema of the tables.
    directory
        Where to write :data:`FEATURES_FILE` and :data:`WEEKLY_FILE`.

    Raises
    ------
    VerifyError
        The database does not answer, or the tables are not there.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", schema):
        raise VerifyError(f"{schema!r} is no name of a schema: letters, digits and _ only")
    try:
        asyncio.run(_copy_out(database_url, schema, directory))
    except UndefinedTableError as error:
        raise VerifyError(
            f"schema {schema} lacks a table ({error}); apply the migrations first"
        ) from error
    except (PostgresError, InterfaceError, OSError, ValueError) as error:
        raise VerifyError(f"PostgreSQL cannot be read: {error}") from error


async def _copy_out(database_url: str, schema: str, directory: Path) -> None:
    con = await asyncpg.connect(database_url, timeout=30)
    try:
        async with con.transaction(isolation="repeatable_read", readonly=True):
            await con.execute(f'SET LOCAL search_path TO "{schema}"')
            for query, name in ((_FEATURES_QUERY, FEATURES_FILE), (_WEEKLY_QUERY, WEEKLY_FILE)):
                await con.copy_from_query(
                    query,
                    output=directory / name,
                    format="csv",
                    header=True,
                    null=_NULL,
                    force_quote=True,
                )
    finally:
        await con.close()


def load_actual(con: duckdb.DuckDBPyConnection, directory: Path) -> None:
    """Create tables ``actual_features`` and ``actual_weekly``.

    Parameters
    ----------
    con
        Database to create them in.
    directory
        Where :func:`fetch_actual` wrote its files.

    Raises
    ------
    VerifyError
        The files cannot be read.
    """
    try:
        con.execute(_LOAD_FEATURES, {"path": str(directory / FEATURES_FILE)})
        con.execute(_LOAD_WEEKLY, {"path": str(directory / WEEKLY_FILE)})
    except duckdb.Error as error:
        raise VerifyError(f"the rows from PostgreSQL cannot be read: {error}") from error
