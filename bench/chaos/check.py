"""Everything that was written, compared with what must be there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from bench.chaos.expected import ExpectedAll, Theta
from bench.chaos.progress import positions
from schemas.calibration import MANIFEST_KEY, CalibrationOutcome, ParamsManifest
from schemas.codec import decode, decode_any
from schemas.outputs import ThetaUpdate
from stream.kafka.reader import Record, read_whole
from stream.settings import Settings
from stream.sinks.theta import LIVE
from stream.verify import compare
from topics.catalogue import (
    calibration_results_topic,
    dead_letters_topic,
    item_params_topic,
    theta_updates_topic,
)

__all__ = ["CheckReport", "check_all", "compare_maps"]

TOLERANCE = 1e-9
"""Of abilities: absolute, logits."""

_LISTED = 5
"""Differences of a check told in words; all are counted."""


@dataclass
class CheckReport:
    """How each comparison went.

    Attributes
    ----------
    compared
        Comparison -> rows expected.
    differences
        Comparison -> number of differences; those without any are there with 0.
    examples
        The first differences of each, in words.
    """

    compared: dict[str, int] = field(default_factory=dict)
    differences: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of differences."""
        return sum(self.differences.values())

    def add(self, name: str, compared: int, found: Iterable[str]) -> None:
        """Note a comparison."""
        listed = list(found)
        self.compared[name] = compared
        self.differences[name] = len(listed)
        self.examples += [f"{name}: {one}" for one in listed[:_LISTED]]


def check_all(settings: Settings, expected: ExpectedAll) -> CheckReport:
    """Compare every row, count, dead letter and, with fixed parameters, ability.

    Parameters
    ----------
    settings
        Where everything is. The pipeline must have drained.
    expected
        Made by :func:`bench.chaos.expected.expect`.
    """
    report = CheckReport()
    sent = sum(expected.outcomes.values())
    report.add("the log holds what was sent", sent, expected.input_faults)
    _check_tables(report, settings, expected)
    database = asyncio.run(_read_database(settings))
    for name, wanted in (("topic_totals", expected.topics), ("item_totals", expected.items)):
        report.add(name, len(wanted), compare_maps(wanted, database[name]))
    updates = _theta_updates(settings)
    report.add(
        "counts of learners",
        len(expected.learners),
        compare_maps(
            expected.learners,
            {u.user_id: (u.n, u.correct, u.last_attempt_at) for u in updates.values()},
        ),
    )
    report.add(
        "counts of learners by topic",
        len(expected.learner_topics),
        compare_maps(
            expected.learner_topics,
            {(u.user_id, t.topic_id): t.n for u in updates.values() for t in u.topics},
        ),
    )
    _check_live_rows(report, updates, database)
    _check_dead_letters(report, settings, expected)
    counted: Counter[str] = Counter()
    for position in positions(settings).values():
        counted.update(position.counts)
    del counted["batch_ability"]
    report.add("outcomes", len(expected.outcomes), compare_maps(expected.outcomes, dict(counted)))
    if expected.thetas is not None:
        _check_thetas(report, updates, expected.thetas)
    _check_calibrations(report, settings, database["runs"])
    return report


def compare_maps(
    wanted: Mapping[Any, Any],
    found: Mapping[Any, Any],
    same: Callable[[Any, Any], bool] = lambda a, b: bool(a == b),
) -> list[str]:
    """Return what is missing, too much, or different, in words."""
    return [
        *(f"{key}: missing, expected {wanted[key]}" for key in wanted.keys() - found.keys()),
        *(f"{key}: unexpected, {found[key]}" for key in found.keys() - wanted.keys()),
        *(
            f"{key}: expected {wanted[key]}, found {found[key]}"
            for key in wanted.keys() & found.keys()
            if not same(wanted[key], found[key])
        ),
    ]


def _check_tables(report: CheckReport, settings: Settings, expected: ExpectedAll) -> None:
    verified = compare(
        expected.rows,
        settings.database_url,
        settings.db_schema,
        use_theta=settings.metrics_use_irt_theta,
        max_list=_LISTED,
    )
    for table in verified.tables:
        told = [
            f"{m.kind} {' '.join(m.key.values())} {m.column or ''}: "
            f"expected {m.expected}, found {m.actual}"
            for m in verified.mismatches
            if m.table == table.table
        ]
        report.add(table.table, table.expected_rows, told)
        report.differences[table.table] = table.mismatches


async def _read_database(settings: Settings) -> dict[str, Any]:
    connection = await asyncpg.connect(settings.database_url)
    try:
        await connection.execute(f'set search_path to "{settings.db_schema}"')
        topics = await connection.fetch("select * from topic_totals")
        items = await connection.fetch("select * from item_totals")
        live = await connection.fetch("select * from mirt_ability where version = $1", LIVE)
        by_topic = await connection.fetch("select * from student_topic_theta")
        runs = await connection.fetch("select run_id from mirt_fit_meta")
        rejects = await connection.fetchval("select count(*) from sink_rejects")
    finally:
        await connection.close()
    return {
        "topic_totals": {
            r["topic_id"]: (r["attempts"], r["correct"], r["learners"]) for r in topics
        },
        "item_totals": {r["item_id"]: (r["attempts"], r["correct"]) for r in items},
        "live": {r["user_id"]: (r["source_offset"], r["theta"], r["se"]) for r in live},
        "by_topic": {
            (r["user_id"], r["topic_id"]): (r["source_offset"], r["theta"], r["se"])
            for r in by_topic
        },
        "runs": [r["run_id"] for r in runs],
        "rejects": rejects,
    }


