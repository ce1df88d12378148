"""Which records count: the acceptance rules of ``docs/counting-rules.md``, by SQL.

The rules depend on the order of arrival. For nearly all attempts a window function suffices:

- Rule 4 compares with the largest event time of the *accepted* attempts before. The running
  maximum over *all* attempts that pass rules 1 and 2 is the same number: a too late attempt lies
  below the maximum, and a repeated one has the event time of its first copy, which was either
  accepted, and is in the maximum, or too late, and is below it.
- That holds as long as records with the same id agree in op and event time. A learner for whom
  they do not is *tangled*.
- A repeat is a duplicate exactly if its first copy was accepted and is still retained. If the
  first copy was too late, or is not retained any more, the repeat is too late itself, since the
  maximum never falls and the retained days are more than the lateness.

What remains is few: voids and regrades, the attempts they name, and tangled learners whole. They
are settled one by one in the order of arrival (:func:`settle`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import duckdb

__all__ = ["Case", "Verdict", "accept", "settle"]

_DAY_MS = 86_400_000

_CANDIDATE = """
CREATE TEMP TABLE tangled AS
SELECT DISTINCT user_id FROM (
    SELECT user_id, attempt_id
    FROM record
    WHERE refused IS NULL
    GROUP BY user_id, attempt_id
    HAVING count(*) > 1
        AND bool_or(op = 'attempt')
        AND (count(DISTINCT op) > 1 OR min(completed_ms) <> max(completed_ms)));

