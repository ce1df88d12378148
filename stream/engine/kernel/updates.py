"""What the records of a learner have in common, and its abilities, as JSON.

The records are those of :mod:`schemas.outputs`.
"""

from __future__ import annotations

from math import sqrt

from stream.compiling import compiled
from stream.engine.kernel.layout import (
    ATTEMPTS,
    CORRECT_N,
    HEAD_WORDS,
    I8,
    LATEST_MS,
    N_TOPICS,
    T_ATTEMPTS,
    T_TOPIC,
    TOPIC_WORDS,
    U1,
    VG,
    Arrays,
    G,
)
from stream.engine.kernel.writing import (
    put_bytes,
    put_float,
    put_int,
    put_json_text,
    put_text,
    text,
)

__all__ = [
    "CLOSE",
    "END_ROWS",
    "INCLUDE_THETA",
    "ROWS",
    "TOPIC",
    "USE_THETA",
    "WEEK",
    "open_update",
    "put_source",
    "put_user",
    "put_version",
    "write_theta",
]

# Columns of the context.
PARTITION, OFFSET, COMPUTED_AT, WEEK, USE_THETA, INCLUDE_THETA = range(6)

_USER = text('{"user_id":')
_THETA = text(',"theta":')
_SE = text(',"se":')
_N = text(',"n":')
_CORRECT = text(',"correct":')
_LAST = text(',"last_attempt_at":')
_VERSION = text(',"params_version":')
_TOPICS = text(',"topics":[')
TOPIC = text('{"topic_id":')
END_ROWS = text("]")
ROWS = text(',"rows":[')
_SOURCE = text(',"source_partition":')
_OFFSET = text(',"source_offset":')
_COMPUTED = text(',"computed_at":')
CLOSE = text("}")


@compiled
def put_user(s: Arrays, learner: int, out: U1, at: int) -> int:
    """Write a learner's id as it stands in keys."""
    return put_bytes(out, at, s.names, s.user_at[learner], s.user_len[learner])


@compiled
def open_update(s: Arrays, learner: int, out: U1, at: int) -> int:
    """Begin a record about a learner."""
    at = put_text(out, at, _USER)
    return put_json_text(out, at, s.names, s.user_at[learner], s.user_len[learner])


@compiled
def put_source(context: I8, out: U1, at: int) -> int:
    """Write what it was computed from and when, and end the record."""
    at = put_text(out, at, _SOURCE)
    at = put_int(out, at, context[PARTITION])
    at = put_text(out, at, _OFFSET)
    at = put_int(out, at, context[OFFSET])
    at = put_text(out, at, _COMPUTED)
    at = put_int(out, at, context[COMPUTED_AT])
    return put_text(out, at, CLOSE)


@compiled
def put_version(version: U1, out: U1, at: int) -> int:
    """Write the name of the parameters in force."""
    at = put_text(out, at, _VERSION)
    return put_json_text(out, at, version, 0, version.shape[0])


@compiled
def write_theta(s: Arrays, learner: int, context: I8, version: U1, out: U1, at: int) -> int:
    """Write a ThetaUpdate."""
    i8, f8, i4 = s.i8, s.f8, s.i4
    base = s.at[learner]
    half = 2 * base
    at = open_update(s, learner, out, at)
    at = put_text(out, at, _THETA)
    at = put_float(out, at, f8[base + G])
    at = put_text(out, at, _SE)
    at = put_float(out, at, sqrt(f8[base + VG]))
    at = put_text(out, at, _N)
    at = put_int(out, at, i4[half + ATTEMPTS])
    at = put_text(out, at, _CORRECT)
    at = put_int(out, at, i4[half + CORRECT_N])
    at = put_text(out, at, _LAST)
    at = put_int(out, at, i8[base + LATEST_MS])
    at = put_version(version, out, at)
    at = put_text(out, at, _TOPICS)
    for k in range(i4[half + N_TOPICS]):
        word = base + HEAD_WORDS + TOPIC_WORDS * k
        topic = i4[2 * word + T_TOPIC]
        load = 1.0 + f8[word + 1]
        if k:
            out[at] = 44
            at += 1
        at = put_text(out, at, TOPIC)
        at = put_json_text(out, at, s.names, s.topic_at[topic], s.topic_len[topic])
        at = put_text(out, at, _THETA)
        at = put_float(out, at, f8[word] + load * f8[base + G])
        at = put_text(out, at, _SE)
        at = put_float(out, at, sqrt(load * load * f8[base + VG] + f8[word + 2]))
        at = put_text(out, at, _N)
        at = put_int(out, at, i4[2 * word + T_ATTEMPTS])
        at = put_text(out, at, _LAST)
        at = put_int(out, at, i8[word + 3])
        at = put_text(out, at, CLOSE)
    at = put_text(out, at, END_ROWS)
    return put_source(context, out, at)
