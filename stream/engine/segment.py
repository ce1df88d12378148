"""Memory of a partition that another process may read, and where in it the arrays lie.

A segment is a file in memory (``memfd``) with room for far more than is used: pages come into
being when they are written, so arrays grow where they are, without copying. It starts with a head:

=====================  ==============================================================
words                  hold
=====================  ==============================================================
0 to CONTROL_WORDS     the partition's ``control``, with the word CHANGING by which a
                       reader knows whether what it read is whole
GENERATION             counts the times the rest of the head was written
TABLE, two a name      place (bytes) and length (entries) of each array in SHARED
VERSION_SIZE           bytes of the version of item parameters in force
from VERSION_AT        the version, UTF-8
=====================  ==============================================================

and goes on with two extents for each array in SHARED: one in use, one for what takes its place.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.engine.kernel.layout import CONTROL_WORDS, I8
from stream.errors import StreamError

__all__ = [
    "GENERATION",
    "SHARED",
    "TABLE",
    "VERSION_AT",
    "VERSION_SIZE",
    "Segment",
]

SHARED: dict[str, npt.DTypeLike] = {
    "i8": np.int64,
    "at": np.int64,
    "names": np.uint8,
    "user_at": np.int64,
    "user_len": np.int32,
    "user_slots": np.int32,
    "topic_at": np.int64,
    "topic_len": np.int32,
}
"""Names (of ``layout.Arrays``) and types of what a lookup reads."""

GENERATION = CONTROL_WORDS
TABLE = GENERATION + 1
VERSION_SIZE = TABLE + 2 * len(SHARED)
VERSION_AT = 4096
"""Byte."""

_EXTENT_BYTES = 16 << 30
_PIECE_BYTES = 4 << 20
_SEGMENT_BYTES = (1 + 2 * len(SHARED)) * _EXTENT_BYTES


class Segment:
    """The writer's side: a partition's arrays in memory that others may read.

    Attributes
    ----------
    fd
        The file, for as long as this object lives; whoever is given it may read.
    control
        (CONTROL_WORDS,) int64.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("thetastream-partition")
        os.ftruncate(self.fd, _SEGMENT_BYTES)
        try:
            self._map = mmap.mmap(self.fd, _SEGMENT_BYTES)
        except OSError as error:
            raise StreamError(
                f"No room for another partition in this process's addresses ({error}); one engine "
                "holds some 450. Nothing is lost: start more engines, or raise `ulimit -v`."
            ) from error
        # Nearly all of it is nothing, which a core dump would write all the same.
        self._map.madvise(mmap.MADV_DONTDUMP)
        self._head = np.frombuffer(self._map, np.int64, VERSION_AT // 8)
        self.control: I8 = self._head[:CONTROL_WORDS]
        self._second = dict.fromkeys(SHARED, False)
        self._bytes = dict.fromkeys(SHARED, 0)
        self._left: list[tuple[int, int]] = []

    def __del__(self) -> None:
        # The mapping ends with the last array that lies in it.
        os.close(self.fd)

    def array(self, name: str, length: int, *, anew: bool = False) -> npt.NDArray[Any]:
        """Return an array: the one in place, longer, or one that is to take its place.

        Parameters
        ----------
        name
            Of SHARED.
        length
            Entries; those never written are 0.
        anew
            Leave the one in place as it is, for readers, until :meth:`give_back`.

        Raises
        ------
        StreamError
            It would not fit into its extent.
        """
        dtype = np.dtype(SHARED[name])
        if length * dtype.itemsize > _EXTENT_BYTES:
            raise StreamError(
                f"A partition's {name} would take more than {_EXTENT_BYTES >> 30} GiB of memory. "
                "Nothing is lost; the learners need more partitions than THETASTREAM_PARTITIONS."
            )
        if anew:
            self._left.append((self._place(name, self._second[name]), self._bytes[name]))
            self._second[name] = not self._second[name]
        self._bytes[name] = length * dtype.itemsize
        return np.frombuffer(self._map, dtype, length, self._place(name, self._second[name]))

    def tell(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Write into the head where the arrays lie, all of SHARED.

        Readers have to be kept away meanwhile, see :mod:`stream.engine.kernel.changing`.
        """
        for number, name in enumerate(SHARED):
            entry = TABLE + 2 * number
            self._head[entry] = self._place(name, self._second[name])
            self._head[entry + 1] = len(arrays[name])
        self._head[GENERATION] += 1

    def give_back(self) -> None:
        """Give the memory back of arrays that were told of no more.

        Who reads there at this moment finds nothing, and then that the head is another.
        """
        for place, size in self._left:
            # In pieces: each call keeps the interpreter from all other threads.
            for start in range(place, place + size, _PIECE_BYTES):
                self._map.madvise(mmap.MADV_REMOVE, start, _PIECE_BYTES)
        self._left.clear()

    def tell_version(self, version: str) -> None:
        """Write the version of the item parameters into the head; readers are kept away."""
        data = version.encode("utf-8", "surrogatepass")
        self._map[VERSION_AT : VERSION_AT + len(data)] = data
        self._head[VERSION_SIZE] = len(data)
        self._head[GENERATION] += 1

    @staticmethod
    def _place(name: str, second: bool) -> int:
        return (1 + 2 * list(SHARED).index(name) + second) * _EXTENT_BYTES
