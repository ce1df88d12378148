"""Compare what PostgreSQL holds with what the file alone leads to: every row, every column."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import duckdb

from stream.verify.actual import fetch_actual, load_actual
from stream.verify.recompute import Expected

__all__ = ["Mismatch", "Report", "TableReport", "compare", "compare_loaded"]

TOLERANCE = 1e-9
"""Of floats: relative beyond 1, absolute below. Counts, dates and times are compared exactly."""

SNAPSHOT_TOLERANCE = 1e-6
"""The same of what follows from daily abilities, which are kept in single precision: two
computations that differ in a last bit may be rounded to neighbours."""


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """One difference. A missing or unexpected row has column None."""

    table: str
    kind: str
    """``missing``: expected, not in the database; ``unexpected``: the reverse; ``differs``."""
    key: dict[str, str]
    column: str | None
    expected: Any
    actual: Any


@dataclasses.dataclass(frozen=True)
class TableReport:
    """How one table compared."""

    table: str
    expected_rows: int
    actual_rows: int
    compared_rows: int
    """Rows on both sides, each compared in every column."""
    missing: int
    unexpected: int
    differing: dict[str, int]
    """Number of differing values by column; columns without are left out."""

    @property
    def mismatches(self) -> int:
        """Rows missing or unexpected, and values that differ."""
        return self.missing + self.unexpected + sum(self.differing.values())


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of a verification."""

    tables: list[TableReport]
    mismatches: list[Mismatch]
    """The first ones of each table: missing rows, unexpected rows, then column by column."""
    outcomes: dict[str, int]
    """Records of the file by outcome: accepted, duplicate, or a dead letter's reason."""
    learners_left_out: int = 0
    """Learners whose abilities were not compared though others' were: voids and regrades act from
    when they arrive."""

    @property
    def total(self) -> int:
        """Number of mismatches, listed or not."""
        return sum(table.mismatches for table in self.tables)

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return self.total == 0

    def as_dict(self) -> dict[str, Any]:
        """Give the report as plain values for JSON.

        Returns
        -------
        dict
            ok, total, outcomes, learners_left_out, tables, mismatches.
        """
        return {
            "ok": self.ok,
            "total": self.total,
            "outcomes": self.outcomes,
            "learners_left_out": self.learners_left_out,
            "tables": [
                {**dataclasses.asdict(table), "mismatches": table.mismatches}
                for table in self.tables
            ],
            "mismatches": [
                {
                    **dataclasses.asdict(mismatch),
                    "expected": _plain(mismatch.expected),
                    "actual": _plain(mismatch.actual),
                }
                for mismatch in self.mismatches
            ],
        }


@dataclasses.dataclass(frozen=True)
class _Check:
    """When a value is wrong (an SQL condition on rows e and a), and what to show as expected."""

    column: str
    wrong: str
    expected: str


@dataclasses.dataclass(frozen=True)
class _Table:
    """A comparison: rows of two tables of the database, joined by key.

    Attributes
    ----------
    name
        As reported.
    expected, actual
        The tables.
    key, exact, close
        Columns; those compared exactly, those within the tolerance.
    improvement, accuracy
        The column that is I_t in whichever form applies, and the one in its accuracy form; "":
        it has none.
    others
        What can be said of values that cannot be recomputed.
    learners
        Whether rows are of a learner: the key begins with user_id.
    """

    name: str
    expected: str
    actual: str
    key: tuple[str, ...]
    exact: tuple[str, ...] = ()
    close: tuple[str, ...] = ()
    improvement: str = ""
    accuracy: str = ""
    others: tuple[_Check, ...] = ()
    learners: bool = True


def _far(expected: str, actual: str, tolerance: float = TOLERANCE) -> str:
    # NaN is never near: the scale is of the expected value alone, which is finite.
    return (
        f"coalesce(NOT (abs({expected} - {actual}) <= {tolerance} * greatest(1, abs({expected}))),"
        f" ({expected} IS NULL) <> ({actual} IS NULL))"
    )


