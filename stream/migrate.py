"""Applying the numbered SQL files of ``schemas/sql``, forward only, each once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources

import asyncpg
from asyncpg.exceptions import (
    InsufficientPrivilegeError,
    InterfaceError,
    LockNotAvailableError,
    PostgresError,
    UniqueViolationError,
)

from stream.database import CONNECT_TIMEOUT_S, SESSION, convert_error, quoted, said
from stream.errors import MigrationError

__all__ = ["MIGRATIONS_TABLE", "Migration", "migrate", "migrations", "pending_migrations"]

MIGRATIONS_TABLE = "thetastream_migrations"
"""Where applied files are recorded, in the schema they were applied to."""

_LOCK = 0x74686574  # "thet": the first half of the advisory lock, the schema is the second
_LOCK_TIMEOUT_MS = 30_000
"""How long a file may wait for a table that somebody else is using, before it gives way: an
`alter table` that waits blocks every later reader of the table."""

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name (which begins with its number) and its SQL."""

    name: str
    sql: str


def migrations() -> list[Migration]:
    """Return all migrations in the order they are applied.

    Raises
    ------
    MigrationError
        A file's name has no number, or two have the same.
    """
    found: dict[str, Migration] = {}
    for entry in (resources.files("schemas") / "sql").iterdir():
        if not entry.name.endswith(".sql"):
            continue
        match = _NAME.fullmatch(entry.name)
        if match is None or match[1] in found:
            raise MigrationError(
                f"schemas/sql/{entry.name} is not NNNN_words.sql with a number of its own; "
                "nothing was applied."
            )
        found[match[1]] = Migration(entry.name, entry.read_text(encoding="utf-8"))
    return [found[number] for number in sorted(found)]


async def migrate(database_url: str, schema: str = "public") -> list[str]:
    """Bring a schema's tables up to this release; make the schema if it is missing.

    Every file is applied in a transaction of its own, under a lock that a second starter waits
    for. Nothing of the users' is changed or dropped: tables that are there only gain nullable
    columns and indexes.

    Parameters
    ----------
    database_url
        As asyncpg reads it.
    schema
        Where the tables are.

    Returns
    -------
    list of str
        Names of the files that were applied now; empty if there was nothing to do.

    Raises
    ------
    DatabaseUnavailableError
        PostgreSQL cannot be reached or does not let us in. Nothing was changed.
    MigrationError
        PostgreSQL refused a file: that file changed nothing, those before it stay.
    """
    pending = migrations()
    try:
        connection = await asyncpg.connect(
            database_url, timeout=CONNECT_TIMEOUT_S, server_settings=SESSION
        )
    except (PostgresError, InterfaceError, OSError, ValueError) as error:
        raise convert_error(error, database_url) from error
    try:
        return [one.name for one in pending if await _apply(connection, schema, one)]
    except (InterfaceError, OSError) as error:
        raise convert_error(error, database_url) from error
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


async def pending_migrations(database_url: str, schema: str = "public") -> list[str]:
    """Return the files not yet applied to a schema, without changing anything.

    Raises
    ------
    DatabaseUnavailableError
        PostgreSQL cannot be reached or does not let us in.
    """
    table = f"{quoted(schema)}.{MIGRATIONS_TABLE}"
    try:
        connection = await asyncpg.connect(
            database_url, timeout=CONNECT_TIMEOUT_S, server_settings=SESSION
        )
        try:
            exists = await connection.fetchval("select to_regclass($1) is not null", table)
            rows = await connection.fetch(f"select name from {table}") if exists else []  # noqa: S608
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_S)
    except (PostgresError, InterfaceError, OSError, ValueError) as error:
        raise convert_error(error, database_url) from error
    applied = {row["name"] for row in rows}
    return [one.name for one in migrations() if one.name not in applied]


async def _apply(connection: asyncpg.Connection, schema: str, migration: Migration) -> bool:
    """Apply one file unless it is recorded as applied; tell whether it was."""
    table = f"{quoted(schema)}.{MIGRATIONS_TABLE}"
    try:
        async with connection.transaction():
            # Held until the transaction's end, so that no connection pooler in between matters.
            await connection.execute(
                "select pg_advisory_xact_lock($1, hashtext($2))", _LOCK, schema
            )
            await connection.execute(f"set local lock_timeout = {_LOCK_TIMEOUT_MS}")
            # Looked up first: `create schema if not exists` asks for the right to create one.
            known = await connection.fetchval("select to_regnamespace($1)", quoted(schema))
            if known is None:
                await connection.execute(f"create schema {quoted(schema)}")
            await connection.execute(
                f"create table if not exists {table} "
                "(name text primary key, applied_at timestamptz not null default now())"
            )
            if await connection.fetchval(
                f"select exists (select from {table} where name = $1)",  # noqa: S608 - quoted
                migration.name,
            ):
                return False
            await connection.execute(f"set local search_path to {quoted(schema)}")
            await connection.execute(migration.sql)
            await connection.execute(
                f"insert into {table} (name) values ($1)",  # noqa: S608 - quoted
                migration.name,
            )
            return True
    except PostgresError as error:
        raise MigrationError(
            f"schemas/sql/{migration.name} could not be applied to schema {schema}: {said(error)}. "
            "It changed nothing; the files before it stay applied. " + _advice(error)
        ) from error


def _advice(error: PostgresError) -> str:
    if isinstance(error, InsufficientPrivilegeError):
        return "Run `thetastream migrate` as the owner of the tables."
    if isinstance(error, LockNotAvailableError):
        return "A table is in use by a long transaction: run `thetastream migrate` again later."
    if isinstance(error, UniqueViolationError):
        return "Rows of a table repeat its key: remove the repetitions, then run it again."
    return "Remove the cause, then run `thetastream migrate` again."
