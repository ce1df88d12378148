"""Absolute rows into tables: what a table takes, a batch of rows, and the statement for it.

The rule of a write, in one place: **an older row never overwrites a newer one.** A row says how
far the attempts log was folded for it (``source_partition``, ``source_offset``) and when it was
computed. It is written if the stored row

- has no ``source_offset`` (it is not ours, or there is none), or
- has a smaller one, or the same and was not computed later (a recalibration moves an ability
  without a new attempt), or
- comes from another partition and was not computed later.

So a sink that slept and wakes with old rows changes nothing, and neither does a repeated batch.
Offsets are those of one attempts topic: where a rebuild reads the log from a new topic, whose
offsets begin anew, fill a fresh schema (THETASTREAM_DB_SCHEMA), or first set ``source_offset`` to
null in the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from stream.database import quoted
from stream.errors import DatabaseSchemaError

__all__ = ["Batch", "Column", "Row", "Table", "merge"]

Kind = Literal["text", "int", "real", "json", "day", "ms"]

_PARAMETER: dict[Kind, tuple[str, str]] = {
    "text": ("text[]", "x.{0}"),
    "int": ("bigint[]", "x.{0}"),
    "real": ("double precision[]", "x.{0}"),
    "json": ("text[]", "x.{0}::jsonb"),
    "day": ("bigint[]", "(date '1970-01-01' + x.{0}::int)"),
    "ms": ("bigint[]", "to_timestamp(x.{0}::double precision / 1000)"),
}
"""How a value of each kind is sent, and what SQL makes of it. Numbers rather than dates and times:
quicker to send, and a date out of range is PostgreSQL's to refuse, as one row."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that we write.

    Attributes
    ----------
    name
        As in the table.
    kind
        What our value is: ``day`` counts days since 1970-01-01, ``ms`` milliseconds; ``json`` is
        an object. PostgreSQL casts it to the column's actual type.
    stored
        What becomes of a stored value when a newer row comes: ``replaced``; ``kept`` if it is not
        null; or, of a JSON object, ``merged`` (ours wins, keys we do not know stay) or ``joined``
        (the stored one wins, only keys that were missing come in).
    under
        Of a merged column: another column of the table, an object whose keys win over ours.
    """

    name: str
    kind: Kind
    stored: Literal["replaced", "kept", "merged", "joined"] = "replaced"
    under: str | None = None


@dataclass(frozen=True)
class Table:
    """A table as the sink writes it.

    Parameters
    ----------
    name
        Without the schema.
    key
        Columns of its unique key; they lead the row.
    columns
        The others. With ``source_offset`` (and ``source_partition``) among them, older rows are
        held off; without, every row is written.
    computed
        The column that tells which of two rows with one ``source_offset`` is newer.
    speaks_of
        A column with the event time that a row speaks of: one of an earlier time never overwrites.
    """

    name: str
    key: tuple[Column, ...]
    columns: tuple[Column, ...]
    computed: str | None = None
    speaks_of: str | None = None
    all_columns: tuple[Column, ...] = field(init=False)
    _order: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_columns", self.key + self.columns)
        names = [column.name for column in self.all_columns]
        order_by = (self.speaks_of, "source_offset", self.computed)
        order = [names.index(name) for name in order_by if name in names]
        object.__setattr__(self, "_order", tuple(order))

    def key_of(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the key of a row."""
        return values[: len(self.key)]

    def order_of(self, values: tuple[Any, ...]) -> tuple[int, ...]:
        """Return what tells an older row of a key from a newer one."""
        return tuple(-1 if values[i] is None else values[i] for i in self._order)

    def newer(self, stored: tuple[Any, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what is left of two rows of a key, as the database would have it."""
        if self.order_of(values) < self.order_of(stored):
            return stored
        merged = list(values)
        for i, column in enumerate(self.all_columns):
            if column.stored == "kept" and stored[i] is not None:
                merged[i] = stored[i]
            elif column.stored == "merged":
                merged[i] = merge(stored[i], values[i])
            elif column.stored == "joined":
                merged[i] = merge(values[i], stored[i])
        return tuple(merged)

    def statement(self, schema: str, types: Mapping[str, str]) -> str:
        """Return the upsert of a batch: one array parameter a column.

        Parameters
        ----------
        schema
            Where the table is.
        types
            Column -> its actual type in SQL; of the users' own tables it may be another than ours.

        Raises
        ------
        DatabaseSchemaError
            The table lacks a column.
        """
        needed = [c.name for c in self.all_columns] + [c.under for c in self.columns if c.under]
        missing = [name for name in needed if name not in types]
        if missing:
            raise DatabaseSchemaError(
                f"Table {schema}.{self.name} has no column {', '.join(missing)}: "
                "run `thetastream migrate`."
            )
        arrays = ", ".join(
            f"${i}::{_PARAMETER[column.kind][0]}" for i, column in enumerate(self.all_columns, 1)
        )
        names = ", ".join(quoted(column.name) for column in self.all_columns)
        values = ", ".join(
            f"{_PARAMETER[c.kind][1].format(quoted(c.name))}::{types[c.name]}"
            for c in self.all_columns
        )
        key = ", ".join(quoted(column.name) for column in self.key)
        changes = ", ".join(
            f"{quoted(column.name)} = {_stored(column, types[column.name])}"
            for column in self.columns
        )
        guard = self._guard()
        return (
            f"insert into {quoted(schema)}.{quoted(self.name)} as t ({names}) "  # noqa: S608 - quoted
            f"select {values} from unnest({arrays}) as x ({names}) "
            f"on conflict ({key}) do update set {changes}" + (f" where {guard}" if guard else "")
        )

    def parameters(self, rows: Sequence[Row]) -> list[list[Any]]:
        """Return the arrays that the statement takes."""
        arrays: list[list[Any]] = [
            list(values) for values in zip(*(r.values for r in rows), strict=True)
        ]
        for i, column in enumerate(self.all_columns):
            if column.kind == "json":
                arrays[i] = [None if v is None else _json(v) for v in arrays[i]]
        return arrays

    def _guard(self) -> str:
        names = {column.name for column in self.columns}
        if "source_offset" not in names:
            return ""
        # Without a time of computation a row at the same offset is the same row.
        as_new = "true"
        if self.computed is not None:
            when = quoted(self.computed)
            as_new = f"(t.{when} is null or excluded.{when} >= t.{when})"
        newer = (
            "excluded.source_offset > t.source_offset "
            f"or excluded.source_offset = t.source_offset and {as_new}"
        )
        if "source_partition" in names:
            newer = (
                f"t.source_partition is distinct from excluded.source_partition and {as_new} "
                f"or t.source_partition = excluded.source_partition and ({newer})"
            )
        guard = f"t.source_offset is null or {newer}"
        if self.speaks_of is not None:
            time = quoted(self.speaks_of)
            guard = f"(t.{time} is null or excluded.{time} >= t.{time}) and ({guard})"
        return guard


class Row(NamedTuple):
    """One row: its values in the order of the table's columns, and the record it came in."""

    values: tuple[Any, ...]
    record: Any


class Batch:
    """Rows of one poll, the newest of each key, by table in the order the tables were met.

    Attributes
    ----------
    refused
        Records that could not be read, and why.
    """

    def __init__(self) -> None:
        self.refused: list[tuple[Any, str]] = []
        self._rows: dict[Table, dict[tuple[Any, ...], Row]] = {}

    def add(self, table: Table, values: tuple[Any, ...], record: Any) -> None:
        """Take one row."""
        rows = self._rows.setdefault(table, {})
        key = table.key_of(values)
        stored = rows.get(key)
        if stored is not None:
            newer = table.newer(stored.values, values)
            if newer is stored.values:
                return
            values = newer
        rows[key] = Row(values, record)

    def refuse(self, record: Any, why: str) -> None:
        """Set a record aside that cannot be read."""
        self.refused.append((record, why))

    def tables(self) -> list[tuple[Table, list[Row]]]:
        """Return the rows by table, sorted by key: two writers then lock rows in one order."""
        return [(table, [rows[k] for k in sorted(rows)]) for table, rows in self._rows.items()]


def merge(under: Any, over: Any) -> Any:
    """Merge two JSON objects as ``under || over`` does; a null counts as no keys."""
    return {**(under or {}), **(over or {})}


def _stored(column: Column, actual: str) -> str:
    name = quoted(column.name)
    if column.stored == "kept":
        return f"coalesce(t.{name}, excluded.{name})"
    if column.stored == "replaced":
        return f"excluded.{name}"
    # Through jsonb, since a column of the users' may be json, which cannot be merged.
    stored = f"coalesce(t.{name}::jsonb, '{{}}')"
    ours = f"coalesce(excluded.{name}::jsonb, '{{}}')"
    both = f"{stored} || {ours}" if column.stored == "merged" else f"{ours} || {stored}"
    if column.under is not None:
        both += f" || coalesce(t.{quoted(column.under)}::jsonb, '{{}}')"
    return f"({both})::{actual}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
