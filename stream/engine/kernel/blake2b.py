"""BLAKE2b with a digest of 64 bits, of at most 128 bytes: the hash of attempt ids.

The same bits as ``hashlib.blake2b(data, digest_size=8)``; see RFC 7693.
"""

from __future__ import annotations

import numpy as np

from stream.engine.kernel.compiling import compiled
from stream.engine.kernel.layout import U1

__all__ = ["MOST_BYTES", "blake2b_64"]

MOST_BYTES = 128
"""One block."""

_IV = np.array(
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ],
    np.uint64,
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
    np.int64,
)
_COLUMNS = np.array(
    [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
     [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]],
    np.int64,
)  # fmt: skip
_PARAMETERS = np.uint64(0x01010008)  # one lane, depth one, no key, eight bytes of digest
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_R32, _R24, _R16, _R63 = np.uint64(32), np.uint64(24), np.uint64(16), np.uint64(63)
_L32, _L40, _L48, _L1 = np.uint64(32), np.uint64(40), np.uint64(48), np.uint64(1)
_EIGHT = np.uint64(8)


@compiled
def blake2b_64(data: U1, start: int, size: int) -> int:
    """Return the digest of ``size`` (at most 128) bytes as a little-endian signed integer."""
    m = np.zeros(16, np.uint64)
    for k in range(size):
        m[k >> 3] |= np.uint64(data[start + k]) << (_EIGHT * np.uint64(k & 7))
    v = np.empty(16, np.uint64)
    for k in range(8):
        v[k] = _IV[k]
        v[k + 8] = _IV[k]
    v[0] ^= _PARAMETERS
    v[12] ^= np.uint64(size)
    v[14] ^= _ALL
    for turn in range(12):
        order = _SIGMA[turn % 10]
        for g in range(8):
            a, b, c, d = _COLUMNS[g, 0], _COLUMNS[g, 1], _COLUMNS[g, 2], _COLUMNS[g, 3]
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = va + vb + m[order[2 * g]]
            vd = vd ^ va
            vd = (vd >> _R32) | (vd << _L32)
            vc = vc + vd
            vb = vb ^ vc
            vb = (vb >> _R24) | (vb << _L40)
            va = va + vb + m[order[2 * g + 1]]
            vd = vd ^ va
            vd = (vd >> _R16) | (vd << _L48)
            vc = vc + vd
            vb = vb ^ vc
            vb = (vb >> _R63) | (vb << _L1)
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
    return int(np.int64(_IV[0] ^ _PARAMETERS ^ v[0] ^ v[8]))
