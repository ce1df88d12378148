"""Open a text file, gzipped or not, so that every way it can fail is one error of ours."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from stream.errors import SourceError

__all__ = ["create_text", "open_text"]

COMPRESSION_LEVEL = 5
"""Of gzip, for files we write: within 5 % of level 9 in size at a third of the time."""


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 file for reading; a name that ends in ``.gz`` is unpacked on the way.

    Parameters
    ----------
    path
        The file. A byte order mark at its start is skipped.

    Yields
    ------
    TextIO
        Line endings as they are in the file, as :mod:`csv` wants them.

    Raises
    ------
    SourceError
        The file is missing, unreadable, not gzip or cut short, or not UTF-8; also when that
        shows only while it is read.
    """
    try:
        with _open_binary(path) as binary:
            yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text: {error}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path} is not a whole gzip file: {error}") from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def create_text(path: Path) -> Iterator[TextIO]:
    """Create a UTF-8 file; a name that ends in ``.gz`` is packed on the way.

    The bytes depend on what is written only: gzip's name and time fields stay empty.

    Parameters
    ----------
    path
        The file; an existing one is replaced.

    Yields
    ------
    TextIO
        Line endings are written as given.

    Raises
    ------
    SourceError
        The file cannot be written.
    """
    try:
        with path.open("wb") as binary:
            if path.suffix != ".gz":
                with io.TextIOWrapper(binary, encoding="utf-8", newline="") as text:
                    yield text
                return
            packed = gzip.GzipFile("", "wb", COMPRESSION_LEVEL, binary, mtime=0)
            with packed, io.TextIOWrapper(packed, encoding="utf-8", newline="") as text:
                yield text
    except OSError as error:
        raise SourceError(f"cannot write {path}: {error.strerror or error}") from error


def _open_binary(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