_TABLES = (
    _Table(
        name="features_topic_daily",
        expected="features",
        actual="actual_features",
        key=("user_id", "topic_id", "date"),
        exact=("attempts", "correct", "hints", "last_seen_at"),
        close=("avg_time_ms", "rt_median", "improvement_accuracy"),
        improvement="improvement",
        accuracy="improvement_accuracy",
    ),
    _Table(
        name="weekly_kpi",
        expected="weekly",
        actual="actual_weekly",
        key=("user_id", "week_start"),
        close=("I_t_accuracy", "E_t", "R_t", "A_t", "S"),
        improvement="I_t",
        accuracy="I_t_accuracy",
        others=(
            _Check("P", "NOT (a.P BETWEEN 0 AND 1)", "'0..1'"),
            _Check("missing_keys", "a.missing_keys <> ''", "''"),
        ),
    ),
    _Table(
        name="topic_totals",
        expected="topic_total",
        actual="actual_topics",
        key=("topic_id",),
        exact=("attempts", "correct", "learners"),
        learners=False,
    ),
    _Table(
        name="item_totals",
        expected="item_total",
        actual="actual_items",
        key=("item_id",),
        exact=("attempts", "correct"),
        learners=False,
    ),
)

_FAR_ESTIMATE = (
    f"coalesce(NOT (abs(e.theta_estimate - a.theta_estimate) <= 0.0005 + {SNAPSHOT_TOLERANCE}),"
    " (e.theta_estimate IS NULL) <> (a.theta_estimate IS NULL))"
)
"""The column has three decimals."""

_ABILITY_TABLES = (
    dataclasses.replace(
        _TABLES[0],
        others=(
            _Check("theta_estimate", f"e.followed AND {_FAR_ESTIMATE}", "e.theta_estimate"),
            _Check(
                "theta_sd",
                f"e.followed AND {_far('e.theta_sd', 'a.theta_sd', SNAPSHOT_TOLERANCE)}",
                "e.theta_sd",
            ),
        ),
    ),
    dataclasses.replace(
        _TABLES[1],
        others=(
            *_TABLES[1].others,
            _Check("P", f"e.followed AND {_far('e.P', 'a.P', SNAPSHOT_TOLERANCE)}", "e.P"),
        ),
    ),
    *_TABLES[2:],
    _Table(
        name="mirt_ability (live)",
        expected="ability",
        actual="actual_abilities",
        key=("user_id",),
        exact=("params_version",),
        close=("theta", "se"),
    ),
    _Table(
        name="student_topic_theta",
        expected="topic_ability",
        actual="actual_topic_abilities",
        key=("user_id", "topic_id"),
        exact=("params_version",),
        close=("theta", "se"),
    ),
)
"""As above, with what abilities decide, of learners that were followed."""


def compare(
    expected: Expected,
    database_url: str,
    schema: str = "public",
    *,
    use_theta: bool = True,
    only_users_in_file: bool = False,
    max_list: int = 20,
) -> Report:
    """Compare PostgreSQL's tables with the expected rows.

    Parameters
    ----------
    expected
        Made by :func:`stream.verify.recompute.recompute`.
    database_url, schema
        Where the tables are.
    use_theta
        Whether I_t takes its theta form where n_recent >= 5 (METRICS_USE_IRT_THETA). Without
        expected abilities that form is only checked to be there and in -1..1. False: the
        accuracy form everywhere.
    only_users_in_file
        Leave out rows of learners the file does not name, and totals, which all learners make;
        else they are unexpected.
    max_list
        How many mismatches of a table to list.

    Returns
    -------
    Report
        Of every row and column.

    Raises
    ------
    VerifyError
        The tables cannot be read.
    """
    fetch_actual(database_url, schema, expected.directory)
    load_actual(expected.con, expected.directory)
    return compare_loaded(
        expected,
        use_theta=use_theta,
        only_users_in_file=only_users_in_file,
        max_list=max_list,
    )


def compare_loaded(
    expected: Expected,
    *,
    use_theta: bool = True,
    only_users_in_file: bool = False,
    max_list: int = 20,
) -> Report:
    """Compare tables ``actual_*`` of the database with the expected ones.

    Parameters
    ----------
    expected
        With the actual rows loaded by :func:`stream.verify.actual.load_actual`.
    use_theta, only_users_in_file, max_list
        As :func:`compare` takes them.

    Returns
    -------
    Report
        Of every row and column.
    """
    abilities = expected.with_abilities
    tables: tuple[_Table, ...] = _ABILITY_TABLES if abilities else _TABLES
    left_out = 0
    if abilities:
        (left_out,) = expected.con.execute("SELECT count(*) FROM corrected").fetchall()[0]
        for name in ("actual_abilities", "actual_topic_abilities"):
            expected.con.execute(f"DELETE FROM {name} WHERE user_id IN (FROM corrected)")  # noqa: S608 (constants)
    if only_users_in_file:
        # Totals are of all learners together.
        tables = tuple(table for table in tables if table.learners)
        for table in tables:
            expected.con.execute(
                f"DELETE FROM {table.actual} WHERE user_id NOT IN (SELECT user_id FROM record)"  # noqa: S608 (constants)
            )
    reports, mismatches = [], []
    for table in tables:
        checks = _checks(table, use_theta, abilities)
        report, listed = _compare_table(expected.con, table, checks, max_list)
        reports.append(report)
        mismatches.extend(listed)
    return Report(reports, mismatches, expected.outcomes, left_out)


