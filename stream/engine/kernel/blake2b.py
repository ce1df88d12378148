"""BLAKE2b with a digest of 64 bits, of at most 128 bytes: the hash of attempt ids.

The same bits as ``hashlib.blake2b(data, digest_size=8)``; see RFC 7693.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.compiling import compiled
from stream.engine.kernel.layout import U1

__all__ = ["BLOCK_WORDS", "MOST_BYTES", "blake2b_64"]

BLOCK_WORDS = 16
MOST_BYTES = 8 * BLOCK_WORDS
"""One block."""

U8 = npt.NDArray[np.uint64]

_IV = tuple(
    np.uint64(word)
    for word in (
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    )
)  # fmt: skip
_SIGMA = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    ],
    np.uint8,
)
_PARAMETERS = np.uint64(0x01010008)  # one lane, depth one, no key, eight bytes of digest
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_R32, _R24, _R16, _R63 = np.uint64(32), np.uint64(24), np.uint64(16), np.uint64(63)
_L40, _L48, _L1 = np.uint64(40), np.uint64(48), np.uint64(1)
_THREE, _SEVEN, _EIGHT = np.uint64(3), np.uint64(7), np.uint64(8)


@compiled
def mix(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, x: np.uint64, y: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Mix two words of the message into four of the state: the standard's G."""
    a = a + b + x
    d = d ^ a
    d = (d >> _R32) | (d << _R32)
    c = c + d
    b = b ^ c
    b = (b >> _R24) | (b << _L40)
    a = a + b + y
    d = d ^ a
    d = (d >> _R16) | (d << _L48)
    c = c + d
    b = b ^ c
    b = (b >> _R63) | (b << _L1)
    return a, b, c, d


@compiled
def blake2b_64(data: U1, start: int, size: int, m: U8) -> int:
    """Return the digest of ``size`` (at most 128) bytes as a little-endian signed integer.

    ``m`` is working space (BLOCK_WORDS,).
    """
    for k in range(BLOCK_WORDS):
        m[k] = 0
    origin = np.uint64(start)
    for k in range(np.uint64(size)):
        m[k >> _THREE] |= np.uint64(data[origin + k]) << (_EIGHT * (k & _SEVEN))
    # In sixteen variables rather than an array, which keeps them in registers.
    v0, v1, v2, v3, v4, v5, v6, v7 = _IV
    v8, v9, v10, v11, v12, v13, v14, v15 = _IV
    v0 = v0 ^ _PARAMETERS
    v12 = v12 ^ np.uint64(size)
    v14 = v14 ^ _ALL
    for turn in range(12):
        p = _SIGMA[turn % 10]
        v0, v4, v8, v12 = mix(v0, v4, v8, v12, m[p[0]], m[p[1]])
        v1, v5, v9, v13 = mix(v1, v5, v9, v13, m[p[2]], m[p[3]])
        v2, v6, v10, v14 = mix(v2, v6, v10, v14, m[p[4]], m[p[5]])
        v3, v7, v11, v15 = mix(v3, v7, v11, v15, m[p[6]], m[p[7]])
        v0, v5, v10, v15 = mix(v0, v5, v10, v15, m[p[8]], m[p[9]])
        v1, v6, v11, v12 = mix(v1, v6, v11, v12, m[p[10]], m[p[11]])
        v2, v7, v8, v13 = mix(v2, v7, v8, v13, m[p[12]], m[p[13]])
        v3, v4, v9, v14 = mix(v3, v4, v9, v14, m[p[14]], m[p[15]])
    return int(np.int64(_IV[0] ^ _PARAMETERS ^ v0 ^ v8))
