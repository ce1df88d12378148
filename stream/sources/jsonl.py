"""Attempts from JSON lines: one attempt event a line, file order = arrival order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from stream.errors import SourceError
from stream.sources.text_file import open_text

__all__ = ["read_attempts"]


def read_attempts(path: Path) -> Iterator[dict[str, Any]]:
    """Read attempt events in the order of their arrival.

    Parameters
    ----------
    path
        ``.jsonl`` or ``.ndjson``, ``.gz`` or not. Empty lines are skipped.

    Yields
    ------
    dict
        The event as it stands in the file; its fields are checked by the stream, which keeps
        what it refuses.

    Raises
    ------
    SourceError
        A line is not a JSON object; with the line number.
    """
    with open_text(path) as text:
        for number, line in enumerate(text, start=1):
            if line.isspace():
                continue
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise SourceError(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(event, dict):
                raise SourceError(f"{path}, line {number}: not a JSON object")
            yield event
