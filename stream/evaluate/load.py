"""Attempts of any file as numbered arrays, with or without times."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.domain.attempt_log import AttemptLog
from stream.errors import SourceError
from stream.sources import reader_for
from stream.sources.text_file import open_text

__all__ = ["NamedLog", "number_attempts", "read_log"]

_CORRECT = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}
_REQUIRED = ("user_id", "item_id", "correct")


@dataclass(frozen=True, slots=True)
class NamedLog:
    """A log and the names behind its numbers."""

    log: AttemptLog
    users: tuple[str, ...]
    items: tuple[str, ...]
    has_times: bool
    """False: only the order of the file is known."""

    def held_out(self) -> NDArray[np.bool_]:
        """Which attempts are of held-out learners, (n,): sha256(user_id) mod 5 is 0."""
        digests = (hashlib.sha256(user.encode()).hexdigest() for user in self.users)
        held = np.array([int(digest, 16) % 5 == 0 for digest in digests], bool)
        return np.asarray(held[self.log.learner], bool)


def read_log(path: Path) -> NamedLog:
    """Read a file of attempts.

    Parameters
    ----------
    path
        A CSV file with at least the columns user_id, item_id and correct (0 or 1); topic_id,
        completed_at and response_time_ms (ms) where there are any, other columns do not
        matter. Any other format that `thetastream replay` reads works too.

    Returns
    -------
    NamedLog
        Sorted by learner, then time. If any time is missing none is used: the order of the
        file counts.

    Raises
    ------
    SourceError
        The file cannot be read, a column is missing, a field is malformed, or it is empty.
    """
    name = path.name.removesuffix(".gz")
    rows = _csv_rows(path) if name.endswith(".csv") else reader_for(path)(path)
    return number_attempts(rows, str(path))


def number_attempts(rows: Iterable[Mapping[str, object]], source: str = "log") -> NamedLog:
    """Give learners, items and topics numbers as they appear; see `read_log`."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    topics: dict[str, int] = {}
    learner, item, topic, correct, end, spent = [], [], [], [], [], []
    for row in rows:
        learner.append(users.setdefault(str(row["user_id"]), len(users)))
        item.append(items.setdefault(str(row["item_id"]), len(items)))
        name = row.get("topic_id")
        topic.append(topics.setdefault(str(name), len(topics)) if name else -1)
        correct.append(bool(row["correct"]))
        end.append(_number(row.get("completed_at")))
        spent.append(_number(row.get("response_time_ms")))
    if not learner:
        raise SourceError(f"{source} holds no attempts; there is nothing to evaluate")
    end_ms = np.array(end)
    has_times = bool((end_ms > 0.0).all())
    if not has_times:
        end_ms[:] = 0.0
    start_ms = end_ms - np.array(spent) if has_times else end_ms
    who = np.array(learner, np.int64)
    order = np.lexsort((end_ms, who))
    log = AttemptLog(
        who[order],
        np.array(item, np.int64)[order],
        np.array(topic, np.int64)[order],
        np.array(correct, bool)[order],
        start_ms[order] / 1000.0,
        end_ms[order] / 1000.0,
        len(users),
        len(items),
        len(topics),
    )
    return NamedLog(log, tuple(users), tuple(items), has_times)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _csv_rows(path: Path) -> Iterable[Mapping[str, object]]:
    with open_text(path) as text:
        reader = csv.DictReader(text)
        missing = [name for name in _REQUIRED if name not in (reader.fieldnames or ())]
        if missing:
            raise SourceError(
                f"{path}, line 1: missing columns {', '.join(missing)}; an evaluation needs "
                f"{', '.join(_REQUIRED)}, and uses topic_id, completed_at, response_time_ms"
            )
        for row in reader:
            try:
                yield {
                    "user_id": row["user_id"],
                    "item_id": row["item_id"],
                    "topic_id": row.get("topic_id"),
                    "correct": _CORRECT[row["correct"].lower()],
                    "completed_at": _optional(row.get("completed_at")),
                    "response_time_ms": _optional(row.get("response_time_ms")),
                }
            except (KeyError, ValueError, AttributeError):
                raise SourceError(
                    f"{path}, line {reader.line_num}: correct must be 0 or 1, and completed_at "
                    "and response_time_ms milliseconds or blank"
                ) from None


def _optional(field: str | None) -> float | None:
    return float(field) if field else None