def _checks(table: _Table, use_theta: bool, abilities: bool) -> list[_Check]:
    checks = [
        _Check(column, f"a.{column} IS DISTINCT FROM e.{column}", f"e.{column}")
        for column in table.exact
    ]
    checks += [
        _Check(column, _far(f"e.{column}", f"a.{column}"), f"e.{column}") for column in table.close
    ]
    if table.improvement:
        checks.append(_improvement_check(table, use_theta, abilities))
    return [*checks, *table.others]


def _improvement_check(table: _Table, use_theta: bool, abilities: bool) -> _Check:
    # Where the accuracy form applies, or a window is empty, I_t is known. Its theta form is where
    # the learner was followed; else only its range is.
    known = f"(e.n_recent < 5 OR e.{table.accuracy} IS NULL)" if use_theta else "true"
    followed = "e.followed" if abilities else "false"
    theta = "e.improvement_theta" if abilities else "NULL"
    actual = f"a.{table.improvement}"
    outside = f"coalesce(NOT ({actual} BETWEEN -1 AND 1), true)"
    return _Check(
        table.improvement,
        f"CASE WHEN {known} THEN {_far(f'e.{table.accuracy}', actual)}"
        f" WHEN {followed} THEN {_far(theta, actual, SNAPSHOT_TOLERANCE)} ELSE {outside} END",
        f"CASE WHEN {known} THEN e.{table.accuracy}::VARCHAR"
        f" WHEN {followed} THEN {theta}::VARCHAR ELSE '-1..1' END",
    )


def _compare_table(
    con: duckdb.DuckDBPyConnection, table: _Table, checks: list[_Check], max_list: int
) -> tuple[TableReport, list[Mismatch]]:
    # All SQL here is put together from the constants above.
    on = " AND ".join(f"e.{name} = a.{name}" for name in table.key)
    source = f"FROM {table.expected} e FULL JOIN {table.actual} a ON {on}"
    here, there = (f"{row}.{table.key[0]} IS NOT NULL" for row in "ea")
    both = f"{here} AND {there}"
    counted = [
        here,
        there,
        both,
        *(f"{both} AND ({check.wrong})" for check in checks),
    ]
    counts = con.execute(
        f"SELECT {', '.join(f'count(*) FILTER ({condition})' for condition in counted)} {source}"
    ).fetchone()
    assert counts is not None
    expected_rows, actual_rows, compared, *wrong = counts
    differing: dict[str, int] = {}
    for check, count in zip(checks, wrong, strict=True):
        if count:
            differing[check.column] = differing.get(check.column, 0) + count
    report = TableReport(
        table=table.name,
        expected_rows=expected_rows,
        actual_rows=actual_rows,
        compared_rows=compared,
        missing=expected_rows - compared,
        unexpected=actual_rows - compared,
        differing=differing,
    )

    questions: list[tuple[str, _Check | None, str]] = [
        ("missing", None, f"NOT ({there})"),
        ("unexpected", None, f"NOT ({here})"),
        *(("differs", check, f"{both} AND ({check.wrong})") for check in checks),
    ]
    key = ", ".join(f"coalesce(e.{name}, a.{name})" for name in table.key)
    listed: list[Mismatch] = []
    for kind, about, condition in questions if report.mismatches else ():
        values = f"{about.expected}, a.{about.column}" if about else "NULL, NULL"
        rows = con.execute(
            f"SELECT {key}, {values} {source} WHERE {condition} ORDER BY {key} LIMIT $n",
            {"n": max_list - len(listed)},
        ).fetchall()
        for *keys, expected, actual in rows:
            named = {name: str(value) for name, value in zip(table.key, keys, strict=True)}
            listed.append(
                Mismatch(table.name, kind, named, about.column if about else None, expected, actual)
            )
    return report, listed


def _plain(value: Any) -> Any:
    """Make a database value one that JSON has: NaN and infinities become text."""
    finite = value is None or (isinstance(value, int | float) and math.isfinite(value))
    return value if finite else str(value)
