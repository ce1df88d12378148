"""Small logs written by hand."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COLUMNS = (
    "attempt_id",
    "user_id",
    "item_id",
    "topic_id",
    "correct",
    "response_time_ms",
    "hint_used",
    "completed_at",
    "op",
    "supersedes",
)


def ms(moment: str) -> int:
    """Epoch ms of 'YYYY-MM-DD HH:MM[:SS[.mmm]]', UTC."""
    return round(dt.datetime.fromisoformat(moment + "+00:00").timestamp() * 1000)


WriteLog = Callable[[list[dict[str, Any]]], Path]


@pytest.fixture
def write_log(tmp_path: Path) -> WriteLog:
    """Write records, in this order, as a tidy CSV file; fields left out have plain defaults."""

    def write(records: list[dict[str, Any]]) -> Path:
        path = tmp_path / "log.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for number, record in enumerate(records, start=1):
                row = {
                    "attempt_id": f"r{number}",
                    "user_id": "ann",
                    "item_id": "i1",
                    "topic_id": "t1",
                    "correct": 1,
                    **record,
                }
                if "at" in row:
                    row["completed_at"] = ms(row.pop("at"))
                writer.writerow(row)
        return path

    return write
