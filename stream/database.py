"""Speaking to PostgreSQL: connections, and its errors turned into ours in one place."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from asyncpg.exceptions import ClientConfigurationError, PostgresError

from stream.errors import DatabaseSchemaError, DatabaseUnavailableError, StreamError

__all__ = [
    "CONNECT_TIMEOUT_S",
    "SESSION",
    "convert_error",
    "quoted",
    "refuses_row",
    "said",
    "shown",
]

CONNECT_TIMEOUT_S = 10.0
"""Seconds after which an address that does not answer counts as away."""

SESSION: dict[str, str] = {"timezone": "UTC", "application_name": "thetastream"}
"""Settings of every session. UTC: some users' tables have `timestamp` without a zone."""

_ROW_CLASSES = ("21", "22", "23", "44", "54", "P0")
"""SQLSTATE classes by which PostgreSQL refuses a row for what it holds: two rows of a batch with
one key (after a cast: "1" and "01" in a users' bigint column), a data exception, a broken
constraint, the check option of a view, a limit exceeded, and a trigger's own refusal."""

_SCHEMA_CLASSES = ("42", "3D", "3F")
"""SQLSTATE classes that no waiting mends by itself: a missing table, column, right or database."""


def refuses_row(error: BaseException) -> bool:
    """Tell whether PostgreSQL (or its client) refused what a row holds: no retry would help."""
    if isinstance(error, PostgresError):
        return _state(error).startswith(_ROW_CLASSES)
    # asyncpg's own refusal to encode a value is a ValueError, as is a text that is no UTF-8.
    return isinstance(error, ValueError) and not isinstance(error, ClientConfigurationError)


def convert_error(error: BaseException, database_url: str) -> StreamError:
    """Return our error for one that arose in speaking to PostgreSQL.

    Parameters
    ----------
    error
        From asyncpg or the connection below it.
    database_url
        For the message; its password is not shown.
    """
    if isinstance(error, StreamError):
        return error
    where = shown(database_url)
    if isinstance(error, PostgresError):
        state = _state(error)
        if state.startswith("28"):
            return DatabaseUnavailableError(
                f"PostgreSQL at {where} does not let us in: {said(error)}. "
                "Check the user and password in DATABASE_URL."
            )
        if state.startswith(_SCHEMA_CLASSES):
            return DatabaseSchemaError(
                f"{said(error)}. If a table or column is missing, run `thetastream migrate`."
            )
    elif isinstance(error, ClientConfigurationError):
        return DatabaseUnavailableError(
            f"DATABASE_URL={where} cannot be read: {said(error)}. "
            "Give postgresql://user:password@host:port/database."
        )
    return DatabaseUnavailableError(f"PostgreSQL at {where} cannot be used: {said(error)}.")


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def said(error: BaseException) -> str:
    """Return an error's message in one line without a full stop; its class where it has none."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def shown(database_url: str) -> str:
    """Return host, port and database of an address, without who logs in."""
    try:
        parts: Any = urlsplit(database_url)
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return "***"


def _state(error: PostgresError) -> str:
    """Return the five characters by which PostgreSQL classes the error; empty if it gave none."""
    return str(getattr(error, "sqlstate", None) or "")
