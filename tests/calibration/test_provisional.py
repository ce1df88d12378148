"""New items get a difficulty within seconds, and calibrated ones are left alone."""

from __future__ import annotations

import pytest

from schemas.calibration import MANIFEST_KEY, ItemParamsRecord, ParamsManifest
from schemas.codec import decode, encode
from schemas.outputs import ItemPartial
from stream.calibration.provisional import due_difficulties, publication
from stream.calibration.state import ItemTotals, ParamsInForce
from stream.domain.ability import provisional_difficulty
from stream.kafka.transaction import Outgoing


def _totals(**counts: tuple[int, int]) -> ItemTotals:
    totals = ItemTotals()
    for item, (n, correct) in counts.items():
        totals.add(ItemPartial(item, 0, n, correct, 0.0, 0.0, 0))
    return totals


def _take(params: ParamsInForce, messages: list[Outgoing]) -> None:
    for message in messages:
        params.add(message.key, message.value)


def _calibrated(**difficulties: float) -> ParamsInForce:
    params = ParamsInForce()
    for item, b in difficulties.items():
        record = ItemParamsRecord(item, 1.0, b, 0.0, 0.1, "irt-1-x", n=100)
        params.add(item.encode(), encode(record))
    manifest = ParamsManifest("irt-1-x", 1, "calibrated", "r", 1, 1.0, 0.0, "reference", 0)
    params.add(MANIFEST_KEY, encode(manifest))
    return params


def test_fewer_than_five_responses_are_not_enough() -> None:
    assert due_difficulties(_totals(a=(4, 2)), ParamsInForce()) == []
    assert [item for item, _, _ in due_difficulties(_totals(a=(5, 2)), ParamsInForce())] == ["a"]


def test_before_the_first_calibration_items_lie_around_the_overall_share_correct() -> None:
    totals = _totals(easy=(100, 95), middle=(100, 80), hard=(100, 50))
    mean, _ = provisional_difficulty(300, 225, 0.0)
    found = {item: (b, se) for item, b, se in due_difficulties(totals, ParamsInForce())}
    assert found["middle"] == provisional_difficulty(100, 80, mean)
    assert found["easy"][0] < found["middle"][0] < found["hard"][0]


def test_an_item_is_published_again_when_its_evidence_has_doubled() -> None:
    params = ParamsInForce()
    _take(params, publication(due_difficulties(t := _totals(a=(6, 3)), params), t, 1, 0, {}, {}))
    assert params.items["a"].provisional
    assert params.items["a"].n == 6
    assert due_difficulties(_totals(a=(11, 3)), params) == []
    assert [item for item, _, _ in due_difficulties(_totals(a=(12, 3)), params)] == ["a"]


def test_calibrated_items_are_never_due() -> None:
    assert due_difficulties(_totals(a=(500, 1)), _calibrated(a=0.0)) == []


def test_a_new_item_lies_on_the_reference_scale_of_the_calibrated_ones() -> None:
    # The learners are 1 logit better than the reference group: what half of them solve is
    # 1 logit harder than the reference's middle.
    share = {"a": 0.7, "b": 0.5, "c": 0.3}
    totals = _totals(**{k: (4000, round(4000 * p)) for k, p in share.items()}, new=(4000, 2000))
    raw = {k: provisional_difficulty(4000, round(4000 * p), 0.0, 10.0)[0] for k, p in share.items()}
    params = _calibrated(**{item: b + 1.0 for item, b in raw.items()})
    ((item, b, se),) = due_difficulties(totals, params)
    assert item == "new"
    assert b == pytest.approx(1.0, abs=0.02)
    assert se < 0.06


def test_a_version_is_whole_with_its_manifest_last() -> None:
    totals = _totals(a=(5, 2), b=(9, 9))
    in_force = {"seen": 0.5}, {"prior_mean": 0.2}
    messages = publication(due_difficulties(totals, ParamsInForce()), totals, 7, 123, *in_force)
    assert [m.key for m in messages] == [b"a", b"b", MANIFEST_KEY]
    assert {(m.topic, m.partition) for m in messages} == {("item-params", 0)}
    manifest = decode(messages[-1].value or b"", ParamsManifest)
    assert (manifest.version, manifest.sequence, manifest.kind) == ("prov-7", 7, "provisional")
    assert (manifest.n_items, manifest.published_at) == (2, 123)
    assert (manifest.weights, manifest.filter) == in_force
    record = decode(messages[0].value or b"", ItemParamsRecord)
    assert (record.a, record.c, record.provisional, record.version) == (1.0, 0.0, True, "prov-7")
