from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.calibration import MANIFEST_KEY, BatchAbility, ItemParamsRecord, ParamsManifest
from schemas.codec import decode, encode
from schemas.outputs import ThetaUpdate
from stream.domain import ability
from stream.domain.window import DAY_MS
from stream.engine.learner import Learner, day_key, head_key
from stream.engine.params import ParamsStore
from stream.engine.state import PartitionState
from tests.engine.events import (
    INGEST_MS,
    MONDAY,
    FakeRecord,
    event,
    flushed,
    folded,
    item_totals,
    new_state,
    packed_rows,
    records,
    topic_totals,
    unpacked,
)


def learner_of(state: PartitionState, user_id: str = "u1") -> Learner:
    learner = state.learner(user_id)
    assert learner is not None
    return learner


def test_an_attempt_counts_for_learner_topic_and_item() -> None:
    state = folded([event("a"), event("b", correct=False, item_id="i2")])
    learner = learner_of(state)
    assert (learner.attempts, learner.correct) == (2, 1)
    assert topic_totals(state, "t1") == (2, 1, 1)
    assert item_totals(state) == {"i1": (1, 1), "i2": (1, 0)}
    assert state.counts == {"accepted": 2}


def test_a_duplicate_changes_nothing_but_its_count() -> None:
    once, twice = folded([event("a")]), folded([event("a"), event("a")])
    assert twice.counts == {"accepted": 1, "duplicate": 1}
    assert learner_of(once).rows() == learner_of(twice).rows()


def test_a_duplicate_on_another_day_is_recognised() -> None:
    state = folded([event("a", day=0), event("b", day=5), event("a", day=5)])
    assert state.counts == {"accepted": 2, "duplicate": 1}


def test_a_record_at_or_below_the_position_is_skipped() -> None:
    state = folded([event("a"), event("b")])
    state.fold(records([event("a"), event("c")]))
    assert state.counts == {"accepted": 2}
    assert state.position.attempts == 1


def test_a_late_attempt_corrects_its_day_and_leaves_its_snapshot() -> None:
    state = folded([event("a", day=0), event("b", day=3)])
    before = learner_of(state).days[MONDAY].theta
    state.fold([FakeRecord(b"u1", records([event("c", day=0.5)])[0].value, 2)])
    day = learner_of(state).days[MONDAY]
    assert day.attempts == 2
    assert day.theta == before
    assert learner_of(state).latest_ms == (MONDAY + 3) * DAY_MS


def test_an_attempt_older_than_the_lateness_is_a_dead_letter() -> None:
    exactly = event("b", day=3)
    too_late = {**event("c"), "completed_at": (MONDAY + 3) * DAY_MS - 1}
    state = folded([event("a", day=10), exactly, too_late])
    assert state.counts == {"accepted": 2, "too_late": 1}
    assert [d.reason for d in state.dead_letters] == ["too_late"]


@pytest.mark.parametrize("days", [65_535, 65_536])
def test_a_time_whose_day_the_state_cannot_tell_is_invalid(days: int) -> None:
    state = new_state()
    (record,) = records([event("a", completed_at=days * DAY_MS)])
    # Its record claims to be as late, so that it is not too early.
    state.fold([replace(record, timestamp=days * DAY_MS)])
    assert (state.learner("u1") is None) == (days == 65_536)
    assert [d.reason for d in state.dead_letters] == ["invalid"] * (days == 65_536)


def test_an_attempt_from_the_future_is_a_dead_letter() -> None:
    state = folded([{**event("a"), "completed_at": INGEST_MS + DAY_MS + 1}])
    assert state.counts == {"too_early": 1}
    assert state.learner("u1") is None


def test_a_void_takes_an_attempt_out_of_every_count() -> None:
    state = folded(
        [
            event("a"),
            event("b", correct=False),
            event("v", op="void", supersedes="a"),
        ]
    )
    learner = learner_of(state)
    assert (learner.attempts, learner.correct) == (1, 0)
    assert topic_totals(state, "t1") == (1, 0, 1)
    assert item_totals(state)["i1"] == (1, 0)
    assert (learner.days[MONDAY].attempts, learner.days[MONDAY].correct) == (1, 0)


