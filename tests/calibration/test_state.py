"""What is known follows from the topics, however often and in whichever order they are read."""

from __future__ import annotations

import itertools

from schemas.calibration import (
    MANIFEST_KEY,
    CalibrationAbilities,
    CalibrationOutcome,
    CalibrationRequest,
    CalibrationResult,
    ItemParamsRecord,
    ParamsManifest,
)
from schemas.codec import encode
from schemas.outputs import ItemPartial
from stream.calibration.runs import Runs
from stream.calibration.state import ItemTotals, ParamsInForce


def _request(request_id: str = "q", reason: str = "responses") -> CalibrationRequest:
    return CalibrationRequest(request_id, "irt", reason, "none", {}, "2PL", 30, 0)


def _result(offset: int, status: str = "succeeded", request_id: str = "q") -> bytes:
    return encode(
        CalibrationResult(
            run_id=f"run-{request_id}-{offset}",
            request_id=request_id,
            kind="irt",
            status=status,  # type: ignore[arg-type]
            reason="",
            cut_time=0,
            cut_offsets={},
            finished_at=1,
            request_offset=offset,
        )
    )


def _outcome(offset: int, status: str = "applied", request_id: str = "q") -> bytes:
    return encode(
        CalibrationOutcome(
            run_id=f"run-{request_id}-{offset}",
            request_id=request_id,
            kind="irt",
            status=status,  # type: ignore[arg-type]
            reasons=[],
            warnings=[],
            version="",
            sequence=0,
            slope=1.0,
            intercept=0.0,
            se_slope=None,
            se_intercept=None,
            method="",
            n_common=0,
            dropped=[],
            n_items=0,
            n_abilities=0,
            cut_time=0,
            decided_at=0,
        )
    )


def _part(offset: int, part: int) -> bytes:
    return encode(CalibrationAbilities(f"run-q-{offset}", "q", part, [("u", 0.5, 0.1)]))


def test_the_newest_row_of_a_partition_replaces_those_before() -> None:
    totals = ItemTotals()
    for row in (
        ItemPartial("a", 0, 10, 5, 0.0, 0.0, 99),
        ItemPartial("a", 1, 7, 7, 0.0, 0.0, 49),
        ItemPartial("a", 0, 9, 4, 0.0, 0.0, 120),
        ItemPartial("b", 0, 1, 0, 0.0, 0.0, 119),
    ):
        totals.add(row)
    assert totals.n == {"a": 16, "b": 1}
    assert totals.correct == {"a": 11, "b": 0}
    assert totals.responses == 17
    assert totals.folded == {0: 121, 1: 50}


def test_parameters_come_into_force_with_their_manifest() -> None:
    params = ParamsInForce()

    def put(version: str, sequence: int, *items: str, provisional: bool = False) -> None:
        for item in items:
            record = ItemParamsRecord(item, 1.0, 0.0, 0.0, 0.1, version, provisional)
            params.add(item.encode(), encode(record))
        kind = "provisional" if provisional else "calibrated"
        manifest = ParamsManifest(version, sequence, kind, "", 1, 1, 0, "", 0)  # type: ignore[arg-type]
        params.add(MANIFEST_KEY, encode(manifest))

    params.add(b"a", encode(ItemParamsRecord("a", 1.0, 0.0, 0.0, 0.1, "prov-1", True)))
    assert params.items == {}
    put("prov-1", 1, "b", provisional=True)
    assert sorted(params.items) == ["a", "b"]
    assert params.calibrated_version == "none"
    put("irt-2-x", 2, "a")
    put("irt-10-y", 10, "c")
    put("prov-11", 11, "d", provisional=True)
    assert params.sequence == 11
    assert params.calibrated_version == "irt-10-y"
    assert sorted(params.calibrated()) == ["a", "c"]


def test_an_answered_request_is_not_run_again_in_whatever_order_topics_are_read() -> None:
    events = [
        lambda runs: runs.add_request(_request(), 3),
        lambda runs: runs.add_result_record(_result(3)),
        lambda runs: runs.add_result_record(_outcome(3)),
    ]
    # Within a topic the order is kept: results before outcomes.
    for order in itertools.permutations(range(3)):
        if order.index(1) > order.index(2):
            continue
        runs = Runs()
        for number in order:
            events[number](runs)
        assert runs.unanswered("irt") == []
        assert runs.undecided() == []
        assert runs.by_request["q"].decided


def test_a_request_without_result_is_run_and_a_result_without_outcome_decided() -> None:
    runs = Runs()
    runs.add_request(_request(), 3)
    assert [run.request.request_id for run in runs.unanswered("irt")] == ["q"]
    runs.add_result_record(_part(3, 0))
    runs.add_result_record(_part(3, 0))
    runs.add_result_record(_result(3))
    assert runs.unanswered("irt") == []
    assert [result.run_id for result in runs.undecided()] == ["run-q-3"]
    assert runs.abilities == {"run-q-3": {0: [("u", 0.5, 0.1)]}}
    runs.add_result_record(_outcome(3))
    assert runs.undecided() == []
    assert runs.abilities == {}
    runs.add_result_record(_part(3, 1))
    assert runs.abilities == {}


def test_a_request_of_our_own_is_run_only_when_it_has_come_back() -> None:
    runs = Runs()
    runs.add_request(_request())
    assert runs.unanswered("irt") == []
    runs.add_request(_request(), 0)
    assert len(runs.unanswered("irt")) == 1


def test_a_repeat_of_a_request_that_succeeded_changes_nothing() -> None:
    for read_first in ("requests", "as it happened"):
        runs = Runs()
        runs.add_request(_request(), 0)
        if read_first == "requests":
            runs.add_request(_request(), 1)
        runs.add_result_record(_result(0))
        runs.add_result_record(_outcome(0))
        runs.add_request(_request(), 1)
        runs.add_request(_request(reason="manual"), 2)
        assert runs.unanswered("irt") == []


def test_a_repeat_runs_again_after_a_failure_or_when_a_person_asks_after_a_refusal() -> None:
    for status, outcome, reason, again in (
        ("failed", None, "responses", True),
        ("succeeded", "refused", "responses", False),
        ("succeeded", "refused", "manual", True),
        ("succeeded", "dry_run", "manual", True),
    ):
        runs = Runs()
        runs.add_request(_request(), 0)
        runs.add_result_record(_result(0, status))
        if outcome is not None:
            runs.add_result_record(_outcome(0, outcome))
        runs.add_request(_request(reason=reason), 5)
        assert bool(runs.unanswered("irt")) is again
        if again:
            runs.add_result_record(_result(5))
            runs.add_result_record(_outcome(5))
            assert runs.unanswered("irt") == []
            assert runs.by_request["q"].decided


def test_a_request_older_than_an_answered_one_is_covered_by_it() -> None:
    runs = Runs()
    for offset, name in enumerate("abc"):
        runs.add_request(_request(name), offset)
    runs.add_result_record(_result(1, request_id="b"))
    assert [run.request.request_id for run in runs.unanswered("irt")] == ["c"]
