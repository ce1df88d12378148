"""What of a result comes into force: gates, linking, one whole publication."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import Any

import pytest

from schemas.calibration import (
    MANIFEST_KEY,
    BatchAbility,
    CalibratedItem,
    CalibrationAlert,
    CalibrationOutcome,
    CalibrationResult,
    ItemParamsRecord,
    ParamsManifest,
)
from schemas.codec import decode, encode
from stream.calibration.apply import decide, refuse
from stream.calibration.state import ParamsInForce
from stream.kafka.transaction import Outgoing
from stream.settings import Settings

SETTINGS = Settings()
ABILITIES = [("anna", -1.0, 0.3), ("zoe", 0.5, 0.2)]
SLOPE, INTERCEPT = 1.25, -0.5
ITEMS = {f"i{n:02}": (0.7 + 0.05 * n, -1.5 + 0.2 * n) for n in range(16)}
"""a, b on the reference scale."""


def _result(items: list[CalibratedItem], **fields: Any) -> CalibrationResult:
    values: dict[str, Any] = {
        "run_id": "run",
        "request_id": "0123456789abcdef",
        "kind": "irt",
        "status": "succeeded",
        "reason": "responses",
        "cut_time": 77,
        "cut_offsets": {},
        "finished_at": 1,
        "items": items,
        "n_abilities": len(ABILITIES),
        "n_observations": 10_000,
        "n_learners": 500,
        "fit_meta": {"metrics": {"converged": True}},
    }
    return CalibrationResult(**{**values, **fields})


def _fitted(**changed: dict[str, float]) -> list[CalibratedItem]:
    """The items on a scale of their own: theta* = SLOPE theta + INTERCEPT leads back."""
    items = []
    for name, (a, b) in ITEMS.items():
        values = {"a": a * SLOPE, "b": (b - INTERCEPT) / SLOPE, "c": 0.0, "se_a": 0.05}
        items.append(
            CalibratedItem(
                name,
                **{**values, "se_b": 0.05, "n": 600, **changed.get(name, {})},  # type: ignore[arg-type]
            )
        )
    return items


def _in_force(*names: str, **changed: dict[str, Any]) -> ParamsInForce:
    params = ParamsInForce()
    for name in names:
        a, b = ITEMS[name]
        values: dict[str, Any] = {"c": 0.0, "se_b": 0.05, "version": "irt-3-old", "n": 300}
        record = ItemParamsRecord(name, a, b, **{**values, **changed.get(name, {})})
        params.add(name.encode(), encode(record))
    manifest = ParamsManifest("irt-3-old", 3, "calibrated", "r", 1, 1.0, 0.0, "reference", 0)
    params.add(MANIFEST_KEY, encode(manifest))
    return params


class Decision:
    """A publication, read back as its readers do."""

    def __init__(self, messages: list[Outgoing]) -> None:
        self.messages = messages
        told = [m.value or b"" for m in messages if m.topic == "calibration-results"]
        self.outcome = decode(told[0], CalibrationOutcome)
        self.alerts = [decode(value, CalibrationAlert) for value in told[1:]]
        params = [m for m in messages if m.topic == "item-params"]
        self.items = {
            r.item_id: r
            for m in params
            if m.key != MANIFEST_KEY
            for r in [decode(m.value or b"", ItemParamsRecord)]
        }
        self.manifests = [
            decode(m.value or b"", ParamsManifest) for m in params if m.key == MANIFEST_KEY
        ]
        self.abilities = [
            decode(m.value or b"", BatchAbility) for m in messages if m.topic == "batch-abilities"
        ]


def _decide(
    result: CalibrationResult, params: ParamsInForce | None = None, **options: Any
) -> Decision:
    settings = replace(SETTINGS, **options)
    return Decision(decide(result, ABILITIES, params or ParamsInForce(), settings, 99))


def test_the_first_calibration_is_the_reference_scale() -> None:
    found = _decide(_result(_fitted()))
    assert found.outcome.status == "applied"
    assert (found.outcome.slope, found.outcome.intercept) == (1.0, 0.0)
    assert found.outcome.method == "reference"
    assert found.outcome.version == "irt-1-01234567"
    assert {name: (r.a, r.b) for name, r in found.items.items()} == {
        item.item_id: (item.a, item.b) for item in _fitted()
    }
    assert [a.theta for a in found.abilities] == [-1.0, 0.5]


def test_fixed_anchors_make_the_link_the_identity() -> None:
    found = _decide(_result(_fitted(), fixed_anchors=["i01", "i02"]))
    assert found.outcome.method == "fixed_anchors"
    assert (found.outcome.slope, found.outcome.intercept, found.outcome.n_common) == (1.0, 0.0, 2)


def test_constants_of_the_service_are_applied() -> None:
    constants = {"linking_constants": {"slope": SLOPE, "intercept": INTERCEPT}}
    found = _decide(_result(_fitted(), fixed_anchors=["i01"], fit_meta=constants))
    assert found.outcome.method == "service"
    assert found.items["i05"].b == pytest.approx(ITEMS["i05"][1])


def test_a_later_calibration_is_put_on_the_reference_scale() -> None:
    found = _decide(_result(_fitted()), _in_force(*list(ITEMS)[:12]))
    outcome = found.outcome
    assert (outcome.status, outcome.method) == ("applied", "stocking_lord")
    assert (outcome.slope, outcome.intercept) == pytest.approx((SLOPE, INTERCEPT), abs=1e-6)
    assert (outcome.n_common, outcome.dropped) == (12, [])
    assert outcome.se_slope is not None
    assert 0 < outcome.se_slope < 0.1
    for name, (a, b) in ITEMS.items():
        assert (found.items[name].a, found.items[name].b) == pytest.approx((a, b), abs=1e-6)
        assert found.items[name].se_b == pytest.approx(0.05 * SLOPE)
    assert [a.user_id for a in found.abilities] == ["anna", "zoe"]
    assert [a.theta for a in found.abilities] == pytest.approx(
        [-SLOPE + INTERCEPT, 0.5 * SLOPE + INTERCEPT]
    )
    assert found.abilities[1].se == pytest.approx(0.2 * SLOPE)
    assert {(a.run_id, a.version, a.cut_time) for a in found.abilities} == {
        ("run", outcome.version, 77)
    }


def test_a_publication_is_whole_with_its_manifest_last() -> None:
    found = _decide(_result(_fitted()), _in_force(*ITEMS))
    (manifest,) = found.manifests
    assert found.messages[-1].key == MANIFEST_KEY
    assert (manifest.sequence, manifest.version) == (4, "irt-4-01234567")
    assert {r.version for r in found.items.values()} == {manifest.version}
    assert (manifest.kind, manifest.run_id, manifest.n_items) == ("calibrated", "run", 16)
    assert manifest.linking_slope == pytest.approx(SLOPE, abs=1e-6)
    assert [m.key for m in found.messages if m.topic == "batch-abilities"] == [b"anna", b"zoe"]


def test_anchors_hold_the_scale_and_keep_their_parameters() -> None:
    anchors = [f"i{n:02}" for n in range(6)]
    # All the others became easier: a link through them would carry that into the scale.
    moved = {name: {"b": (ITEMS[name][1] - 0.3 - INTERCEPT) / SLOPE} for name in list(ITEMS)[6:]}
    result = _result(_fitted(**moved), tagged_anchors=anchors)
    found = _decide(result, _in_force(*ITEMS, i00={"se_b": 0.01}))
    assert (found.outcome.slope, found.outcome.intercept) == pytest.approx(
        (SLOPE, INTERCEPT), abs=1e-6
    )
    assert found.outcome.n_common == 6
    kept = found.items["i00"]
    assert (kept.a, kept.b, kept.se_b, kept.n) == (*ITEMS["i00"], 0.01, 300)
    assert found.items["i10"].b == pytest.approx(ITEMS["i10"][1] - 0.3, abs=1e-6)


def test_a_drifted_item_is_left_out_and_told_of() -> None:
    drifted = {"i07": {"b": (ITEMS["i07"][1] + 1.5 - INTERCEPT) / SLOPE}}
    found = _decide(_result(_fitted(**drifted)), _in_force(*ITEMS))
    assert found.outcome.dropped == ["i07"]
    assert found.outcome.slope == pytest.approx(SLOPE, abs=1e-6)
    assert found.items["i07"].b == pytest.approx(ITEMS["i07"][1] + 1.5, abs=1e-5)
    assert [(alert.kind, alert.item_id) for alert in found.alerts] == [("item_drift", "i07")]
    assert "i07" in found.outcome.warnings[0]


def test_a_drifted_anchor_gets_new_parameters() -> None:
    anchors = [f"i{n:02}" for n in range(8)]
    drifted = {"i03": {"b": (ITEMS["i03"][1] + 1.5 - INTERCEPT) / SLOPE}}
    found = _decide(_result(_fitted(**drifted), tagged_anchors=anchors), _in_force(*ITEMS))
    assert found.outcome.dropped == ["i03"]
    assert found.items["i03"].b == pytest.approx(ITEMS["i03"][1] + 1.5, abs=1e-5)


def test_too_few_tagged_anchors_leave_the_link_to_all_common_items() -> None:
    found = _decide(_result(_fitted(), tagged_anchors=["i01", "i02"]), _in_force(*ITEMS))
    assert (found.outcome.status, found.outcome.n_common) == ("applied", 16)
    assert "Only 2 tagged anchors" in found.outcome.warnings[0]


@pytest.mark.parametrize(
    ("common", "reason"), [(["i01"], "have 1 usable"), (["i01", "i05", "i09"], "link is weak")]
)
def test_without_a_good_link_old_parameters_stay(common: list[str], reason: str) -> None:
    found = _decide(_result(_fitted()), _in_force(*common))
    assert found.outcome.status == "refused"
    assert reason in found.outcome.reasons[0]
    assert {m.topic for m in found.messages} == {"calibration-results"}
    assert [alert.kind for alert in found.alerts] == ["refused"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"fit_meta": {"metrics": {"converged": False}}}, "did not converge"),
        ({"n_observations": 499}, "499 responses"),
        ({"n_learners": 49}, "49 learners"),
        ({"items": []}, "no items"),
        ({"n_abilities": 3}, "2 of 3 abilities"),
        ({"items": _fitted(i03={"b": nan})}, "i03"),
        ({"items": _fitted(i03={"a": -1.0})}, "no curve"),
        ({"items": _fitted(i03={"se_b": nan})}, "no curve"),
        ({"items": [CalibratedItem("x", 1.0, 0.0, 0.0, None, 2.0)]}, "well enough"),
    ],
)
def test_each_gate_refuses_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    found = _decide(_result(**{"items": _fitted(), **fields}))
    assert found.outcome.status == "refused"
    assert any(reason in each for each in found.outcome.reasons)
    assert found.items == {}
    assert found.abilities == []
    assert found.manifests == []


def test_abilities_that_are_not_finite_refuse_the_result() -> None:
    bad = [("anna", nan, 0.1), ("zoe", 0.0, 0.1)]
    found = Decision(decide(_result(_fitted()), bad, ParamsInForce(), SETTINGS, 0))
    assert found.outcome.reasons == ["It has abilities that are not finite."]


def test_a_dry_run_tells_the_constants_and_changes_nothing() -> None:
    found = _decide(_result(_fitted()), _in_force(*ITEMS), dry_run=True)
    assert (found.outcome.status, found.outcome.version) == ("dry_run", "")
    assert found.outcome.slope == pytest.approx(SLOPE, abs=1e-6)
    assert {m.topic for m in found.messages} == {"calibration-results"}


def test_an_item_hardly_determined_is_provisional_or_stays_as_it_was() -> None:
    unsure = {"i03": {"se_b": 2.0}, "i15": {"se_b": 2.0}}
    found = _decide(_result(_fitted(**unsure)), _in_force(*list(ITEMS)[:12]))
    assert "i03" not in found.items
    assert found.items["i15"].provisional
    assert found.items["i15"].se_b == pytest.approx(2.0 * SLOPE)
    assert not found.items["i04"].provisional


def test_a_result_that_breaks_the_decision_itself_is_refused() -> None:
    found = Decision(refuse(_result(_fitted()), "It could not be decided: X.", 5))
    assert found.outcome.status == "refused"
    assert found.alerts[0].detail == "It could not be decided: X. The old parameters stay in force."


def test_what_the_live_filter_folds_with_comes_onto_the_reference_scale_too() -> None:
    items = _fitted()
    for item in items:
        item.live, item.recall = (item.a * 1.1, item.b - 0.2, 0.1), 0.6
    fitted = {"prior_mean": 0.4, "prior_var": 0.8, "drift": 0.01, "drift_n0": 50.0}
    result = _result(items, weights={"seen": 0.5}, filter=fitted)
    messages = [
        m
        for m in decide(result, ABILITIES, _in_force(*ITEMS), SETTINGS, 5)
        if m.topic == "item-params"
    ]
    manifest = decode(messages[-1].value or b"", ParamsManifest)
    assert manifest.weights == {"seen": 0.5}
    assert manifest.filter["prior_mean"] == pytest.approx(0.4 * SLOPE + INTERCEPT, abs=1e-3)
    assert manifest.filter["prior_var"] == pytest.approx(0.8 * SLOPE**2, rel=1e-3)
    assert manifest.filter["drift"] == pytest.approx(0.01 * SLOPE**2, rel=1e-3)
    assert manifest.filter["drift_n0"] == 50.0
    for message in messages[:-1]:
        record = decode(message.value or b"", ItemParamsRecord)
        a, b = ITEMS[record.item_id]
        want = (a * 1.1, b - 0.2 * SLOPE, 0.1 * SLOPE)
        assert record.live == pytest.approx(want, abs=1e-3)
        assert record.recall == 0.6  # logits, whatever the scale
