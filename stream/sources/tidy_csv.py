"""Attempts from a tidy CSV file: one record a line, a header, file order = arrival order."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stream.errors import SourceError
from stream.sources.text_file import open_text

__all__ = ["COLUMNS", "OPTIONAL_COLUMNS", "read_attempts"]

COLUMNS = (
    "attempt_id",
    "user_id",
    "item_id",
    "topic_id",
    "correct",
    "response_time_ms",
    "hint_used",
    "completed_at",
)
"""What a file must have, in any order. ``correct`` is 0 or 1, ``completed_at`` epoch ms (UTC)."""

_FLAGS = {"0": False, "1": True}


def _optional_text(field: str) -> str | None:
    return field or None


def _optional_int(field: str) -> int | None:
    return int(field) if field else None


def _flag(field: str) -> bool:
    return _FLAGS[field]


def _hint(field: str) -> bool:
    return _FLAGS[field] if field else False


def _op(field: str) -> str:
    return field or "attempt"


def _version(field: str) -> int:
    return int(field) if field else 1


_CONVERSIONS: dict[str, Callable[[str], Any]] = {
    "attempt_id": str,
    "user_id": str,
    "item_id": str,
    "topic_id": _optional_text,
    "correct": _flag,
    "response_time_ms": _optional_int,
    "hint_used": _hint,
    "completed_at": int,
    "op": _op,
    "supersedes": _optional_text,
    "session_id": _optional_text,
    "attempt_no": _optional_int,
    "started_at": _optional_int,
    "tenant_id": _optional_text,
    "schema_version": _version,
}

OPTIONAL_COLUMNS = tuple(name for name in _CONVERSIONS if name not in COLUMNS)
"""What a file may have; a blank is null (``op``: attempt, ``schema_version``: 1)."""


def read_attempts(path: Path) -> Iterator[dict[str, Any]]:
    """Read attempt events in the order of their arrival.

    Parameters
    ----------
    path
        ``.csv`` or ``.csv.gz`` with the columns :data:`COLUMNS` and any of
        :data:`OPTIONAL_COLUMNS`.

    Yields
    ------
    dict
        An attempt event with one key a column of the file; blanks are None, except that a
        blank ``hint_used`` is False. Times are epoch ms. Ranges are not checked here: that is
        the stream's work, which keeps what it refuses.

    Raises
    ------
    SourceError
        A column is missing or unknown, a line has too few or too many fields, or a field
        cannot be read; with the line number.
    """
    with open_text(path) as text:
        reader = csv.reader(text)
        names, conversions = _read_header(path, next(reader, []))
        try:
            for fields in reader:
                if not fields:
                    continue
                try:
                    yield {
                        name: convert(field)
                        for name, convert, field in zip(names, conversions, fields, strict=True)
                    }
                except (ValueError, KeyError):
                    fault = _fault(names, conversions, fields)
                    raise SourceError(f"{path}, line {reader.line_num}: {fault}") from None
        except csv.Error as error:
            raise SourceError(f"{path}, line {reader.line_num}: {error}") from error


def _read_header(
    path: Path, names: list[str]
) -> tuple[tuple[str, ...], tuple[Callable[[str], Any], ...]]:
    missing = [name for name in COLUMNS if name not in names]
    unknown = [name for name in names if name not in _CONVERSIONS]
    if missing or unknown or len(set(names)) < len(names):
        fault = (
            f"missing columns {', '.join(missing)}"
            if missing
            else f"unknown columns {', '.join(unknown)}"
            if unknown
            else "a column is named twice"
        )
        raise SourceError(
            f"{path}, line 1: {fault}; a tidy file has {', '.join(COLUMNS)}"
            f" and may have {', '.join(OPTIONAL_COLUMNS)}"
        )
    return tuple(names), tuple(_CONVERSIONS[name] for name in names)


def _fault(
    names: tuple[str, ...], conversions: tuple[Callable[[str], Any], ...], fields: list[str]
) -> str:
    if len(fields) != len(names):
        return f"{len(fields)} fields where the header has {len(names)}"
    for name, convert, field in zip(names, conversions, fields, strict=True):
        try:
            convert(field)
        except (ValueError, KeyError):
            wanted = "0 or 1" if convert in (_flag, _hint) else "an integer"
            return f"{name} is {field!r}, expected {wanted}"
    raise AssertionError("called for a line that can be read")
