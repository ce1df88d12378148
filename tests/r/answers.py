"""Answers to calibrate: simulated ones, and real ones.

The project holds no real answers. LSAT6, LSAT7 and verbal aggression come with R packages that the
services need, so they are there wherever these tests run; SAT12 and mofacts are taken where they
lie beside the checkout.
"""

from __future__ import annotations

import csv
import gzip
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stream.calibration.client import RIrtClient
from stream.calibration.contract import (
    AnchorRecord,
    CalibrateRequest,
    CalibrateResponse,
    FittedItem,
    ObservationColumns,
    ParamsRecord,
)
from stream.domain.irt import FloatArray
from tests.r.conftest import TOKEN, Service

DATA = Path(__file__).parents[3] / "shared" / "data"


def simulate(
    seed: int,
    n_learners: int,
    n_items: int,
    per_learner: int | None = None,
    *,
    mean: float = 0.0,
    sd: float = 1.0,
    c: float = 0.0,
) -> tuple[ObservationColumns, FloatArray, FloatArray]:
    """Return answers, and the true slopes and difficulties."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(mean, sd, n_learners)
    a, b = np.exp(rng.normal(0, 0.3, n_items)), rng.normal(0, 1, n_items)
    taken = per_learner or n_items
    learner = np.repeat(np.arange(n_learners), taken)
    order = rng.permuted(np.tile(np.arange(n_items), (n_learners, 1)), axis=1)
    item = order[:, :taken].ravel()
    p = c + (1 - c) / (1 + np.exp(-a[item] * (theta[learner] - b[item])))
    columns = ObservationColumns(
        [f"u{i}" for i in learner], [f"q{j}" for j in item], (rng.random(len(p)) < p).tolist()
    )
    return columns, a, b


def anchors(a: FloatArray, b: FloatArray, n: int) -> list[AnchorRecord]:
    """Return the first items, held at their true parameters."""
    return [AnchorRecord(f"q{j}", ParamsRecord(float(a[j]), float(b[j]))) for j in range(n)]


def lsat(name: str) -> ObservationColumns:
    """Return the answers of LSAT6 or LSAT7, from the counts of each pattern in rpf."""
    return _columns(
        (f"u{n}-{k}", f"q{j}", score == "1")
        for n, row in enumerate(_from_r(f"rpf::{name}"))
        for k in range(int(row[5]))
        for j, score in enumerate(row[:5])
    )


def verbal_aggression() -> ObservationColumns:
    """Return 316 people's answers to 24 items, of lme4."""
    rows = _from_r('lme4::VerbAgg[c("id", "item", "r2")]')
    return _columns((f"u{user}", item, answer == "Y") for user, item, answer in rows)


def sat12() -> ObservationColumns:
    """Return 600 people's answers to 32 items."""
    names, *rows = csv.reader((DATA / "static" / "sat12_scored.csv").read_text().splitlines())
    return _columns(
        (f"u{n}", item, score == "1")
        for n, row in enumerate(rows)
        for item, score in zip(names, row, strict=True)
        if score in ("0", "1")
    )


def mofacts() -> ObservationColumns:
    """Return each learner's first answer to each item of the mofacts log."""
    first: dict[tuple[str, str], bool] = {}
    with gzip.open(DATA / "mofacts_stats_cloze" / "attempts.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            first.setdefault((row["user_id"], row["item_id"]), row["correct"] == "1")
    return _columns((*key, correct) for key, correct in first.items())


def as_json(columns: ObservationColumns, **rest: Any) -> dict[str, Any]:
    """Return the body of a request."""
    observations = {
        "user_id": columns.user_id,
        "item_id": columns.item_id,
        "is_correct": [int(score) for score in columns.is_correct],
    }
    return {"observations": observations, **rest}


async def calibrate(service: Service, request: CalibrateRequest) -> CalibrateResponse:
    """Ask a service as the calibrator does."""
    async with RIrtClient(service.url, TOKEN, max_retries=1) as client:
        return await client.calibrate(request)


def by_item(response: CalibrateResponse) -> dict[str, FittedItem]:
    """Return the items of a response by their ids."""
    return {item.item_id: item for item in response.item_params}


def _columns(answers: Iterable[tuple[str, str, bool]]) -> ObservationColumns:
    return ObservationColumns(*(list(column) for column in zip(*answers, strict=True)))


def _from_r(data: str) -> list[list[str]]:
    """Return the rows of a data frame of R."""
    write = f"write.table({data}, sep = ',', quote = FALSE, row.names = FALSE, col.names = FALSE)"
    command = ["Rscript", "--vanilla", "-e", write]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(csv.reader(done.stdout.splitlines()))