def test_a_void_moves_theta_back_towards_where_it_was() -> None:
    without = learner_of(folded([event("a", item_id="i2")]))
    after = learner_of(
        folded(
            [
                event("a", item_id="i2"),
                event("b", correct=False),
                event("v", op="void", supersedes="b"),
            ]
        )
    )
    with_it = learner_of(folded([event("a", item_id="i2"), event("b", correct=False)]))
    # The removal is a Newton step, see stream.domain.ability.unfold for its bound.
    assert abs(after.g - without.g) < abs(with_it.g - without.g) / 4


def test_a_regrade_changes_only_the_score() -> None:
    state = folded([event("a", correct=False), event("r", op="regrade", supersedes="a")])
    learner = learner_of(state)
    assert (learner.attempts, learner.correct) == (1, 1)
    assert state.counts == {"accepted": 1, "regrade": 1}


def test_a_correction_sent_twice_counts_once() -> None:
    regrades = [event(f"r{n}", op="regrade", supersedes="a", correct=n == 1) for n in (1, 2)]
    state = folded([event("a", correct=False), *regrades, regrades[0]])
    assert learner_of(state).correct == 0
    assert state.counts == {"accepted": 1, "regrade": 2, "duplicate": 1}


@pytest.mark.parametrize(
    ("corrections", "reason"),
    [
        ([event("v", op="void", supersedes="x")], "supersedes_unknown"),
        ([event("v", op="void", supersedes="a", item_id="i9")], "supersedes_mismatch"),
        (
            [event("v", op="void", supersedes="a"), event("w", op="void", supersedes="a")],
            "supersedes_voided",
        ),
        (
            [event("r", op="regrade", supersedes="a"), event("v", op="void", supersedes="r")],
            "supersedes_unknown",
        ),
        ([event("v", "stranger", op="void", supersedes="a")], "supersedes_unknown"),
        ([event("b", day=36), event("v", op="void", supersedes="a")], "supersedes_unknown"),
    ],
)
def test_a_correction_that_cannot_be_applied_is_a_dead_letter(corrections, reason) -> None:
    state = folded([event("a"), *corrections])
    assert state.dead_letters[-1].reason == reason
    assert state.counts[reason] == 1


def test_a_topic_of_null_counts_for_the_learner_alone() -> None:
    state = folded([event("a", topic_id=None)])
    assert learner_of(state).attempts == 1
    assert learner_of(state).topics == []
    assert state.store.topics == {}


def test_a_packed_learner_is_the_same_after_unpacking() -> None:
    state = folded(
        [
            event(f"a{n}", day=n / 3, topic_id=f"t{n % 3}", response_time_ms=n * 10)
            for n in range(40)
        ]
    )
    learner = learner_of(state)
    copy = Learner.from_rows("u1", *learner.rows())
    assert copy.rows() == learner.rows()
    assert copy.days[MONDAY].valid_rows() == learner.days[MONDAY].valid_rows()
    assert [t.topic_id for t in copy.topics] == [t.topic_id for t in learner.topics]


def test_folding_goes_on_the_same_after_a_learner_was_packed() -> None:
    events = [event(f"a{n}", day=n / 3, correct=n % 3 == 0) for n in range(30)]
    straight, packed = folded(events), new_state()
    for record in records(events):
        packed.fold([record])
        learner = learner_of(packed)
        days = [(day_key(b"u1", number), day.pack()) for number, day in learner.days.items()]
        packed.store.put_rows(packed_rows([(head_key(b"u1"), learner.pack_head()), *days]))
    assert learner_of(packed).rows() == learner_of(straight).rows()


def parameters(store: ParamsStore, version: str, sequence: int, **b: float) -> None:
    for item_id, value in b.items():
        item = ItemParamsRecord(item_id, 1.0, value, 0.0, 0.1, version)
        store.add(item_id.encode(), encode(item))
    manifest = ParamsManifest(version, sequence, "calibrated", "run", len(b), 1, 0, "reference", 0)
    store.add(MANIFEST_KEY, encode(manifest))


