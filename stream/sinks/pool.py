"""PostgreSQL as the sinks use it: patient with the database, firm with a row it refuses."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import asyncpg
from asyncpg.exceptions import InterfaceError
from mode import Service

from stream.database import CONNECT_TIMEOUT_S, SESSION, convert_error, quoted, refuses_row, said
from stream.errors import DatabaseSchemaError
from stream.settings import Settings
from stream.sinks.metrics import (
    SINK_FAILURES,
    SINK_LAST_WRITE,
    SINK_REJECTS,
    SINK_ROWS,
    SINK_WAITED_SECONDS,
    SINK_WAITING,
)
from stream.sinks.upsert import Batch, Row, Table

__all__ = ["SinkDatabase"]

log = logging.getLogger(__name__)

T = TypeVar("T")

CHUNK_ROWS = 10_000
"""Rows of one statement: enough to make its overhead small, few enough to be done within about
a second."""

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
"""Pauses between tries while PostgreSQL is away: doubled from the first to the longest."""

COMMAND_TIMEOUT_S = 60.0
"""Seconds after which a statement counts as failed: a server that hangs looks like one away."""

CONNECTIONS = 4
"""A sink's agents write in turn rather than crowd the server."""

_COLUMNS = """
    select a.attname, format_type(a.atttypid, -1) as type,
        a.attnotnull and not a.atthasdef and a.attidentity = '' and a.attgenerated = '' as required
    from pg_attribute a
    where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
"""
# format_type with -1 names the type without its length. A cast to varchar(8) would cut a text off
# without a word; the assignment to the column, which follows the cast, refuses it.

_REJECT = """
    insert into {}.sink_rejects
        (kafka_topic, kafka_partition, kafka_offset, table_name, row_key, error, record)
    values ($1, $2, $3, $4, $5, $6, $7)
    on conflict do nothing
"""


class SinkDatabase(Service):
    """Writes batches; returns only when every row is committed or set aside.

    While PostgreSQL is away, or its tables are missing, a write waits and tries again for as long
    as it takes: the batch is not acknowledged in the meantime, so nothing is lost. A row that
    PostgreSQL refuses for what it holds is found by halving its batch, logged, counted, and put
    into ``sink_rejects`` with the record it came in.

    Parameters
    ----------
    settings
        Where the database is. It is reached when the service has started, or at the first write.
    tables
        What will be written to: looked at once at the start, so that what is wrong is said early.
    """

    def __init__(self, settings: Settings, tables: Iterable[Table] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._found = False
        self._failing: set[object] = set()
        self._url = settings.database_url
        self._schema = settings.db_schema
        self._tables = tuple(tables)
        self._statements: dict[Table, str] = {}
        self._pool: asyncpg.Pool | None = None
        self._pool_lock = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether the tables were found and nothing waits for PostgreSQL now."""
        return self._found and not self._failing

    async def on_start(self) -> None:
        """Look at the tables beside whatever else starts."""
        self.add_future(self._look())

    async def on_stop(self) -> None:
        """Close the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), CONNECT_TIMEOUT_S)
            except (TimeoutError, InterfaceError):
                pool.terminate()

    async def write(self, batch: Batch) -> None:
        """Write all rows of a batch and set aside what cannot be written."""
        for record, why in batch.refused:
            await self._set_aside("", "", record, why)
        for table, rows in batch.tables():
            for start in range(0, len(rows), CHUNK_ROWS):
                await self._write(table, rows[start : start + CHUNK_ROWS])

    async def _write(self, table: Table, rows: Sequence[Row]) -> None:
        async def upsert(connection: asyncpg.Connection) -> int:
            statement = await self._statement(connection, table)
            done = await connection.execute(statement, *table.parameters(rows))
            return int(done.rpartition(" ")[2])

        try:
            written = await self._patiently(f"Writing to {table.name}", upsert)
        except Exception as error:
            # Only a refusal of what a row holds gets out of _patiently.
            if len(rows) > 1:
                half = len(rows) // 2
                await self._write(table, rows[:half])
                await self._write(table, rows[half:])
                return
            key = json.dumps(table.key_of(rows[0].values))
            await self._set_aside(table.name, key, rows[0].record, said(error))
        else:
            SINK_ROWS.labels(table=table.name).inc(written)
            SINK_LAST_WRITE.labels(table=table.name).set(time.time())

    async def _set_aside(self, table: str, key: str, record: Any, why: str) -> None:
        log.error(
            "Refused and set aside in sink_rejects: %s %s of record %s/%d offset %d: %s",
            *(table or "the record", key, record.topic, record.partition, record.offset, why),
        )
        SINK_REJECTS.labels(table=table or "unreadable").inc()

        async def insert(connection: asyncpg.Connection) -> None:
            await connection.execute(
                _REJECT.format(quoted(self._schema)),
                *(record.topic, record.partition, record.offset),
                *(table, key, why, record.value),
            )

        try:
            await self._patiently("Writing to sink_rejects", insert)
        except Exception:
            log.exception("sink_rejects refused it too; the log above is all that is kept")

    async def _statement(self, connection: asyncpg.Connection, table: Table) -> str:
        """Return the upsert, fitted to the table's actual column types."""
        statement = self._statements.get(table)
        if statement is None:
            found = await connection.fetch(_COLUMNS, f"{quoted(self._schema)}.{quoted(table.name)}")
            if not found:
                raise DatabaseSchemaError(
                    f"Table {self._schema}.{table.name} is missing: run `thetastream migrate`."
                )
            ours = {column.name for column in table.all_columns}
            foreign = [c["attname"] for c in found if c["required"] and c["attname"] not in ours]
            if foreign:
                # Else every single row would be refused, one at a time.
                raise DatabaseSchemaError(
                    f"Table {self._schema}.{table.name} demands {', '.join(foreign)}, which "
                    "thetastream does not write: give it a default, or drop its `not null`."
                )
            statement = table.statement(self._schema, {c["attname"]: c["type"] for c in found})
            self._statements[table] = statement
        return statement

    async def _patiently(
        self, what: str, operation: Callable[[asyncpg.Connection], Awaitable[T]]
    ) -> T:
        """Do something on a connection, again and again until it works.

        Raises
        ------
        Exception
            PostgreSQL (or its client) refuses what a row holds.
        """
        wait_s = FIRST_WAIT_S
        try:
            while True:
                connected = False
                try:
                    pool = await self._connected()
                    async with pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
                        connected = True
                        return await operation(connection)
                except Exception as error:
                    # Before that it is never a row's fault, whatever the error looks like.
                    if connected and refuses_row(error):
                        raise
                    ours = convert_error(error, self._url)
                    SINK_FAILURES.labels(reason=type(ours).__name__).inc()
                    log.warning("%s waits %.0f s; nothing is lost. %s", what, wait_s, ours)
                    # Meanwhile a table may have been made or changed.
                    self._statements.clear()
                self._failing.add(operation)
                with SINK_WAITING.track_inprogress():
                    await asyncio.sleep(wait_s)
                SINK_WAITED_SECONDS.inc(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        finally:
            self._failing.discard(operation)

    async def _look(self) -> None:
        async def look(connection: asyncpg.Connection) -> None:
            for table in self._tables:
                await self._statement(connection, table)

        await self._patiently("The sink", look)
        self._found = True
        log.info("The tables in schema %s are ready", self._schema)

    async def _connected(self) -> asyncpg.Pool:
        async with self._pool_lock:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=CONNECTIONS,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=COMMAND_TIMEOUT_S,
                    server_settings=SESSION,
                )
            return self._pool
