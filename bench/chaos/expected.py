"""What must be there: computed from the input and the log, never from what the engine wrote."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.chaos.workload import Workload
from stream.engine.outputs import topic_thetas
from stream.engine.params import ParamsStore
from stream.engine.state import PartitionState
from stream.kafka.reader import Record, read_whole
from stream.settings import Settings
from stream.verify import recompute
from stream.verify.recompute import Expected
from topics.catalogue import attempts_topic, item_params_topic

_AT_ONCE = 1000

__all__ = ["ExpectedAll", "LogRecord", "Theta", "expect"]


@dataclass(slots=True)
class LogRecord:
    """A record of ``attempts`` as the broker holds it."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Theta:
    """A learner's abilities: global, and by topic_id (theta, se)."""

    theta: float
    se: float
    topics: dict[str, tuple[float, float]]


@dataclass
class ExpectedAll:
    """Everything that can be computed from the input; a context manager.

    Attributes
    ----------
    input_faults
        What of the log is not what was sent, in words. If there is any, the log is at fault, not
        the engine.
    rows
        The independent recomputation's tables.
    outcomes
        Records by outcome, rubbish included; accepted ones by their op.
    dead_letters
        (partition, offset) -> (reason, key, value).
    learners
        user_id -> (attempts, correct, latest_ms).
    learner_topics
        (user_id, topic_id) -> valid attempts.
    topics
        topic_id -> (attempts, correct, learners).
    items
        item_id -> (attempts, correct).
    thetas
        user_id -> abilities without any fault, where parameters were fixed; else None.
    """

    input_faults: list[str]
    rows: Expected
    outcomes: dict[str, int]
    dead_letters: dict[tuple[int, int], tuple[str, bytes | None, bytes | None]]
    learners: dict[str, tuple[int, int, int]]
    learner_topics: dict[tuple[str, str], int]
    topics: dict[str, tuple[int, int, int]]
    items: dict[str, tuple[int, int]]
    thetas: dict[str, Theta] | None = field(default=None)

    def __enter__(self) -> ExpectedAll:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.rows.close()


def expect(
    settings: Settings, workload: Workload, directory: Path, *, fixed_params: bool
) -> ExpectedAll:
    """Compute what must be there once everything sent has been folded.

    Parameters
    ----------
    settings
        Where the log is.
    workload
        What was sent, all of it.
    directory
        For a file of the good records.
    fixed_params
        Whether the item parameters were in force before the first attempt and stayed: then
        abilities are computed too.
    """
    log = _read_log(settings)
    places, faults = _places(workload, log)
    path = directory / "good.jsonl"
    good = workload.write_good(path)
    rows = recompute(path, lateness_days=settings.lateness_days)
    con = rows.con
    outcomes: Counter[str] = Counter()
    letters = {}
    ops = dict(con.execute("SELECT seq, op FROM record").fetchall())
    verdicts = {
        good[seq]: (ops[seq] if outcome == "accepted" else outcome)
        for seq, outcome in con.execute("SELECT seq, outcome FROM outcome").fetchall()
    }
    for number, sent in enumerate(workload.records):
        outcome = sent.reason or verdicts[number]
        outcomes["accepted" if outcome == "attempt" else outcome] += 1
        if outcome not in ("attempt", "void", "regrade", "duplicate") and number in places:
            letters[places[number]] = (outcome, sent.key, sent.value)
    return ExpectedAll(
        input_faults=faults,
        rows=rows,
        outcomes=dict(outcomes),
        dead_letters=letters,
        learners=_keyed(con, "SELECT user_id, attempts, correct, latest_ms FROM learner_total", 1),
        learner_topics={
            (user, topic): n
            for user, topic, n in con.execute(
                "SELECT user_id, topic_id, count(*) FILTER (valid) FROM attempt "
                "WHERE topic_id IS NOT NULL GROUP BY ALL"
            ).fetchall()
        },
        topics=_keyed(con, "SELECT topic_id, attempts, correct, learners FROM topic_total", 1),
        items=_keyed(con, "SELECT item_id, attempts, correct FROM item_total", 1),
        thetas=_thetas(settings, log) if fixed_params else None,
    )


def _keyed(con: Any, query: str, key_columns: int) -> dict[Any, Any]:
    assert key_columns == 1
    return {key: tuple(values) for key, *values in con.execute(query).fetchall()}


def _read_log(settings: Settings) -> dict[int, list[LogRecord]]:
    log: dict[int, list[LogRecord]] = {number: [] for number in range(settings.partitions)}

    def take(records: list[Record]) -> None:
        for r in records:
            log[r.partition()].append(
                LogRecord(r.partition(), r.offset(), r.timestamp()[1], r.key(), r.value())
            )

    read_whole(settings, {attempts_topic.name: take})
    return log


def _places(
    workload: Workload, log: dict[int, list[LogRecord]]
) -> tuple[dict[int, tuple[int, int]], list[str]]:
    """Find every record in the log: index -> (partition, offset), and what is amiss.

    The log must hold each partition's records once, in the order they were sent.
    """
    partition_of = {r.key: r.partition for records in log.values() for r in records if r.key}
    sent: dict[int, list[int]] = defaultdict(list)
    faults = []
    for number, record in enumerate(workload.records):
        partition = partition_of.get(record.key) if record.key else record.partition
        if partition is None:
            faults.append(f"record {number} of key {record.key!r} is not in the log")
        else:
            sent[partition].append(number)
    places = {}
    for partition, records in log.items():
        numbers = sent[partition]
        if len(numbers) != len(records):
            faults.append(
                f"partition {partition} holds {len(records)} records, {len(numbers)} were sent"
            )
        for number, found in zip(numbers, records, strict=False):
            wanted = workload.records[number]
            if (wanted.key, wanted.value) != (found.key, found.value):
                faults.append(f"partition {partition} offset {found.offset} is not record {number}")
                break
            places[number] = (partition, found.offset)
    return places, faults


def _thetas(settings: Settings, log: dict[int, list[LogRecord]]) -> dict[str, Theta]:
    """Fold each partition in one go, in this process."""
    params = ParamsStore()

    def take(records: list[Record]) -> None:
        for record in records:
            params.add(record.key(), record.value())

    read_whole(settings, {item_params_topic.name: take})
    thetas = {}
    for number, records in log.items():
        state = PartitionState(number, settings.lateness_days, params)
        for start in range(0, len(records), _AT_ONCE):
            state.fold(records[start : start + _AT_ONCE])
        for user_id in {r.key.decode("utf-8", "replace") for r in records if r.key}:
            learner = state.learner(user_id)
            if learner is None:
                continue  # nothing of this key was counted
            thetas[user_id] = Theta(
                learner.g,
                learner.vg**0.5,
                {t.topic_id: (t.theta, t.se) for t in topic_thetas(learner)},
            )
    return thetas
