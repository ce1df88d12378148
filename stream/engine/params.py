"""The item parameters in force, as one immutable version after another."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from schemas.calibration import MANIFEST_KEY, ItemParamsRecord, ParamsManifest
from schemas.codec import decode
from stream.domain.practice import NO_WEIGHTS, weights_from

__all__ = ["UNKNOWN_ITEM", "ItemInForce", "ParamsStore"]


class ItemInForce(NamedTuple):
    """What the fold needs of an item; ``b_variance`` is the uncertainty of b (logit^2)."""

    a: float
    b: float
    c: float
    b_variance: float


UNKNOWN_ITEM = ItemInForce(1.0, 0.0, 0.0, 1.0)
"""An item of which nothing is known yet: an average one, with a standard deviation of 1 logit.

Its answers move theta little, since the uncertainty enters the fold; a provisional difficulty
follows within seconds of its first answers.
"""


class ParamsStore:
    """Collects records of ``item-params`` and offers whole versions only.

    Attributes
    ----------
    items
        item_id -> parameters of the newest whole version. Replaced, never changed in place.
    version, sequence
        Its name and number; "none" and 0 before the first.
    weights
        Its weights of practice, memory and form.
    """

    def __init__(self) -> None:
        self.items: dict[str, ItemInForce] = {}
        self.version = "none"
        self.sequence = 0
        self.weights = NO_WEIGHTS
        self._pending: dict[str, ItemInForce] = {}

    def add(self, key: bytes | None, value: bytes | None) -> bool:
        """Take one record, in order; return whether it completed a version.

        The manifest carries the whole publication: records before it wait.
        """
        if key is None or value is None:
            return False
        if key == MANIFEST_KEY:
            manifest = decode(value, ParamsManifest)
            self.items = {**self.items, **self._pending}
            self._pending = {}
            self.version, self.sequence = manifest.version, manifest.sequence
            self.weights = weights_from(manifest.weights) if manifest.weights else NO_WEIGHTS
            return True
        try:
            record = decode(value, ItemParamsRecord)
        except msgspec.DecodeError:
            return False
        self._pending[record.item_id] = ItemInForce(record.a, record.b, record.c, record.se_b**2)
        return False