def _theta_updates(settings: Settings) -> dict[bytes, ThetaUpdate]:
    newest: dict[bytes, ThetaUpdate] = {}

    def take(records: list[Record]) -> None:
        for record in records:
            newest[record.key() or b""] = decode(record.value() or b"", ThetaUpdate)

    read_whole(settings, {theta_updates_topic.name: take})
    return newest


def _check_live_rows(
    report: CheckReport, updates: Mapping[bytes, ThetaUpdate], database: Mapping[str, Any]
) -> None:
    """Look for the newest published abilities, and no older ones, in PostgreSQL."""
    live = {u.user_id: (u.source_offset, u.theta, u.se) for u in updates.values()}
    by_topic = {
        (u.user_id, t.topic_id): (u.source_offset, t.theta, t.se)
        for u in updates.values()
        for t in u.topics
    }
    report.add("mirt_ability, live", len(live), compare_maps(live, database["live"], _near))
    report.add(
        "student_topic_theta", len(by_topic), compare_maps(by_topic, database["by_topic"], _near)
    )
    rejects = database["rejects"]
    report.add("sink_rejects", 0, [f"{rejects} rows were refused"] if rejects else [])


def _near(wanted: tuple[float, ...], found: tuple[float, ...]) -> bool:
    return all(abs(a - b) <= TOLERANCE for a, b in zip(wanted, found, strict=True))


def _check_dead_letters(report: CheckReport, settings: Settings, expected: ExpectedAll) -> None:
    """Each record that cannot be counted is there once, with its bytes."""
    found: dict[tuple[int, int], tuple[str, bytes | None, bytes | None]] = {}
    repeated: list[str] = []

    def take(records: list[Record]) -> None:
        for record in records:
            headers = dict(record.headers() or [])
            place = (int(headers["source_partition"]), int(headers["source_offset"]))
            if place in found:
                repeated.append(f"{place}: more than once")
            found[place] = (headers["reason"].decode(), record.key(), record.value())

    read_whole(settings, {dead_letters_topic.name: take})
    wanted = expected.dead_letters
    report.add(dead_letters_topic.name, len(wanted), [*repeated, *compare_maps(wanted, found)])


def _check_thetas(
    report: CheckReport, updates: Mapping[bytes, ThetaUpdate], wanted: Mapping[str, Theta]
) -> None:
    found = {
        u.user_id: Theta(u.theta, u.se, {t.topic_id: (t.theta, t.se) for t in u.topics})
        for u in updates.values()
    }

    def same(a: Theta, b: Theta) -> bool:
        return (
            _near((a.theta, a.se), (b.theta, b.se))
            and a.topics.keys() == b.topics.keys()
            and all(_near(a.topics[topic], b.topics[topic]) for topic in a.topics)
        )

    report.add("theta as without faults", len(wanted), compare_maps(wanted, found, same))


def _check_calibrations(report: CheckReport, settings: Settings, runs: list[str]) -> None:
    """Every version was published once, every run decided once, and its row is there."""
    sequences: list[int] = []
    results: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    applied: set[str] = set()
    published: list[str] = []

    def take_params(records: list[Record]) -> None:
        for record in records:
            if record.key() == MANIFEST_KEY:
                manifest = decode(record.value() or b"", ParamsManifest)
                sequences.append(manifest.sequence)
                if manifest.kind == "calibrated" and manifest.run_id != "fixed":
                    published.append(manifest.version)

    def take_results(records: list[Record]) -> None:
        for record in records:
            kind = decode_any(record.value() or b"{}").get("type")
            if kind == "result":
                value = decode_any(record.value() or b"{}")
                results[value["run_id"] or value["request_id"]] += 1
            elif kind == "outcome":
                outcome = decode(record.value() or b"", CalibrationOutcome)
                outcomes[outcome.run_id] += 1
                if outcome.status == "applied":
                    applied.add(outcome.version)

    read_whole(
        settings,
        {item_params_topic.name: take_params, calibration_results_topic.name: take_results},
    )
    faults = []
    if sequences and sequences != list(range(sequences[0], sequences[0] + len(sequences))):
        faults.append(f"parameter versions are numbered {sequences}")
    faults += [f"run {run} was answered {n} times" for run, n in results.items() if n > 1]
    faults += [f"run {run} was decided {n} times" for run, n in outcomes.items() if n > 1]
    if applied != set(published) or len(published) != len(set(published)):
        faults.append(f"versions decided {sorted(applied)}, published {sorted(published)}")
    faults += [f"run {run} is missing in mirt_fit_meta" for run in results.keys() - set(runs)]
    report.add("calibrations", len(results), faults)
