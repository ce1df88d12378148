"""All model kinds, by name, in the order they are shown and started."""

from __future__ import annotations

from stream.models.forecast import FORECAST
from stream.models.glmm import GLMM
from stream.models.growth import GROWTH
from stream.models.kind import ModelKind
from stream.models.segments import SEGMENTS
from stream.models.survival import SURVIVAL

__all__ = ["KINDS"]

KINDS: dict[str, ModelKind] = {
    kind.name: kind for kind in (GLMM, GROWTH, FORECAST, SURVIVAL, SEGMENTS)
}