CREATE TEMP TABLE candidate AS
WITH dated AS (
    SELECT
        *,
        max(completed_ms) FILTER (op = 'attempt') OVER (
            PARTITION BY user_id ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS latest_ms
    FROM record
    WHERE refused IS NULL
),
timed AS (
    SELECT *, coalesce(completed_ms < latest_ms - getvariable('lateness_ms'), false) AS late
    FROM dated
)
SELECT
    *,
    CASE
        WHEN row_number() OVER copies > 1
            AND NOT first_value(late) OVER copies
            AND day >= latest_ms // 86400000 - getvariable('retained_days')
            THEN 'duplicate'
        WHEN late THEN 'too_late'
        ELSE 'accepted'
    END AS outcome
FROM timed
WINDOW copies AS (PARTITION BY user_id, attempt_id ORDER BY seq);

-- Not temporary: a second cursor reads it while verdicts are written.
CREATE TABLE unsettled AS
SELECT
    seq, user_id, attempt_id, item_id, op, supersedes, correct, completed_ms,
    CASE WHEN user_id NOT IN (SELECT user_id FROM tangled) THEN latest_ms END AS latest_ms
FROM candidate
WHERE op <> 'attempt'
    OR user_id IN (SELECT user_id FROM tangled)
    OR (user_id, attempt_id) IN (
        SELECT (user_id, supersedes) FROM candidate
        WHERE op <> 'attempt' AND supersedes IS NOT NULL);

CREATE TABLE settled (seq BIGINT, outcome VARCHAR, valid BOOLEAN, correct BOOLEAN);
"""

_ATTEMPT = """
CREATE TABLE outcome AS
SELECT r.seq, coalesce(r.refused, s.outcome, c.outcome) AS outcome
FROM record r LEFT JOIN candidate c USING (seq) LEFT JOIN settled s USING (seq);

CREATE TABLE attempt AS
SELECT
    c.seq, c.user_id, c.item_id, c.topic_id, c.response_time_ms, c.hint_used, c.completed_ms,
    c.day, coalesce(s.correct, c.correct) AS correct, coalesce(s.valid, true) AS valid
FROM candidate c LEFT JOIN settled s USING (seq)
WHERE c.op = 'attempt' AND coalesce(s.outcome, c.outcome) = 'accepted';

DROP TABLE candidate; DROP TABLE tangled; DROP TABLE unsettled; DROP TABLE settled;
"""

_BATCH = 20_000
"""Rows handed from or to the database at once."""


class Case(NamedTuple):
    """A record to be settled one by one."""

    seq: int
    user_id: str
    attempt_id: str
    item_id: str
    op: str
    supersedes: str | None
    correct: bool
    completed_ms: int
    latest_ms: int | None
    """The learner's latest event time before, where a window function knows it."""


class Verdict(NamedTuple):
    """What became of a record; ``valid`` and ``correct`` matter for accepted attempts."""

    seq: int
    outcome: str
    valid: bool
    correct: bool


def accept(con: duckdb.DuckDBPyConnection, lateness_days: int) -> None:
    """Apply rules 3 to 8 to table ``record``.

    Creates table ``outcome`` (seq, outcome: accepted, duplicate, or a dead letter's reason) and
    table ``attempt``: the accepted attempts with ``correct`` after regrades, and ``valid``: not
    voided.

    Parameters
    ----------
    con
        Database with table ``record``, made by :func:`stream.verify.loading.load_records`.
    lateness_days
        Days an attempt may lie before its learner's latest; 28 more are retained.
    """
    retained_days = 28 + lateness_days
    con.execute("SET VARIABLE lateness_ms = CAST($n AS BIGINT)", {"n": lateness_days * _DAY_MS})
    con.execute("SET VARIABLE retained_days = CAST($n AS BIGINT)", {"n": retained_days})
    con.execute(_CANDIDATE)
    unsettled = con.cursor().execute("SELECT * FROM unsettled ORDER BY user_id, seq")
    cases = (Case(*row) for row in _rows(unsettled))
    batch: list[Verdict] = []
    for verdict in settle(cases, lateness_days * _DAY_MS, retained_days):
        batch.append(verdict)
        if len(batch) == _BATCH:
            _insert(con, batch)
            batch = []
    _insert(con, batch)
    con.execute(_ATTEMPT)


def settle(cases: Iterable[Case], lateness_ms: int, retained_days: int) -> Iterator[Verdict]:
    """Apply rules 3 to 8 one record at a time.

    Parameters
    ----------
    cases
        Records of one learner after the other, each learner's in the order of arrival.
    lateness_ms, retained_days
        As in the rules.

    Yields
    ------
    Verdict
        One a record, after the learner's last record.
    """
    user: str | None = None
    learner = _Learner(lateness_ms, retained_days)
    for case in cases:
        if case.user_id != user:
            yield from learner.verdicts.values()
            user, learner = case.user_id, _Learner(lateness_ms, retained_days)
        learner.take(case)
    yield from learner.verdicts.values()


class _Learner:
    """What has been accepted of one learner so far."""

    def __init__(self, lateness_ms: int, retained_days: int) -> None:
        self.lateness_ms = lateness_ms
        self.retained_days = retained_days
        self.latest_ms: int | None = None
        self.day_of: dict[str, int] = {}  # accepted record -> day it is kept with
        self.attempts: dict[str, Case] = {}  # accepted attempts
        self.verdicts: dict[int, Verdict] = {}

    def take(self, case: Case) -> None:
        if case.latest_ms is not None:
            self.latest_ms = case.latest_ms
        outcome = self._outcome(case)
        valid = True
        if outcome == "accepted" and case.op == "attempt":
            self.attempts[case.attempt_id] = case
            self.day_of[case.attempt_id] = case.completed_ms // _DAY_MS
            self.latest_ms = max(case.completed_ms, self.latest_ms or 0)
        elif outcome == "accepted" and case.supersedes is not None:
            self.day_of[case.attempt_id] = self.day_of[case.supersedes]
            self.attempts.pop(case.attempt_id, None)  # an id used before the retained days
            named = self.verdicts[self.attempts[case.supersedes].seq]
            self.verdicts[named.seq] = (
                named._replace(valid=False)
                if case.op == "void"
                else named._replace(correct=case.correct)
            )
        self.verdicts[case.seq] = Verdict(case.seq, outcome, valid, case.correct)

    def _outcome(self, case: Case) -> str:
        if self._retained(case.attempt_id):
            return "duplicate"
        if case.op == "attempt":
            late = (
                self.latest_ms is not None and case.completed_ms < self.latest_ms - self.lateness_ms
            )
            return "too_late" if late else "accepted"
        named = case.supersedes
        if named is None or named not in self.attempts or not self._retained(named):
            return "supersedes_unknown"
        if self.attempts[named].item_id != case.item_id:
            return "supersedes_mismatch"
        if not self.verdicts[self.attempts[named].seq].valid:
            return "supersedes_voided"
        return "accepted"

    def _retained(self, record_id: str) -> bool:
        day = self.day_of.get(record_id)
        if day is None or self.latest_ms is None:
            return False
        return day >= self.latest_ms // _DAY_MS - self.retained_days


def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(_BATCH):
        yield from rows


def _insert(con: duckdb.DuckDBPyConnection, verdicts: list[Verdict]) -> None:
    if verdicts:
        seq, outcome, valid, correct = (list(column) for column in zip(*verdicts, strict=True))
        con.execute(
            "INSERT INTO settled SELECT unnest($1), unnest($2), unnest($3), unnest($4)",
            [seq, outcome, valid, correct],
        )
