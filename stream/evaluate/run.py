"""The whole evaluation: data sets and protocols in parallel, simulations, the files it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stream.domain.irt import FloatArray
from stream.evaluate.chart import chart
from stream.evaluate.load import read_log
from stream.evaluate.measures import Bins
from stream.evaluate.protocols import Protocol, evaluate
from stream.evaluate.simulate import MOTIONS, coverage, distance_to_exact, error_by_attempts

__all__ = ["Report", "data_sets", "run", "write"]

_FILES = ("attempts.csv.gz", "attempts.csv")


@dataclass(slots=True)
class Report:
    """Everything measured."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """One a data set, protocol and method."""
    weights: list[dict[str, Any]] = field(default_factory=list)
    """What was fitted on each data set and protocol."""
    simulations: dict[str, Any] = field(default_factory=dict)
    reliability: dict[str, dict[str, Bins]] = field(default_factory=dict)
    errors: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def data_sets(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of each data set in a folder of folders; nothing where there is none."""
    for sub in sorted(folder.iterdir()) if folder.is_dir() else []:
        for name in _FILES:
            if (sub / name).is_file():
                yield sub.name, sub / name
                break


def run(
    sources: list[tuple[str, Path]],
    protocols: list[Protocol],
    *,
    ablations: bool = True,
    simulations: bool = True,
    processes: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Evaluate every source under every protocol.

    Parameters
    ----------
    sources
        Name and file of each data set.
    protocols
        Keys of `stream.evaluate.protocols.PROTOCOLS`.
    ablations, simulations
        Whether ours is run without its parts too (under ``learners``), and on simulated data.
    processes
        Worked on at once.
    progress
        Told what is done.
    """
    report = Report()
    # The largest first, so that no process is left with it alone at the end.
    largest = sorted(sources, key=_size, reverse=True)
    jobs = [(name, path, protocol) for name, path in largest for protocol in protocols]
    with ProcessPoolExecutor(max_workers=max(1, processes)) as pool:
        futures = [
            pool.submit(_evaluate, name, path, protocol, ablations and protocol == "learners")
            for name, path, protocol in jobs
        ]
        if simulations:
            report.simulations = _simulate(report)
            progress("simulations")
        for (name, _, protocol), future in zip(jobs, futures, strict=True):
            found = future.result()
            if found is None:
                report.skipped.append(f"{name}, {protocol}: the split leaves nothing to judge")
                continue
            rows, fitted, reliability = found
            report.rows += rows
            report.weights.append({"data": name, "protocol": protocol, **fitted})
            if protocol == "learners":
                report.reliability[name] = reliability
            progress(f"{name}, {protocol}")
    return report


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``evaluate.json`` (rows), ``evaluate-details.json`` and ``evaluate.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, details, picture = (
        folder / name for name in ("evaluate.json", "evaluate-details.json", "evaluate.svg")
    )
    rows.write_text(json.dumps(report.rows, indent=1) + "\n")
    details.write_text(
        json.dumps({"fits": report.weights, "simulations": report.simulations}, indent=1) + "\n"
    )
    picture.write_text(chart(report.reliability, report.errors))
    return [rows, details, picture]


def _evaluate(
    name: str, path: Path, protocol: Protocol, ablations: bool
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Bins]] | None:
    found = evaluate(name, read_log(path), protocol, ablations=ablations)
    if found is None:
        return None
    fit = found.fit
    fitted = {
        "weights": fit.weights._asdict(),
        "filter": asdict(fit.config),
        "losses": fit.losses,
    }
    return found.rows, fitted, found.reliability


def _simulate(report: Report) -> dict[str, Any]:
    for motion in MOTIONS:
        report.errors[motion] = error_by_attempts(motion, learners=200)
    return {
        "distance_to_exact": distance_to_exact(),
        "coverage": [coverage(motion) for motion in MOTIONS],
        "rmse": {
            motion: {
                name: [round(float(v[k - 1]), 4) for k in (5, 20, 100, 200)]
                for name, v in e.items()
            }
            for motion, e in report.errors.items()
        },
    }


def _size(source: tuple[str, Path]) -> int:
    """Bytes of the file; a missing one is reported when it is read."""
    return source[1].stat().st_size if source[1].is_file() else 0
