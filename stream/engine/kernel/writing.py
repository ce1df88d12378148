"""Writing little-endian numbers and JSON into a byte buffer.

Each function writes at a place and returns the place behind what it wrote.
"""

from __future__ import annotations

import numpy as np

from stream.engine.kernel.compiling import compiled
from stream.engine.kernel.layout import U1

__all__ = [
    "put_bytes",
    "put_float",
    "put_int",
    "put_json_text",
    "put_little",
    "put_text",
    "read_little",
    "text",
]


def text(value: str) -> U1:
    """Return a fixed text as compiled code takes it."""
    return np.frombuffer(value.encode(), np.uint8)


_NULL = text("null")
_HEX = text("0123456789abcdef")
_ESCAPE = text("\\u00")


@compiled
def put_little(out: U1, at: int, value: int, size: int) -> int:
    """Write an integer, or the bits of a double, in ``size`` bytes."""
    for k in range(size):
        out[at + k] = (value >> (8 * k)) & 0xFF
    return at + size


@compiled
def read_little(data: U1, at: int, size: int) -> int:
    """Read an unsigned integer of ``size`` bytes; eight bytes come back as their signed bits."""
    value = 0
    for k in range(size):
        value |= int(np.int64(data[at + k])) << (8 * k)
    return value


@compiled
def put_bytes(out: U1, at: int, source: U1, start: int, size: int) -> int:
    """Copy bytes."""
    for k in range(size):
        out[at + k] = source[start + k]
    return at + size


@compiled
def put_text(out: U1, at: int, value: U1) -> int:
    """Write a fixed text."""
    for k in range(value.shape[0]):
        out[at + k] = value[k]
    return at + value.shape[0]


@compiled
def put_json_text(out: U1, at: int, source: U1, start: int, size: int) -> int:
    """Write UTF-8 as a JSON string, at most 6 ``size`` + 2 bytes."""
    out[at] = 34
    at += 1
    for k in range(start, start + size):
        one = source[k]
        if one == 34 or one == 92:
            out[at] = 92
            out[at + 1] = one
            at += 2
        elif one < 32:
            at = put_text(out, at, _ESCAPE)
            out[at] = _HEX[one >> 4]
            out[at + 1] = _HEX[one & 15]
            at += 2
        else:
            out[at] = one
            at += 1
    out[at] = 34
    return at + 1


@compiled
def put_int(out: U1, at: int, value: int) -> int:
    """Write an integer in decimal, at most 20 bytes."""
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    digits = 1
    rest = value // 10
    while rest:
        digits += 1
        rest //= 10
    for k in range(digits - 1, -1, -1):
        out[at + k] = 48 + value % 10
        value //= 10
    return at + digits


@compiled
def put_float(out: U1, at: int, value: float) -> int:
    """Write a number with up to twelve decimals, at most 32 bytes; null for one not finite.

    Everything written lies far below 1e15 (abilities, shares, milliseconds of a day), where an
    integer holds the whole part.
    """
    if not -1e15 < value < 1e15:
        return put_text(out, at, _NULL)
    if value < 0.0:
        out[at] = 45
        at += 1
        value = -value
    whole = int(value)
    decimals = int((value - whole) * 1e12 + 0.5)
    if decimals >= 1_000_000_000_000:
        whole += 1
        decimals = 0
    at = put_int(out, at, whole)
    out[at] = 46
    at += 1
    width = 12
    while width > 1 and decimals % 10 == 0:
        decimals //= 10
        width -= 1
    for k in range(width - 1, -1, -1):
        out[at + k] = 48 + decimals % 10
        decimals //= 10
    return at + width
