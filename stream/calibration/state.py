"""What the calibrator knows, derived from topics alone.

There is no second truth to keep in step: item totals are ``item-partials`` added up, parameters
in force are ``item-params``, and what was asked for, answered and decided are
``calibration-requests`` and ``calibration-results``. A process that starts reads them whole and
knows what its predecessor knew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from schemas.calibration import (
    MANIFEST_KEY,
    CalibrationRequest,
    ItemParamsRecord,
    ParamsManifest,
)
from schemas.codec import decode
from schemas.models import ModelRequest
from schemas.outputs import ItemPartial, Watermark
from stream.calibration.runs import Runs
from stream.domain.drift import AnswerSums, ItemDrift
from stream.domain.window import DAY_MS
from stream.models.registry import KINDS

__all__ = ["CalibratorState", "ItemTotals", "ParamsInForce"]

logger = logging.getLogger(__name__)

NO_VERSION = "none"
"""Base version before the first calibration."""

_NONE = AnswerSums(0, 0, 0.0, 0.0)


class ItemTotals:
    """Responses and correct responses of each item, and how far the engines have folded.

    Attributes
    ----------
    n, correct, expected, variance
        By item, over all attempts partitions; the last two are sums of P and P (1 - P).
    responses
        Attempts that counted, all items together.
    folded
        Attempts partition -> offset one past the last whose effect is in these totals.
    """

    def __init__(self) -> None:
        self.n: dict[str, int] = {}
        self.correct: dict[str, int] = {}
        self.expected: dict[str, float] = {}
        self.variance: dict[str, float] = {}
        self.responses = 0
        self.folded: dict[int, int] = {}
        self._rows: dict[tuple[str, int], AnswerSums] = {}

    def add(self, row: ItemPartial) -> None:
        """Take an absolute row; the newest of a partition and item replaces those before."""
        key, item = (row.item_id, row.partition), row.item_id
        sums = AnswerSums(row.attempts, row.correct, row.expected, row.variance)
        more = sums.since(self._rows.get(key, _NONE))
        self._rows[key] = sums
        self.n[item] = self.n.get(item, 0) + more.n
        self.correct[item] = self.correct.get(item, 0) + more.correct
        self.expected[item] = self.expected.get(item, 0.0) + more.expected
        self.variance[item] = self.variance.get(item, 0.0) + more.variance
        self.responses += more.n
        if row.source_offset >= self.folded.get(row.partition, 0):
            self.folded[row.partition] = row.source_offset + 1

    def sums(self) -> dict[str, AnswerSums]:
        """Return the totals of each item as they are now."""
        return {
            item: AnswerSums(n, self.correct[item], self.expected[item], self.variance[item])
            for item, n in self.n.items()
        }


class ParamsInForce:
    """Whole versions of the item parameters.

    Attributes
    ----------
    items
        item_id -> record of the newest whole version.
    sequence
        Number of that version; 0 before the first.
    calibrated_version
        Name of the newest calibration in force.
    weights
        Weights of practice, memory and form in force, by name.
    filter
        Constants of the live filter in force, by name, on the reference scale.
    """

    def __init__(self) -> None:
        self.items: dict[str, ItemParamsRecord] = {}
        self.sequence = 0
        self.calibrated_version = NO_VERSION
        self.weights: dict[str, float] = {}
        self.filter: dict[str, float] = {}
        self._pending: dict[str, ItemParamsRecord] = {}

    def add(self, key: bytes | None, value: bytes | None) -> None:
        """Take one record of ``item-params``, in order."""
        if key is None or value is None:
            return
        if key == MANIFEST_KEY:
            manifest = decode(value, ParamsManifest)
            self.sequence = manifest.sequence
            self.weights, self.filter = manifest.weights, manifest.filter
            self.items.update(self._pending)
            self._pending = {}
            # The topic is compacted to one manifest, perhaps of a provisional version: the
            # newest calibration is known from its items, whose version carries its number.
            self.calibrated_version = max(
                (item.version for item in self.items.values() if not item.provisional),
                key=_sequence_of,
                default=NO_VERSION,
            )
        else:
            record = decode(value, ItemParamsRecord)
            self._pending[record.item_id] = record

    def calibrated(self) -> dict[str, ItemParamsRecord]:
        """Return the items with calibrated parameters."""
        return {name: item for name, item in self.items.items() if not item.provisional}


def _sequence_of(version: str) -> int:
    return int(version.split("-")[1])


@dataclass(slots=True)
class CalibratorState:
    """All that triggers, runs and publications go by."""

    totals: ItemTotals = field(default_factory=ItemTotals)
    params: ParamsInForce = field(default_factory=ParamsInForce)
    runs: Runs = field(default_factory=Runs)
    drifted: dict[str, ItemDrift] = field(default_factory=dict)
    """Calibrated items whose answers were last seen not to fit their parameters."""
    stream_week: int = 0
    """Monday of the latest week with an accepted attempt, days since 1970-01-01."""

    def add_partial(self, value: bytes | None) -> None:
        """Take a record of ``item-partials``; what cannot be read is skipped, here and below."""
        with _skipping("item-partials"):
            self.totals.add(decode(value or b"", ItemPartial))

    def add_params(self, key: bytes | None, value: bytes | None) -> None:
        """Take a record of ``item-params``."""
        with _skipping("item-params"):
            self.params.add(key, value)

    def add_watermark(self, value: bytes | None) -> None:
        """Take a record of ``watermarks``."""
        with _skipping("watermarks"):
            week = decode(value or b"", Watermark).week_start
            self.stream_week = max(self.stream_week, week)

    def add_request(self, value: bytes | None, offset: int) -> None:
        """Take a record of ``calibration-requests``."""
        with _skipping("calibration-requests"):
            record = value or b""
            if decode(record, _OfKind).kind in KINDS:
                self.runs.add_request(decode(record, ModelRequest), offset)
            else:
                self.runs.add_request(decode(record, CalibrationRequest), offset)

    def add_result(self, value: bytes | None) -> None:
        """Take a record of ``calibration-results``."""
        with _skipping("calibration-results"):
            self.runs.add_result_record(value)

    def window_since_ms(self, lookback_days: int) -> int:
        """Return the ingest time before which no record can hold an attempt of the window.

        An attempt never arrives more than a day before its event time, and the stream's latest
        event time is in its latest week or after.
        """
        return max(0, (self.stream_week - lookback_days - 1) * DAY_MS)


class _OfKind(msgspec.Struct):
    kind: str


@contextmanager
def _skipping(topic: str) -> Iterator[None]:
    """Skip a record that cannot be read: one must not stop what follows."""
    try:
        yield
    except msgspec.DecodeError as error:
        logger.warning("a record of %s cannot be read and is skipped: %s", topic, error)