def test_parameters_take_effect_only_when_they_are_taken() -> None:
    store = ParamsStore()
    state = new_state(params=store)
    parameters(store, "v1", 1, i1=2.0)
    state.fold(records([event("a")]))
    assert state.position.params_version == "none"
    assert state.has_newer_params
    updates = [m for m in unpacked(flushed(state).messages) if m.topic == "theta-updates"]
    assert decode(updates[0].value or b"", ThetaUpdate).params_version == "none"
    assert state.position.params_version == "v1"
    assert not state.has_newer_params


def test_a_version_without_its_manifest_is_not_offered() -> None:
    store = ParamsStore()
    store.add(b"i1", encode(ItemParamsRecord("i1", 1.0, 2.0, 0.0, 0.1, "v1")))
    assert (store.items, store.version) == ({}, "none")


def test_a_harder_item_raises_theta_more() -> None:
    thetas = []
    for b in (-1.0, 1.0):
        store = ParamsStore()
        parameters(store, "v1", 1, i1=b)
        thetas.append(learner_of(folded([event("a")], params=store)).g)
    assert thetas[0] < thetas[1]


def rebase(state: PartitionState, theta: float, cut_day: float, offset: int = 0) -> None:
    ability = BatchAbility("u1", theta, 0.3, "run", "v1", int((MONDAY + cut_day) * DAY_MS))
    state.fold_abilities([FakeRecord(b"u1", encode(ability), offset)])


def test_a_batch_ability_moves_theta_and_its_history_by_the_difference_at_the_cut() -> None:
    state = folded([event("a", day=0), event("b", day=5, correct=False)])
    learner = learner_of(state)
    at_cut, now = learner.days[MONDAY].theta, learner.g
    topic_before = learner.topics[0].d0 + (1 + learner.topics[0].s) * learner.g
    rebase(state, 1.5, cut_day=2)
    learner = learner_of(state)
    assert learner.days[MONDAY].theta + learner.shift == pytest.approx(1.5)
    assert learner.g == pytest.approx(now + 1.5 - at_cut)
    topic_after = learner.topics[0].d0 + (1 + learner.topics[0].s) * learner.g
    assert topic_after == pytest.approx(topic_before + 1.5 - at_cut)


def test_a_batch_ability_delivered_twice_counts_once() -> None:
    state = folded([event("a")])
    rebase(state, 1.5, 2, offset=7)
    theta = learner_of(state).g
    rebase(state, 9.0, 2, offset=7)
    assert learner_of(state).g == theta


def test_a_batch_ability_of_an_unknown_learner_changes_nothing() -> None:
    state = new_state()
    rebase(state, 1.0, 2)
    assert len(state) == 0
    assert state.position.abilities == 0


def test_a_version_brings_its_own_filter_and_live_items() -> None:
    store = ParamsStore()
    live = ItemParamsRecord("i1", 1.0, 2.0, 0.0, 0.1, "v1", live=(1.4, -0.5, 0.3))
    store.add(b"i1", encode(live))
    manifest = ParamsManifest("v1", 1, "calibrated", "run", 1, 1, 0, "reference", 0)
    manifest.filter = {"prior_mean": 0.4, "prior_var": 0.6, "topic_var": 0.2, "drift": 0.02}
    store.add(MANIFEST_KEY, encode(manifest))
    learner = learner_of(folded([event("a", correct=False)], params=store))
    g, vg = ability.initial_global(store.filter)
    d0, s, r = ability.initial_topic(store.filter)
    expected = ability.fold(g, vg, d0, s, r, 1.4, -0.5, 0.0, False, 0, 0, 0.09, store.filter)
    topic = learner.topics[0]
    assert (learner.g, learner.vg, topic.d0, topic.s, topic.r) == pytest.approx(expected, abs=1e-12)
    assert store.unknown_item == (1.0, store.filter.item_mean, 0.0, store.filter.item_var, 0.0)
