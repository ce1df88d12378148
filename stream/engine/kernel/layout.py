"""Where everything of a learner lies, and the arrays of a partition.

A learner is three blocks of 8-byte words in the partition's heap. The same memory is seen as
int64 (``i8``), float64 (``f8``), int32 (``i4``) and float32 (``f4``): word ``w`` is ``i8[w]`` and
holds the 32-bit halves ``i4[2 w]`` and ``i4[2 w + 1]``.

=======  ==========================================================================
block    holds
=======  ==========================================================================
head     fixed fields, then topics, then days (ascending), then the days' snapshots
         of topics: see ``kernel/days.py``
rows     hashes of the attempt ids (one word each, day by day), then their rows: see
         ``kernel/rows.py``
memory   remembered items, the longest ago first, without the latest answers: see
         ``kernel/memory.py``
=======  ==========================================================================
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Arrays"]

I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]
F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]
U1 = npt.NDArray[np.uint8]

DAY_MS = 86_400_000

# -- head: words ------------------------------------------------------------------------------
LATEST_MS, PUBLISHED_MS, G, VG, SHIFT, FORM = range(6)
ROWS_AT, MEMORY_AT = 11, 12
HEAD_WORDS = 15
# -- head: 32-bit halves ----------------------------------------------------------------------
FIRST_DAY, ATTEMPTS, CORRECT_N, FOLDED, N_TOPICS, N_DAYS = range(12, 18)
N_SNAPSHOTS, N_ROWS, N_MEMORY, HEAD_CAPACITY = range(18, 22)
ROWS_CAPACITY, MEMORY_CAPACITY, SETTLED, ROW_HALVES = 26, 27, 28, 29

# -- topic: words d0, s, r, latest_ms; halves -------------------------------------------------
TOPIC_WORDS = 6
T_TOPIC, T_FOLDED, T_ATTEMPTS, T_CORRECT = range(8, 12)

# -- remembered item: halves item hash, number | last << 31, time, right | wrong << 8 ---------
MEMORY_WORDS = 2

# -- control words ----------------------------------------------------------------------------
HEAP_END, N_CHANGED, STREAM_WEEK, LATENESS_MS, RETAINED_DAYS, STORAGE_DAYS, WEIGHTED = range(7)
N_USERS, NAMES_END, FREE_WORDS, CHANGING = 7, 8, 9, 10
CONTROL_WORDS = 11

# -- who is being changed, in the lower half of CHANGING; the upper half counts changes ---------
NOBODY, EVERYBODY = 0xFFFF_FFFF, 0xFFFF_FFFE


class Arrays(NamedTuple):
    """The arrays of one partition, as compiled code takes them.

    Attributes
    ----------
    i8, f8, i4, f4
        The heap (words,), four views of the same memory; ``i4`` and ``f4`` have two entries a word.
    free
        Size class -> first free block of it, -1 for none.
    control
        Single numbers, see the constants.
    at
        Learner -> word of its head block, -1 before its first attempt.
    changed
        Learner -> 1 when it changed since the last flush.
    queue
        The changed learners, in order of their first change.
    names
        UTF-8 of all ids, end to end; ``user_at``, ``user_len`` and the like point into it.
    user_slots, topic_slots, item_slots
        Hash tables from ids to numbers, see ``names``.
    item_hash
        Item -> its 32 bits in the rows.
    item_params
        Item -> a, b, c, variance of b, recall (items, 5).
    item_counts, item_sums
        Item -> attempts, correct (items, 2); expected, variance (items, 2).
    topic_counts
        Topic -> attempts, correct, learners (topics, 3).
    item_changed, topic_changed
        1 when the totals changed since the last flush.
    weights
        Of practice, memory and form, in the order of ``practice.Weights``.
    filter
        prior_mean, prior_var, topic_var, drift, drift_n0, topic_drift, topic_drift_n0.
    """

    i8: I8
    f8: F8
    i4: I4
    f4: F4
    free: I8
    control: I8
    at: I8
    changed: U1
    queue: I4
    names: U1
    user_at: I8
    user_len: I4
    user_slots: I4
    topic_at: I8
    topic_len: I4
    topic_slots: I4
    item_at: I8
    item_len: I4
    item_slots: I4
    item_hash: I4
    item_params: F8
    item_counts: I8
    item_sums: F8
    item_changed: U1
    topic_counts: I8
    topic_changed: U1
    weights: F8
    filter: F8
