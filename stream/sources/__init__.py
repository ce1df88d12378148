"""Where attempts come from: one file a format, each the same small reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stream.errors import SourceError
from stream.sources import jsonl, tidy_csv

__all__ = ["FORMATS", "Reader", "reader_for"]

Reader = Callable[[Path], Iterator[dict[str, Any]]]
"""Attempt events of a file, in arrival order; raises SourceError with the line number."""

FORMATS: dict[str, Reader] = {
    "csv": tidy_csv.read_attempts,
    "jsonl": jsonl.read_attempts,
}
"""Readers by the name that ``--format`` takes. A new format is a file and a line here."""

_BY_SUFFIX = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def reader_for(path: Path, format: str | None = None) -> Reader:  # noqa: A002 (named as the option is)
    """Choose the reader of a file.

    Parameters
    ----------
    path
        The file; ``.gz`` at the end of its name does not matter.
    format
        A key of :data:`FORMATS`, or None to go by the name's suffix.

    Returns
    -------
    Reader
        To be called with the same path.

    Raises
    ------
    SourceError
        There is no such format, or the suffix says nothing.
    """
    if format is None:
        suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        format = _BY_SUFFIX.get(suffix)  # noqa: A001
        if format is None:
            raise SourceError(
                f"cannot tell the format of {path} by its name; give one of {', '.join(FORMATS)}"
            )
    try:
        return FORMATS[format]
    except KeyError:
        raise SourceError(f"no format {format!r}; there are {', '.join(FORMATS)}") from None
