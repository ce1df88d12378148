"""The rows that PostgreSQL holds, brought into DuckDB.

Fetching and loading are apart, so that a comparison can be tested without a server. Between them
lie CSV files: PostgreSQL writes and DuckDB reads them at full speed and in little memory.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

import asyncpg
import duckdb
from asyncpg.exceptions import InterfaceError, PostgresError, UndefinedTableError

from stream.errors import VerifyError

__all__ = ["fetch_actual", "load_actual"]

_NULL = r"\N"


class _Source(NamedTuple):
    """What is copied out of PostgreSQL, and read into a DuckDB table.

    Attributes
    ----------
    table
        The DuckDB table; its file's name, too.
    query
        PostgreSQL's.
    columns
        DuckDB's types of the query's columns.
    select
        What of them the table gets.
    """

    table: str
    query: str
    columns: str
    select: str = "*"


_SOURCES = (
    _Source(
        "actual_features",
        """
        SELECT
            user_id, topic_id, date, attempts, correct, hints, avg_time_ms, rt_median,
            round(extract(epoch FROM last_seen_at) * 1000, 3) AS last_seen_at,
            improvement, improvement_accuracy, theta_estimate, theta_sd
        FROM features_topic_daily
        """,
        """
        'user_id': 'VARCHAR', 'topic_id': 'VARCHAR', 'date': 'DATE', 'attempts': 'BIGINT',
        'correct': 'BIGINT', 'hints': 'BIGINT', 'avg_time_ms': 'DOUBLE', 'rt_median': 'DOUBLE',
        'last_seen_at': 'DOUBLE', 'improvement': 'DOUBLE', 'improvement_accuracy': 'DOUBLE',
        'theta_estimate': 'DOUBLE', 'theta_sd': 'DOUBLE'
        """,
    ),
    _Source(
        "actual_weekly",
        """
        SELECT
            user_id, week_start,
            kpis->>'I_t', kpis->>'I_t_accuracy', kpis->>'E_t', kpis->>'R_t', kpis->>'A_t',
            kpis->>'P', kpis->>'S',
            array_to_string(ARRAY(
                SELECT k FROM unnest(ARRAY['I_t', 'I_t_accuracy', 'E_t', 'R_t', 'A_t', 'P', 'S'])
                    AS k
                WHERE NOT coalesce(kpis, '{}') ? k), ' ')
        FROM weekly_kpi
        """,
        """
        'user_id': 'VARCHAR', 'week_start': 'DATE', 'I_t': 'VARCHAR', 'I_t_accuracy': 'VARCHAR',
        'E_t': 'VARCHAR', 'R_t': 'VARCHAR', 'A_t': 'VARCHAR', 'P': 'VARCHAR', 'S': 'VARCHAR',
        'missing_keys': 'VARCHAR'
        """,
        # What is there but is no number must not pass for null: it becomes NaN, which equals
        # nothing.
        """
        user_id, week_start, coalesce(missing_keys, '') AS missing_keys,
        CASE WHEN COLUMNS(['I_t', 'I_t_accuracy', 'E_t', 'R_t', 'A_t', 'P', 'S']) IS NOT NULL
            THEN coalesce(
                try_cast(
                    COLUMNS(['I_t', 'I_t_accuracy', 'E_t', 'R_t', 'A_t', 'P', 'S']) AS DOUBLE),
                'nan'::DOUBLE) END
        """,
    ),
    _Source(
        "actual_topics",
        "SELECT topic_id, attempts, correct, learners FROM topic_totals",
        "'topic_id': 'VARCHAR', 'attempts': 'BIGINT', 'correct': 'BIGINT', 'learners': 'BIGINT'",
    ),
    _Source(
        "actual_items",
        "SELECT item_id, attempts, correct FROM item_totals",
        "'item_id': 'VARCHAR', 'attempts': 'BIGINT', 'correct': 'BIGINT'",
    ),
    _Source(
        "actual_abilities",
        "SELECT user_id, theta, se, params_version FROM mirt_ability WHERE version = 'live'",
        "'user_id': 'VARCHAR', 'theta': 'DOUBLE', 'se': 'DOUBLE', 'params_version': 'VARCHAR'",
    ),
    _Source(
        "actual_topic_abilities",
        "SELECT user_id, topic_id, theta, se, params_version FROM student_topic_theta",
        """
        'user_id': 'VARCHAR', 'topic_id': 'VARCHAR', 'theta': 'DOUBLE', 'se': 'DOUBLE',
        'params_version': 'VARCHAR'
        """,
    ),
)


def fetch_actual(database_url: str, schema: str, directory: Path) -> None:
    """Copy the tables out of PostgreSQL, as of one moment.

    Parameters
    ----------
    database_url
        As asyncpg takes it.
    schema
        Schema of the tables.
    directory
        Where to write a CSV file each.

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
            for source in _SOURCES:
                await con.copy_from_query(
                    source.query,
                    output=_file(source, directory),
                    format="csv",
                    header=True,
                    null=_NULL,
                    force_quote=True,
                )
    finally:
        await con.close()


def load_actual(con: duckdb.DuckDBPyConnection, directory: Path) -> None:
    """Create tables ``actual_features``, ``actual_weekly`` and so on.

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
        for source in _SOURCES:
            con.execute(
                f"CREATE OR REPLACE TABLE {source.table} AS SELECT {source.select} FROM read_csv("  # noqa: S608 (constants)
                "$path, header = true, auto_detect = false, delim = ',', quote = '\"',"
                " escape = '\"', nullstr = '\\N', allow_quoted_nulls = false,"
                f" columns = {{{source.columns}}})",
                {"path": str(_file(source, directory))},
            )
    except duckdb.Error as error:
        raise VerifyError(f"the rows from PostgreSQL cannot be read: {error}") from error


def _file(source: _Source, directory: Path) -> Path:
    return directory / f"{source.table}.csv"
