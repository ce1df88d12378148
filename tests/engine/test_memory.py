"""What a learner remembers of items: a table, and beside it the latest answers' own rows.

Held against the table alone, :class:`stream.domain.memory.ItemMemory`, to which every answer is
added as it comes.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from stream.domain.memory import ItemMemory
from stream.domain.practice import NEVER_MET, NO_WEIGHTS, Weights
from stream.engine.day import item_hash
from stream.engine.kernel.layout import N_MEMORY
from stream.engine.kernel.memory import MOST_UNSETTLED, trace_of, unsettled
from stream.engine.learner import STATE_VERSION, Learner, head_key
from stream.engine.params import ParamsStore
from stream.engine.rows import POSITION_KEY
from stream.engine.state import PartitionState, Position
from tests.engine.events import event, flushed, loaded, new_state, records, unpacked


def practising(
    rng: random.Random, attempts: int, items: int, days_apart: float
) -> list[dict[str, Any]]:
    """A learner's attempts, one in fifty of them late."""
    day, events = 0.0, []
    for number in range(attempts):
        day += rng.expovariate(1) * days_apart
        late = rng.choice([1.0, 3.0]) if rng.random() < 0.02 else 0.0
        item = min(rng.randrange(items), rng.randrange(items))
        events.append(
            event(
                f"a{number}",
                day=max(day - late, 0.0),
                item_id=f"item-{item}",
                correct=rng.random() < 0.6,
            )
        )
    return events


def plain_memory(events: list[dict[str, Any]]) -> ItemMemory:
    memory = ItemMemory()
    for number, one in enumerate(events):
        memory.remember(
            item_hash(one["item_id"]), number, one["completed_at"] // 1000, one["correct"]
        )
    return memory


def reloaded(state: PartitionState, rows: dict[bytes, bytes | None]) -> PartitionState:
    for message in unpacked(flushed(state).messages):
        if message.topic == "engine-state":
            rows[message.key or b""] = message.value
    return loaded(list(rows.items()))


def recalled(state: PartitionState, item: str) -> tuple[int, int, int, int, bool]:
    arrays = state.store.arrays
    number = int(arrays.item_hash[state.store.item(item)])
    trace = trace_of(arrays, int(arrays.at[state.store.find_user("u1")]), number)
    return (*map(int, trace[:4]), bool(trace[4]))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("attempts", "items", "days_apart"),
    [
        pytest.param(1500, 60, 0.001, id="many answers on few items"),
        pytest.param(3500, 4000, 0.001, id="more items than are remembered"),
        pytest.param(900, 500, 0.3, id="days that expire"),
    ],
)
def test_it_is_that_of_the_table_alone(attempts: int, items: int, days_apart: float) -> None:
    rng = random.Random(attempts)
    events = practising(rng, attempts, items, days_apart)
    state, rows = new_state(), {}  # type: ignore[var-annotated]
    folded, at, most = records(events), 0, 0
    while at < attempts:
        size = rng.choice([1, 20, 150])
        state.fold(folded[at : at + size])
        at = min(at + size, attempts)
        memory = plain_memory(events[:at])
        for item in rng.choices(events[:at], k=5):
            expected = memory.recall(item_hash(item["item_id"])) or NEVER_MET
            assert recalled(state, item["item_id"]) == expected
        arrays = state.store.arrays
        most = max(most, int(unsettled(arrays, int(arrays.at[0]))))
        assert most <= MOST_UNSETTLED
        if rng.random() < 0.2:
            state = reloaded(state, rows)
            learner = state.learner("u1")
            assert learner is not None
            assert learner.memory.pack() == memory.pack()
    assert state.counts["too_late"] == 0
    assert most > 0


def test_what_is_written_does_not_depend_on_when() -> None:
    folded = records(practising(random.Random(9), 900, 500, 0.3))
    written = []
    for size in (7, 100, 900):
        state, rows = new_state(), {}  # type: ignore[var-annotated]
        for start in range(0, 900, size):
            state.fold(folded[start : start + size])
            reloaded(state, rows)
        written.append({key: row for key, row in rows.items() if row and key[:1] in b"LD"})
    assert written[0] == written[1] == written[2]


def test_answers_stay_in_their_rows_alone_until_there_are_many() -> None:
    events = [event(f"a{k}", day=k / 100, item_id=f"item-{k}") for k in range(MOST_UNSETTLED + 1)]
    state = new_state()
    state.fold(records(events)[:MOST_UNSETTLED])
    arrays = state.store.arrays
    assert arrays.i4[2 * arrays.at[0] + N_MEMORY] == 0
    state.fold(records(events))
    arrays = state.store.arrays
    assert arrays.i4[2 * arrays.at[0] + N_MEMORY] == MOST_UNSETTLED


def test_a_void_takes_an_answer_back_that_only_its_row_held() -> None:
    first, again = event("a", correct=True), event("b", day=0.1, correct=False)
    void = event("c", day=0.2, op="void", supersedes="b", correct=False)
    state = new_state()
    state.fold(records([first, again, void]))
    assert recalled(state, "i1")[2:4] == (1, 0)
    state.fold(records([first, again, void, event("d", day=0.3)]))
    assert recalled(state, "i1")[2:] == (2, 0, True)


def version_1(learner: Learner) -> bytes:
    """The head row of the release before: without the number of settled answers."""
    head = learner.pack_head()
    fixed = struct.calcsize("<BQHIIIddddHH")
    return b"\x01" + head[1:fixed] + head[fixed + 4 :]


def test_the_rows_of_version_1_are_taken_over_and_become_of_this_version() -> None:
    params = ParamsStore()
    params.weights = Weights(*([0.1] * len(NO_WEIGHTS)))
    events = practising(random.Random(4), 400, 80, 0.05)
    later = [
        event(f"later{k}", day=30 + k / 10, item_id=f"item-{k % 40}", correct=k % 3 > 0)
        for k in range(60)
    ]
    all_records = records([*events, *later])
    state = new_state(params=params)
    state.fold(all_records[:400])
    rows: dict[bytes, bytes | None] = {}
    reloaded(state, rows)
    learner = state.learner("u1")
    assert learner is not None
    rows[head_key(b"u1")] = version_1(learner)
    rows[POSITION_KEY] = (rows[POSITION_KEY] or b"").replace(
        b'"state_version":%d' % STATE_VERSION, b'"state_version":1'
    )
    assert b'"state_version":1' in (rows[POSITION_KEY] or b"")

    taken_over = loaded(list(rows.items()), params)
    state.fold(all_records[400:])
    taken_over.fold(all_records[400:])
    ours, kept = taken_over.learner("u1"), state.learner("u1")
    assert ours is not None
    assert kept is not None
    assert ours.rows() == kept.rows()
    written = {m.key: m.value for m in unpacked(flushed(taken_over).messages)}
    assert (written[head_key(b"u1")] or b"")[0] == STATE_VERSION
    assert b'"state_version":%d' % STATE_VERSION in (written[POSITION_KEY] or b"")
    assert Position().state_version == STATE_VERSION
