"""`thetastream migrate`: make and extend the tables."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from stream.database import shown
from stream.migrate import migrate as apply_migrations
from stream.settings import Settings

__all__ = ["migrate"]

Schema = Annotated[
    str | None,
    typer.Option(
        "--schema",
        help="Schema of the tables; default THETASTREAM_DB_SCHEMA, else public",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def migrate(schema: Schema = None, as_json: AsJson = False) -> None:
    """Make the tables in DATABASE_URL, or extend those that are there.

    Only what is missing is added: tables, nullable columns, indexes. Rows are left alone, and a
    second run changes nothing.
    """
    settings = Settings.from_env()
    schema = schema or settings.db_schema
    applied = asyncio.run(apply_migrations(settings.database_url, schema))
    if as_json:
        typer.echo(json.dumps({"schema": schema, "applied": applied}))
        return
    where = f"schema {schema} of {shown(settings.database_url)}"
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo(f"{where} is up to date" + ("" if applied else ": nothing to do"))
