"""The item parameters in force, as one immutable version after another."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from schemas.calibration import MANIFEST_KEY, ItemParamsRecord, ParamsManifest
from schemas.codec import decode
from stream.domain.ability import DEFAULT_FILTER, filter_from
from stream.domain.practice import NO_WEIGHTS, weights_from

__all__ = ["ItemInForce", "ParamsStore"]


class ItemInForce(NamedTuple):
    """What the fold needs of an item.

    ``b_variance`` is the uncertainty of b (logit^2); ``recall`` is as for
    :func:`stream.domain.practice.advantage`.
    """

    a: float
    b: float
    c: float
    b_variance: float
    recall: float = 0.0


class ParamsStore:
    """Collects records of ``item-params`` and offers whole versions only.

    Attributes
    ----------
    items
        item_id -> parameters of the newest whole version. Replaced, never changed in place.
    version, sequence
        Its name and number; "none" and 0 before the first.
    weights, filter
        Its weights of practice, memory and form, and constants of the ability filter.
    """

    def __init__(self) -> None:
        self.items: dict[str, ItemInForce] = {}
        self.version = "none"
        self.sequence = 0
        self.weights = NO_WEIGHTS
        self.filter = DEFAULT_FILTER
        self._pending: dict[str, ItemInForce] = {}

    @property
    def unknown_item(self) -> ItemInForce:
        """An item of which nothing is known yet: an average one, as uncertain as items differ.

        Its answers move theta little, since the uncertainty enters the fold; a provisional
        difficulty follows within seconds of its first answers.
        """
        return ItemInForce(1.0, self.filter.item_mean, 0.0, self.filter.item_var)

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
            self.filter = filter_from(manifest.filter)
            return True
        try:
            record = decode(value, ItemParamsRecord)
        except msgspec.DecodeError:
            return False
        a, b, se_b = record.live or (record.a, record.b, record.se_b)
        self._pending[record.item_id] = ItemInForce(a, b, record.c, se_b**2, record.recall)
        return False
