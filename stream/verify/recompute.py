"""Recompute from an attempts file alone what the stream must have counted.

Independent of the engine on purpose: DuckDB reads the file and SQL computes the rows; nothing of
``stream.engine`` is used, and of ``stream.domain`` the filter's formulas alone
(:mod:`stream.verify.abilities`), where abilities are asked for.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import duckdb

from stream.errors import VerifyError
from stream.verify.acceptance import accept
from stream.verify.features import expect_features, expect_totals
from stream.verify.loading import load_records
from stream.verify.weekly import expect_weekly

if TYPE_CHECKING:
    from stream.verify.abilities import InForce

__all__ = ["Expected", "ExpectedRows", "expected_rows", "recompute"]

MEMORY_LIMIT = "2GB"
"""What DuckDB may hold in memory; beyond it, it spills to a temporary directory."""


class Expected:
    """A DuckDB database with what the tables must hold; a context manager that removes it.

    Attributes
    ----------
    con
        The connection. Tables: ``features``, ``weekly`` (as in PostgreSQL, with ``last_seen_at``
        in epoch ms and ``n_recent`` added), ``topic_total``, ``item_total``, ``learner_total``,
        ``attempt`` (the accepted ones), ``record`` (all) and ``outcome``.
    with_abilities
        Whether abilities are expected, too: see :func:`stream.verify.abilities.expect_abilities`.
    """

    with_abilities = False

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="thetastream-verify-")
        self.con = duckdb.connect(
            str(Path(self._directory.name, "expected.duckdb")),
            config={"memory_limit": MEMORY_LIMIT, "preserve_insertion_order": True},
        )

    def __enter__(self) -> Expected:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the database."""
        self.con.close()
        self._directory.cleanup()

    @property
    def directory(self) -> Path:
        """A directory of the database's own, for files to load; removed with it."""
        return Path(self._directory.name)

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of records by outcome: accepted, duplicate, or a dead letter's reason."""
        return dict(
            self.con.execute(
                "SELECT outcome, count(*) FROM outcome GROUP BY outcome ORDER BY outcome"
            ).fetchall()
        )

    @property
    def dead_letters(self) -> dict[str, int]:
        """Number of dead letters by reason."""
        return {
            reason: count
            for reason, count in self.outcomes.items()
            if reason not in ("accepted", "duplicate")
        }

    @property
    def duplicates(self) -> int:
        """Number of records dropped as repeats."""
        return self.outcomes.get("duplicate", 0)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Fetch a table's rows.

        Parameters
        ----------
        table
            Name of one of the tables.

        Returns
        -------
        list of dict
            In the order of their first columns.
        """
        cursor = self.con.execute(f"FROM {table} ORDER BY ALL")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@dataclasses.dataclass(frozen=True)
class ExpectedRows:
    """What the tables must hold, as plain rows in the order of their keys."""

    features: list[dict[str, Any]]
    """user_id, topic_id, date, attempts, correct, hints, avg_time_ms, rt_median, last_seen_at
    (epoch ms), improvement_accuracy, n_recent."""
    weekly: list[dict[str, Any]]
    """user_id, week_start, I_t_accuracy, E_t, R_t, A_t, S, n_recent."""
    topics: list[dict[str, Any]]
    """topic_id, attempts, correct, learners."""
    items: list[dict[str, Any]]
    """item_id, attempts, correct."""
    learners: list[dict[str, Any]]
    """user_id, attempts, correct, latest_ms."""
    outcomes: dict[str, int]
    """Records by outcome: accepted, duplicate, or a dead letter's reason."""


def recompute(
    path: Path,
    *,
    lateness_days: int = 7,
    ingest_time_ms: int | None = None,
    params: InForce | None = None,
    target: float = 0.0,
    include_theta: bool = True,
) -> Expected:
    """Recompute everything a file's attempts lead to.

    Parameters
    ----------
    path
        Tidy CSV or JSON lines, ``.gz`` or not; its order is the order of arrival.
    lateness_days
        Days an attempt may lie before its learner's latest, 0..28.
    ingest_time_ms
        When the records reached the stream, epoch ms; an attempt more than 24 h later is too
        early. None: none is.
    params, target, include_theta
        Item parameters in force since before the first attempt: abilities are expected, too. See
        :func:`stream.verify.abilities.expect_abilities`.

    Returns
    -------
    Expected
        To be closed by the caller.

    Raises
    ------
    VerifyError
        The file cannot be used.
    """
    if not 0 <= lateness_days <= 28:
        raise VerifyError(f"lateness_days is {lateness_days}; 0 to 28 are possible")
    expected = Expected()
    try:
        load_records(expected.con, path, ingest_time_ms)
        accept(expected.con, lateness_days)
        expect_features(expected.con)
        expect_weekly(expected.con)
        expect_totals(expected.con)
        if params is not None:
            # Here, so that all the rest is made without a formula of the domain.
            from stream.verify.abilities import expect_abilities

            expect_abilities(expected.con, params, target, include_theta=include_theta)
            expected.with_abilities = True
    except duckdb.Error as error:
        expected.close()
        raise VerifyError(f"recomputing {path} failed: {error}") from error
    except BaseException:
        expected.close()
        raise
    return expected


def expected_rows(
    path: Path, *, lateness_days: int = 7, ingest_time_ms: int | None = None
) -> ExpectedRows:
    """Recompute a small file and give all rows at once.

    Parameters
    ----------
    path, lateness_days, ingest_time_ms
        As :func:`recompute` takes them.

    Returns
    -------
    ExpectedRows
        Plain values.
    """
    with recompute(path, lateness_days=lateness_days, ingest_time_ms=ingest_time_ms) as expected:
        return ExpectedRows(
            features=expected.rows("features"),
            weekly=expected.rows("weekly"),
            topics=expected.rows("topic_total"),
            items=expected.rows("item_total"),
            learners=expected.rows("learner_total"),
            outcomes=expected.outcomes,
        )
