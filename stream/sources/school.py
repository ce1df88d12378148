"""What a simulated school is: its configuration, its truth, and its records as they arrive."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from stream.errors import SourceError
from stream.sources.text_file import create_text
from stream.sources.tidy_csv import COLUMNS

__all__ = ["DAY_MS", "WEEK_MS", "School", "SchoolConfig"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS

OPS = ("attempt", "void", "regrade")

CSV_COLUMNS = (*COLUMNS, "op", "supersedes", "session_id")

_CSV_CHUNK = 50_000
"""Records between two calls of the progress function."""


@dataclasses.dataclass(frozen=True)
class SchoolConfig:
    """What kind of school. Shares are of the original attempts; times are UTC."""

    learners: int = 2000
    items: int = 200
    topics: int = 8
    attempts: int = 300_000
    """Original attempts; repeats, voids and regrades come on top."""
    days: int = 84
    start: dt.date = dt.date(2025, 1, 6)
    """First day; the default is a Monday."""
    growth: float = 0.05
    """Mean growth of ability in logits a week; a learner's own varies by half of it. 0: none."""
    topic_sd: float = 0.3
    """Standard deviation of a learner's topic deviations, logits."""
    anchors: int = 20
    """Items whose parameters are given away in the truth file."""
    session_attempts: float = 12.0
    """Mean attempts of a session."""
    share_duplicates: float = 0.02
    share_late: float = 0.01
    """Delayed by minutes to days; one in twenty of them beyond a week, which is too late."""
    share_void: float = 0.002
    share_regrade: float = 0.002
    share_null_topic: float = 0.01
    share_null_time: float = 0.005
    seed: int = 20250106

    @property
    def start_ms(self) -> int:
        """Midnight UTC of the first day, epoch ms."""
        return (self.start - dt.date(1970, 1, 1)).days * DAY_MS

    def __post_init__(self) -> None:
        for name in ("learners", "items", "topics", "attempts", "days"):
            if getattr(self, name) < 1:
                raise SourceError(f"{name} is {getattr(self, name)}; a school needs at least 1")
        if self.session_attempts < 1:
            raise SourceError(f"session_attempts is {self.session_attempts}; at least 1 is needed")
        if self.topics > self.items:
            raise SourceError(f"{self.topics} topics need at least as many items, not {self.items}")
        if not 0 <= self.anchors <= self.items:
            raise SourceError(f"anchors is {self.anchors}; 0 to {self.items} are possible")
        for field in dataclasses.fields(self):
            if field.name.startswith("share_") and not 0 <= getattr(self, field.name) <= 1:
                raise SourceError(f"{field.name} is {getattr(self, field.name)}, not in 0..1")


