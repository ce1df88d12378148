"""Encoding of our own records: JSON, UTF-8."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

__all__ = ["decode", "decode_any", "encode"]

T = TypeVar("T")

_encoder = msgspec.json.Encoder()

encode = _encoder.encode
"""Record -> bytes."""


def decode(data: bytes | str, record: type[T]) -> T:
    """Read one of our own records.

    Raises
    ------
    msgspec.DecodeError
        Not JSON, or not that record.
    """
    return msgspec.json.decode(data, type=record)


def decode_any(data: bytes | str) -> Any:
    """Read JSON without a schema."""
    return msgspec.json.decode(data)
