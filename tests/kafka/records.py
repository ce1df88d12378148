"""Records for publishers."""

from collections.abc import Sequence

import numpy as np

from stream.kafka.packed import PackedMessages


def packed(
    topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]
) -> PackedMessages:
    """Pack (key, value) pairs, as a flush does."""
    data = b""
    places = []
    for key, value in records:
        start, size = len(data), -1 if value is None else len(value)
        places.append((7, start, len(key), start + len(key), size))
        data += key + (value or b"")
    return PackedMessages({7: topic}, partition, data, np.array(places, np.int64).reshape(-1, 5))
