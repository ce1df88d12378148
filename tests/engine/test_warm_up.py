"""What is compiled, and when: before an engine joins its group, and never in between."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
from numba.core.dispatcher import Dispatcher

from stream import follow
from stream.compiling import compiled
from stream.engine import kernel
from stream.engine.flush import Flush, Indicators
from stream.engine.params import ParamsStore
from stream.engine.rows import StateLoader
from stream.engine.state import PartitionState
from stream.engine.warm_up import warm_up
from tests.engine.events import event, new_state, packed_rows, records, unpacked


def signatures() -> dict[str, int]:
    """Return for how many types of arguments each compiled function is compiled."""
    modules = [
        importlib.import_module(f"{kernel.__name__}.{module.name}")
        for module in pkgutil.iter_modules(kernel.__path__)
    ]
    modules.append(follow)
    return {
        f"{module.__name__}.{name}": len(one.signatures)
        for module in modules
        for name, one in vars(module).items()
        if isinstance(one, Dispatcher)
    }


def test_nothing_is_left_to_compile_after_the_warm_up() -> None:
    warm_up()
    before = signatures()
    state = new_state()
    events = [
        event(f"a{n}", f"u{n % 700}", item_id=f"i{n % 90}", topic_id=f"t{n % 80}", day=n // 700)
        for n in range(4000)
    ]
    events += [event("v", "u1", item_id="i1", op="void", supersedes="a1", day=4)]
    state.fold(records(events))
    state.store.grow_heap()
    state.store.compact_heap()
    loader = StateLoader(PartitionState(0, 7, ParamsStore()))
    for week in (0, 20_000, 20_300):
        flush = Flush(state, Indicators(), week, 0, published_watermark=0)
        for _ in flush.build():
            pass
        rows = [m for m in unpacked(flush.messages) if m.topic == "engine-state"]
        loader.add(packed_rows((m.key or b"", m.value) for m in rows))
    loader.finish()
    assert state.learner("u3") is not None
    assert signatures() == before


def test_compiled_code_does_not_count_references_to_arrays() -> None:
    @compiled
    def handed_on(values: np.ndarray) -> float:
        return values[0]

    @compiled
    def hands_on(values: np.ndarray) -> float:
        total = 0.0
        for _ in range(values.shape[0]):
            total += handed_on(values)
        return total

    assert hands_on(np.ones(3)) == 3.0  # type: ignore[arg-type]
    (llvm,) = hands_on.inspect_llvm().values()  # type: ignore[attr-defined]
    assert "NRT_incref" not in llvm
