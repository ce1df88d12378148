"""Many records handed to librdkafka in one call, without a Python object for each.

confluent-kafka takes a dict a record, which costs as much as folding the attempt behind it, and
keeps the interpreter meanwhile. librdkafka itself takes an array of places in memory
(``rd_kafka_produce_batch``). It is called in the very library, and for the very client, that
confluent-kafka uses; what that assumes is written at :func:`client_of` and tested.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer, cimpl

__all__ = ["PackedMessages", "pack", "produce_packed"]

_COPY = 0x2  # RD_KAFKA_MSG_F_COPY: the bytes are taken over before the call returns.

_MESSAGE = np.dtype(
    [
        ("error", np.int32),
        ("topic", np.uintp),
        ("partition", np.int32),
        ("value", np.uintp),
        ("value_size", np.uintp),
        ("key", np.uintp),
        ("key_size", np.uintp),
        ("offset", np.int64),
        ("private", np.uintp),
    ],
    align=True,
)
"""``rd_kafka_message_t`` of librdkafka's public rdkafka.h."""

# A library's symbols are also found by way of one that is linked to it. A CDLL gives the
# interpreter up during each call.
_library = ctypes.CDLL(cimpl.__file__)
_library.rd_kafka_topic_new.restype = ctypes.c_void_p
_library.rd_kafka_topic_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_library.rd_kafka_topic_destroy.restype = None
_library.rd_kafka_topic_destroy.argtypes = [ctypes.c_void_p]
_library.rd_kafka_produce_batch.argtypes = [
    *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_int),
    *(ctypes.c_void_p, ctypes.c_int),
]


class PackedMessages(NamedTuple):
    """Many records to publish, their bytes in one piece.

    Attributes
    ----------
    topics
        Kind -> catalogue name of its topic.
    partition
        Of all of them.
    data
        Keys and values.
    places
        A record each (n, 5): kind, place and size of the key, place and size of the value
        (size -1: a tombstone).
    """

    topics: Mapping[int, str]
    partition: int
    data: bytes
    places: npt.NDArray[np.int64]


def pack(
    topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]
) -> PackedMessages:
    """Pack keys and values of one topic.

    Parameters
    ----------
    topic
        Catalogue name.
    partition
        Of all records.
    records
        Pairs of key and value (None: a tombstone), in order.
    """
    n = len(records)
    key_size = np.fromiter((len(key) for key, _ in records), np.int64, n)
    value_size = np.fromiter((-1 if v is None else len(v) for _, v in records), np.int64, n)
    size = key_size + np.maximum(value_size, 0)
    key = np.cumsum(size) - size
    places = np.column_stack((np.zeros(n, np.int64), key, key_size, key + key_size, value_size))
    data = b"".join(chain.from_iterable((key, value or b"") for key, value in records))
    return PackedMessages({0: topic}, partition, data, places)


def client_of(producer: Producer) -> int:
    """Return the address of a producer's ``rd_kafka_t``.

    confluent-kafka keeps it as the first field of its object, behind what all Python objects
    begin with.
    """
    address = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__).value
    assert address is not None
    return address


def produce_packed(
    producer: Producer, topic: str, partition: int, data: bytes, places: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """Queue records for sending, in their order; returns at once.

    No delivery callback is called for them: for a producer with transactions, whose commit fails
    unless every record was delivered.

    Parameters
    ----------
    producer
        Not closed.
    topic
        Full name.
    partition
        Of all records.
    data
        Holds keys and values; copied.
    places
        A record each (n, 4): place and size of the key, place and size of the value (size -1: a
        tombstone).

    Returns
    -------
    ndarray
        A ``KafkaError`` code each (n,); 0: queued.
    """
    messages = np.zeros(len(places), _MESSAGE)
    start = np.frombuffer(data, np.uint8).ctypes.data
    key, key_size, value, value_size = places.T
    messages["key"] = start + key
    messages["key_size"] = key_size
    # A tombstone is a null pointer.
    messages["value"] = np.where(value_size < 0, 0, start + value)
    messages["value_size"] = np.maximum(value_size, 0)
    handle = _library.rd_kafka_topic_new(client_of(producer), topic.encode(), None)
    try:
        _library.rd_kafka_produce_batch(
            handle, partition, _COPY, messages.ctypes.data, len(messages)
        )
    finally:
        _library.rd_kafka_topic_destroy(handle)
    errors: npt.NDArray[np.int32] = messages["error"]
    return errors
