"""Consumed records of one partition in one piece of memory, without a Python object for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from stream.records import KafkaRecord

__all__ = [
    "KEY",
    "KEY_SIZE",
    "N_COLUMNS",
    "OFFSET",
    "TIMESTAMP",
    "VALUE",
    "VALUE_SIZE",
    "PackedRecord",
    "PackedRecords",
    "Places",
]

Places: TypeAlias = npt.NDArray[np.int64]
"""A record each (n, 6): offset, timestamp (epoch ms), place and size of the key, place and size of
the value in the bytes; a size of -1 stands for none."""

N_COLUMNS = 6
OFFSET, TIMESTAMP, KEY, KEY_SIZE, VALUE, VALUE_SIZE = range(N_COLUMNS)


class PackedRecord(NamedTuple):
    """One of them, taken out."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class PackedRecords(Sequence[PackedRecord]):
    """Consecutive records in offset order; a slice of them shares their bytes.

    Attributes
    ----------
    data
        Holds keys and values, (bytes,) uint8.
    places
        Where each record lies in it, (n, 6).
    """

    __slots__ = ("data", "places")

    def __init__(self, data: bytes, places: Places) -> None:
        self.data: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        self.places = places

    @classmethod
    def of(cls, records: Sequence[KafkaRecord]) -> PackedRecords:
        """Pack records that are objects; those that are packed stay as they are."""
        if isinstance(records, PackedRecords):
            return records
        texts = list(chain.from_iterable((one.key, one.value) for one in records))
        sizes = np.array([-1 if text is None else len(text) for text in texts], np.int64)
        taken = np.maximum(sizes, 0)
        places = np.empty((len(records), N_COLUMNS), np.int64)
        places[:, OFFSET] = [one.offset for one in records]
        places[:, TIMESTAMP] = [one.timestamp for one in records]
        places[:, [KEY, VALUE]] = (np.cumsum(taken) - taken).reshape(-1, 2)
        places[:, [KEY_SIZE, VALUE_SIZE]] = sizes.reshape(-1, 2)
        return cls(b"".join(text or b"" for text in texts), places)

    @classmethod
    def joined(cls, parts: Sequence[PackedRecords]) -> PackedRecords:
        """Join consecutive parts, at least one, into one piece."""
        if len(parts) == 1:
            return parts[0]
        sizes = np.array([part.data.size for part in parts])
        places = np.concatenate([part.places for part in parts])
        shift = np.repeat(np.cumsum(sizes) - sizes, [len(part) for part in parts])
        places[:, [KEY, VALUE]] += shift[:, None]
        return cls(b"".join(part.data.data for part in parts), places)

    def after(self, offset: int) -> PackedRecords:
        """Return those behind an offset."""
        return self[int(np.searchsorted(self.places[:, OFFSET], offset, "right")) :]

    def clear(self) -> None:
        """Give the bytes up: nothing is in it any more."""
        self.data, self.places = self.data[:0].copy(), self.places[:0].copy()

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> PackedRecord: ...

    @overload
    def __getitem__(self, index: slice) -> PackedRecords: ...

    def __getitem__(self, index: int | slice) -> PackedRecord | PackedRecords:
        if isinstance(index, slice):
            part = object.__new__(PackedRecords)
            part.data, part.places = self.data, self.places[index]
            return part
        return self._record(self.places[index].tolist())

    def __iter__(self) -> Iterator[PackedRecord]:
        return map(self._record, self.places.tolist())

    def _record(self, place: list[int]) -> PackedRecord:
        offset, timestamp, key, key_size, value, value_size = place
        return PackedRecord(
            offset, timestamp, self._text(key, key_size), self._text(value, value_size)
        )

    def _text(self, start: int, size: int) -> bytes | None:
        return None if size < 0 else self.data[start : start + size].tobytes()
