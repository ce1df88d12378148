from __future__ import annotations

import copy
from itertools import pairwise

import jsonschema
import msgspec
import orjson
import pytest

from schemas.attempt import AttemptEvent
from schemas.frozen import EVENTS, breaks, current, versions
from tests.engine.events import event
from topics.catalogue import CATALOGUE


@pytest.mark.parametrize("name", EVENTS)
def test_the_newest_frozen_schema_is_what_the_record_is(name: str) -> None:
    assert versions(name)[-1] == current(name), (
        f"{name} changed: `python -m schemas.frozen` freezes it as a new version"
    )


@pytest.mark.parametrize("name", EVENTS)
def test_each_version_only_adds_optional_fields_to_the_one_before(name: str) -> None:
    for old, new in pairwise(versions(name)):
        assert breaks(old, new) == []


def test_a_removed_a_changed_and_a_newly_required_field_are_found() -> None:
    old = current("attempt")
    removed, changed, required = (copy.deepcopy(old) for _ in range(3))
    del removed["$defs"]["AttemptEvent"]["properties"]["hint_used"]
    changed["$defs"]["AttemptEvent"]["properties"]["correct"] = {"type": "string"}
    required["$defs"]["AttemptEvent"]["required"].append("session_id")
    assert breaks(old, removed) == ["AttemptEvent.hint_used was removed or changed"]
    assert breaks(old, changed) == ["AttemptEvent.correct was removed or changed"]
    assert breaks(old, required) == ["AttemptEvent.session_id became required"]
    assert breaks(old, old) == []


@pytest.mark.parametrize(
    "change",
    [{}, {"correct": 1}, {"response_time_ms": -5}, {"item_id": ""}, {"op": "erase"}],
)
def test_the_frozen_schema_and_the_decoder_accept_the_same(change: dict[str, object]) -> None:
    attempt = {**event("a"), **change}
    schema_accepts = jsonschema.Draft202012Validator(versions("attempt")[-1]).is_valid(attempt)
    try:
        msgspec.json.decode(orjson.dumps(attempt), type=AttemptEvent)
        decoder_accepts = True
    except msgspec.ValidationError:
        decoder_accepts = False
    assert schema_accepts == decoder_accepts == (not change)


def test_every_record_of_a_topic_is_frozen() -> None:
    assert {spec.record for spec in CATALOGUE if spec.record} <= set(EVENTS.values())
