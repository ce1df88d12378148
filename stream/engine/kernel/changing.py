"""Saying which learner is being changed, to whoever reads the same memory meanwhile.

One word of ``control`` holds a counter of changes (upper half) and the learner whose change is
under way (lower half; NOBODY between two changes, EVERYBODY while arrays are replaced). A reader
looks at it, copies a learner, and looks again: what it copied is whole if another learner (or
nobody) was being changed and the counter stands where it stood. So nobody waits for anybody, and
a writer that is not given a processor in the middle of a change keeps readers from one learner
only. The writer is one at a time: whoever folds, flushes or makes room holds the partition's lock.

Reference: the seqlock, as in Boehm (2012), "Can seqlocks get along with programming language
memory models?", MSPC 12; the learner's number beside the counter is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from numba.core import types
from numba.extending import intrinsic

from stream.compiling import compiled
from stream.engine.kernel.layout import CHANGING, I8, NOBODY

__all__ = ["begin_change", "end_change"]


def _fencing(_typing_context: Any) -> Any:
    """Generate what keeps compiler and processor from moving writes across its place."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("release")
        return context.get_dummy_value()

    return types.void(), generate


_fence = cast("Callable[[], None]", intrinsic(_fencing))


@compiled
def begin_change(control: I8, learner: int) -> None:
    """Say that a learner is being changed from now on, and nobody else any more."""
    _fence()
    control[CHANGING] = (((control[CHANGING] >> 32) + 1) << 32) | learner
    _fence()


@compiled
def end_change(control: I8) -> None:
    """Say that the change is complete."""
    _fence()
    control[CHANGING] |= NOBODY
