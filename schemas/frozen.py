"""The JSON Schema of every event on the wire, frozen a version each in ``schemas/json``.

``python -m schemas.frozen`` writes the files that are missing. A file that exists is never
changed: a record that gained an optional field gets the next number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from schemas.attempt import AttemptEvent
from schemas.calibration import (
    BatchAbility,
    CalibrationAbilities,
    CalibrationAlert,
    CalibrationOutcome,
    CalibrationRequest,
    CalibrationResult,
    ItemParamsRecord,
    ParamsManifest,
)
from schemas.models import ModelLearners, ModelRequest, ModelResult
from schemas.outputs import (
    FeatureUpdate,
    ItemPartial,
    KpiUpdate,
    ThetaUpdate,
    TopicPartial,
    Watermark,
)

__all__ = ["EVENTS", "breaks", "current", "versions"]

EVENTS: dict[str, type] = {
    "attempt": AttemptEvent,
    "theta-update": ThetaUpdate,
    "feature-update": FeatureUpdate,
    "kpi-update": KpiUpdate,
    "topic-partial": TopicPartial,
    "item-partial": ItemPartial,
    "watermark": Watermark,
    "calibration-request": CalibrationRequest,
    "calibration-abilities": CalibrationAbilities,
    "calibration-result": CalibrationResult,
    "calibration-outcome": CalibrationOutcome,
    "calibration-alert": CalibrationAlert,
    "model-request": ModelRequest,
    "model-learners": ModelLearners,
    "model-result": ModelResult,
    "item-params": ItemParamsRecord,
    "params-manifest": ParamsManifest,
    "batch-ability": BatchAbility,
}
"""Event name -> record class."""

_DIRECTORY = Path(__file__).parent / "json"


def current(event: str) -> dict[str, Any]:
    """Return the JSON Schema of an event's record class, without its prose."""
    schema: dict[str, Any] = msgspec.json.schema(EVENTS[event])
    return {key: _bare(value) for key, value in schema.items()}


def versions(event: str) -> list[dict[str, Any]]:
    """Return an event's frozen schemas, oldest first."""
    files = sorted((_DIRECTORY / event).glob("*.json"), key=lambda path: int(path.stem))
    return [json.loads(path.read_text()) for path in files]


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return in what ways a schema is not compatible with the one before it.

    Allowed is to add optional fields and whole record types; nothing else.
    """
    found = []
    for name, before in old["$defs"].items():
        after = new["$defs"].get(name)
        if after is None:
            found.append(f"{name} was removed")
            continue
        for field, shape in before.get("properties", {}).items():
            if after.get("properties", {}).get(field) != shape:
                found.append(f"{name}.{field} was removed or changed")
        required = set(after.get("required", ())) - set(before.get("required", ()))
        found += [f"{name}.{field} became required" for field in sorted(required)]
    return found


def _bare(node: Any) -> Any:
    """Drop descriptions: rewording a docstring is no change of the wire."""
    if isinstance(node, dict):
        return {key: _bare(value) for key, value in node.items() if key != "description"}
    return [_bare(value) for value in node] if isinstance(node, list) else node


def _freeze() -> None:
    for event in EVENTS:
        frozen = versions(event)
        if frozen and frozen[-1] == current(event):
            continue
        path = _DIRECTORY / event / f"{len(frozen) + 1}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(current(event), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    _freeze()
