"""Compiles the inner loops of engine and calibrator: ``python -m stream.engine.warm_up``.

The first time on a machine (or after a change of the code) this takes about a minute; the result is
kept beside the source, or where NUMBA_CACHE_DIR says, and every later process loads it in a second.
"""

from __future__ import annotations

import time

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from schemas.attempt import AttemptEvent
from schemas.calibration import BatchAbility
from schemas.codec import encode
from stream import follow
from stream.engine.flush import Flush, Indicators
from stream.engine.params import ParamsStore
from stream.engine.state import PartitionState
from stream.kafka.packed_reading import unpack_batch
from stream.kafka.packed_records import PackedRecord

__all__ = ["warm_up"]


def warm_up() -> None:
    """Read, fold, correct, rebase, flush, move and read one learner, so that all is compiled."""
    state = PartitionState(0, 7, ParamsStore())
    day_ms = 86_400_000
    attempts = [
        AttemptEvent("a", "u", "i", correct=True, completed_at=day_ms, topic_id="t"),
        AttemptEvent("b", "u", "i", correct=False, completed_at=2 * day_ms),
        AttemptEvent("c", "u", "i", True, 2 * day_ms, "t", op="void", supersedes="a"),
    ]
    written = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    for offset, event in enumerate(attempts):
        written.append(offset, 3 * day_ms, b"u", encode(event), [])
    state.fold(unpack_batch(bytes(written.build())))
    ability = encode(BatchAbility("u", 0.0, 1.0, "r", "v", 3 * day_ms))
    state.fold_abilities([PackedRecord(0, 0, b"u", ability)])
    for week in (0, 70):
        flush = Flush(state, Indicators(), week, 0, published_watermark=0)
        for _ in flush.build():
            pass
    state.store.compact_heap()
    state.store.read("u")
    follow.warm_up()


if __name__ == "__main__":
    started = time.monotonic()
    warm_up()
    print(f"the inner loops are compiled ({time.monotonic() - started:.0f} s)")