@dataclasses.dataclass(frozen=True)
class School:
    """A simulated school: the truth, and the records in the order of their arrival.

    Ability of learner l in topic t at time x: theta_start[l] + growth[l] * weeks since the
    school's start + topic_deviation[l, t]. P(correct) = 1 / (1 + exp(-a (theta - b))).
    """

    config: SchoolConfig
    theta_start: Floats
    """(learners,) logits, at the school's start."""
    growth: Floats
    """(learners,) logits a week."""
    topic_deviation: Floats
    """(learners, topics) logits."""
    item_a: Floats
    item_b: Floats
    item_topic: Ints
    anchors: Ints
    """Indices of the anchor items, ascending."""
    learner: Ints
    """(records,) index of the learner; this and all below in the order of arrival."""
    item: Ints
    attempt: Ints
    """(records,) number of the original attempt that the record is, or is about."""
    op: Ints
    """(records,) index in OPS."""
    correct: NDArray[np.bool_]
    hint: NDArray[np.bool_]
    topic: Ints
    """(records,) -1 = null."""
    response_time_ms: Ints
    """(records,) -1 = null."""
    session: Ints
    completed_ms: Ints

    def __len__(self) -> int:
        """Count the records."""
        return len(self.learner)

    def theta(self, learner: int, at_ms: float) -> float:
        """Give a learner's true general ability at a time.

        Parameters
        ----------
        learner
            Index of the learner.
        at_ms
            Epoch ms.

        Returns
        -------
        float
            Logits, topic deviations aside.
        """
        weeks = (at_ms - self.config.start_ms) / WEEK_MS
        return float(self.theta_start[learner] + self.growth[learner] * weeks)

    def attempts(self) -> Iterator[dict[str, Any]]:
        """Give the attempt events in the order of their arrival.

        Yields
        ------
        dict
            As :func:`stream.sources.tidy_csv.read_attempts` reads them from the written file.
        """
        for row in self._rows(0, len(self)):
            fields = dict(zip(CSV_COLUMNS, row, strict=True))
            fields["correct"] = bool(fields["correct"])
            fields["hint_used"] = bool(fields["hint_used"])
            fields["op"] = fields["op"] or "attempt"
            for name in ("topic_id", "response_time_ms", "supersedes"):
                fields[name] = None if fields[name] == "" else fields[name]
            yield fields

    def write_csv(self, path: Path, progress: Callable[[int], None] | None = None) -> None:
        """Write the records as a tidy CSV file.

        Parameters
        ----------
        path
            ``.csv`` or ``.csv.gz``; an existing file is replaced.
        progress
            Called with the number of records written so far.

        Raises
        ------
        SourceError
            The file cannot be written.
        """
        with create_text(path) as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(CSV_COLUMNS)
            for first in range(0, len(self), _CSV_CHUNK):
                last = min(first + _CSV_CHUNK, len(self))
                writer.writerows(self._rows(first, last))
                if progress is not None:
                    progress(last)

    def write_truth(self, path: Path) -> None:
        """Write what is to be recovered: configuration, anchors, items and learners, as JSON.

        Parameters
        ----------
        path
            ``.json``; an existing file is replaced.

        Raises
        ------
        SourceError
            The file cannot be written.
        """
        with create_text(path) as text:
            text.write(orjson.dumps(self.truth(), option=orjson.OPT_INDENT_2).decode() + "\n")

    def truth(self) -> dict[str, Any]:
        """Give the truth as plain values, as :meth:`write_truth` writes it.

        Returns
        -------
        dict
            ``config``; ``start_ms``; ``anchors``: [{item_id, a, b}]; ``items``: [{item_id,
            topic_id, a, b, anchor}]; ``learners``: [{user_id, theta_start, growth_per_week,
            theta_end (at the learner's last event, null without one), topic_deviation:
            {topic_id: logits}}].
        """
        anchors = set(self.anchors.tolist())
        items = [
            {
                "item_id": _item_id(i),
                "topic_id": _topic_id(topic),
                "a": a,
                "b": b,
                "anchor": i in anchors,
            }
            for i, (topic, a, b) in enumerate(
                zip(
                    self.item_topic.tolist(),
                    self.item_a.tolist(),
                    self.item_b.tolist(),
                    strict=True,
                )
            )
        ]
        last_ms = np.full(self.config.learners, -1, dtype=np.int64)
        originals = self.op == 0
        np.maximum.at(last_ms, self.learner[originals], self.completed_ms[originals])
        learners = [
            {
                "user_id": _user_id(i),
                "theta_start": float(self.theta_start[i]),
                "growth_per_week": float(self.growth[i]),
                "theta_end": self.theta(i, int(last_ms[i])) if last_ms[i] >= 0 else None,
                "topic_deviation": {
                    _topic_id(t): d for t, d in enumerate(self.topic_deviation[i].tolist())
                },
            }
            for i in range(self.config.learners)
        ]
        return {
            "config": dataclasses.asdict(self.config),
            "start_ms": self.config.start_ms,
            "anchors": [
                {"item_id": item["item_id"], "a": item["a"], "b": item["b"]}
                for item in items
                if item["anchor"]
            ],
            "items": items,
            "learners": learners,
        }

    def _rows(self, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """CSV rows of records first..last-1; null and the op of an attempt are blank."""
        part = slice(first, last)
        columns = (
            self.attempt,
            self.learner,
            self.item,
            self.topic,
            self.correct.astype(np.int64),
            self.response_time_ms,
            self.hint.astype(np.int64),
            self.completed_ms,
            self.op,
            self.session,
        )
        for attempt, learner, item, topic, correct, time, hint, completed, op, session in zip(
            *(column[part].tolist() for column in columns), strict=True
        ):
            original = f"a{attempt:07d}"
            yield (
                f"{OPS[op][0]}-{original}" if op else original,
                _user_id(learner),
                _item_id(item),
                _topic_id(topic) if topic >= 0 else "",
                correct,
                time if time >= 0 else "",
                hint,
                completed,
                OPS[op] if op else "",
                original if op else "",
                f"s{session:06d}",
            )


def _user_id(learner: int) -> str:
    return f"u{learner + 1:05d}"


def _item_id(item: int) -> str:
    return f"i{item + 1:04d}"


def _topic_id(topic: int) -> str:
    return f"t{topic + 1:02d}"
