"""Writing little-endian numbers and JSON into a byte buffer.

Each function writes at a place and returns the place behind what it wrote. Inside, places are
unsigned: of a signed one, compiled code asks at every byte whether it counts from the end.
"""

from __future__ import annotations

import numpy as np

from stream.compiling import compiled
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


_EIGHT, _BYTE = np.uint64(8), np.uint64(0xFF)
_TEN, _ZERO, _ONE = np.uint64(10), np.uint64(48), np.uint64(1)
_NULL = text("null")
_HEX = text("0123456789abcdef")
_ESCAPE = text("\\u00")


@compiled
def put_little(out: U1, at: int, value: int, size: int) -> int:
    """Write an integer, or the bits of a double, in ``size`` bytes."""
    place = np.uint64(at)
    rest = np.uint64(value)
    for k in range(np.uint64(size)):
        out[place + k] = (rest >> (_EIGHT * k)) & _BYTE
    return at + size


@compiled
def read_little(data: U1, at: int, size: int) -> int:
    """Read an unsigned integer of ``size`` bytes; eight bytes come back as their signed bits."""
    place = np.uint64(at)
    value = np.uint64(0)
    for k in range(np.uint64(size)):
        value |= np.uint64(data[place + k]) << (_EIGHT * k)
    return int(np.int64(value))


@compiled
def put_bytes(out: U1, at: int, source: U1, start: int, size: int) -> int:
    """Copy bytes."""
    target, origin = np.uint64(at), np.uint64(start)
    for k in range(np.uint64(size)):
        out[target + k] = source[origin + k]
    return at + size


@compiled
def put_text(out: U1, at: int, value: U1) -> int:
    """Write a fixed text."""
    place = np.uint64(at)
    for k in range(np.uint64(value.shape[0])):
        out[place + k] = value[k]
    return at + value.shape[0]


@compiled
def put_json_text(out: U1, at: int, source: U1, start: int, size: int) -> int:
    """Write UTF-8 as a JSON string, at most 6 ``size`` + 2 bytes."""
    place, origin = np.uint64(at), np.uint64(start)
    out[place] = 34
    place += _ONE
    for k in range(np.uint64(size)):
        one = source[origin + k]
        if one == 34 or one == 92:
            out[place] = 92
            out[place + _ONE] = one
            place += np.uint64(2)
        elif one < 32:
            place = np.uint64(put_text(out, int(np.int64(place)), _ESCAPE))
            out[place] = _HEX[one >> 4]
            out[place + _ONE] = _HEX[one & 15]
            place += np.uint64(2)
        else:
            out[place] = one
            place += _ONE
    out[place] = 34
    return int(np.int64(place + _ONE))


@compiled
def put_digits(out: U1, at: int, value: int, digits: int) -> int:
    """Write the last decimal digits of an integer that is not negative."""
    rest, place = np.uint64(value), np.uint64(at + digits)
    for _ in range(digits):
        place -= _ONE
        out[place] = _ZERO + rest % _TEN
        rest //= _TEN
    return at + digits


@compiled
def put_int(out: U1, at: int, value: int) -> int:
    """Write an integer in decimal, at most 20 bytes."""
    if value < 0:
        out[np.uint64(at)] = 45
        at += 1
        value = -value
    digits = 1
    rest = np.uint64(value) // _TEN
    while rest:
        digits += 1
        rest //= _TEN
    return put_digits(out, at, value, digits)


@compiled
def put_float(out: U1, at: int, value: float) -> int:
    """Write a number with up to twelve decimals, at most 32 bytes; null for one not finite.

    Everything written lies far below 1e15 (abilities, shares, milliseconds of a day), where an
    integer holds the whole part.
    """
    if not -1e15 < value < 1e15:
        return put_text(out, at, _NULL)
    if value < 0.0:
        out[np.uint64(at)] = 45
        at += 1
        value = -value
    whole = int(value)
    decimals = np.uint64((value - whole) * 1e12 + 0.5)
    if decimals >= np.uint64(1_000_000_000_000):
        whole += 1
        decimals = np.uint64(0)
    at = put_int(out, at, whole)
    out[np.uint64(at)] = 46
    width = 12
    while width > 1 and decimals % _TEN == 0:
        decimals //= _TEN
        width -= 1
    return put_digits(out, at + 1, int(np.int64(decimals)), width)
