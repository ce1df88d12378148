"""Keys of a learner's rows on ``engine-state``."""

from __future__ import annotations

import struct

__all__ = ["day_key", "learner_key"]

_DAY = struct.Struct(">H")


def learner_key(user_id: str) -> bytes:
    """Return the key of a learner's head row."""
    return b"L" + user_id.encode("utf-8", "surrogatepass")


def day_key(user_id: str, day: int) -> bytes:
    """Return the key of a learner's day row."""
    return b"D" + _DAY.pack(day) + user_id.encode("utf-8", "surrogatepass")
