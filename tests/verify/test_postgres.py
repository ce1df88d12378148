"""The whole way: rows in a real PostgreSQL, the command line, its exit codes."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import typer
from typer.testing import CliRunner

from stream.cli.verify import verify
from stream.verify.recompute import expected_rows

pytestmark = pytest.mark.integration

SCHEMA = "verify_test"

DDL = f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
CREATE SCHEMA {SCHEMA};
SET search_path TO {SCHEMA};
CREATE TABLE features_topic_daily (
    user_id text, topic_id text, date date, attempts int, correct int,
    avg_time_ms double precision, hints int, theta_estimate numeric(6, 3),
    theta_sd double precision, rt_median double precision, improvement double precision,
    improvement_accuracy double precision, last_seen_at timestamptz, computed_at timestamptz,
    source_partition int, source_offset bigint, params_version text,
    PRIMARY KEY (user_id, topic_id, date));
CREATE TABLE weekly_kpi (
    user_id text, week_start date, kpis jsonb, created_at timestamptz, updated_at timestamptz,
    source_partition int, source_offset bigint, params_version text,
    PRIMARY KEY (user_id, week_start));
CREATE TABLE topic_totals (topic_id text, attempts bigint, correct bigint, learners bigint);
CREATE TABLE item_totals (item_id text, attempts bigint, correct bigint);
CREATE TABLE mirt_ability (
    user_id text, version text, theta double precision, se double precision,
    params_version text);
CREATE TABLE student_topic_theta (
    user_id text, topic_id text, theta double precision, se double precision,
    params_version text);
"""

app = typer.Typer()
app.command()(verify)


@pytest.fixture
def log(write_log) -> Path:
    odd_ids = {"user_id": 'Zoë, "\\N"', "topic_id": r"\N"}
    return write_log(
        [
            {"at": "2025-03-03 10:00", "correct": 0, "response_time_ms": 4001},
            {"at": "2025-03-03 10:01:02.345", "response_time_ms": 3000},
            {"at": "2025-03-18 10:00", "response_time_ms": 2000},
            {"at": "2025-03-18 10:00:30", "correct": 0, "topic_id": ""},
            {"at": "2025-03-20 10:00", **odd_ids},
        ]
    )


async def execute(url: str, query: str, *rows: tuple[Any, ...]) -> None:
    con = await asyncpg.connect(url)
    try:
        if rows:
            await con.executemany(query, rows)
        else:
            await con.execute(query)
    finally:
        await con.close()


@pytest.fixture
def filled(database_url: str, log: Path) -> str:
    """Tables as a faultless stream would fill them."""
    rows = expected_rows(log)
    asyncio.run(execute(database_url, DDL))
    asyncio.run(
        execute(
            database_url,
            f"INSERT INTO {SCHEMA}.features_topic_daily (user_id, topic_id, date, attempts,"
            " correct, hints, avg_time_ms, rt_median, last_seen_at, improvement_accuracy,"
            " improvement)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
            *(
                (
                    *list(row.values())[:8],
                    dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
                    + dt.timedelta(milliseconds=row["last_seen_at"]),
                    row["improvement_accuracy"],
                )
                for row in rows.features
            ),
        )
    )
    asyncio.run(
        execute(
            database_url,
            f"INSERT INTO {SCHEMA}.weekly_kpi (user_id, week_start, kpis) VALUES ($1, $2, $3)",
            *(
                (
                    row["user_id"],
                    row["week_start"],
                    json.dumps(
                        {key: row[key] for key in ("I_t_accuracy", "E_t", "R_t", "A_t", "S")}
                        | {"I_t": row["I_t_accuracy"], "P": None, "other": "kept"}
                    ),
                )
                for row in rows.weekly
            ),
        )
    )
    for kind, totals in (("topic", rows.topics), ("item", rows.items)):
        values = [tuple(row.values()) for row in totals]
        places = ", ".join(f"${n}" for n, _ in enumerate(values[0], 1))
        asyncio.run(
            execute(database_url, f"INSERT INTO {SCHEMA}.{kind}_totals VALUES ({places})", *values)
        )
    return database_url


def run(url: str, log: Path, *options: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(
        app, [str(log), "--database-url", url, "--schema", SCHEMA, "--json", *options]
    )
    return result.exit_code, json.loads(result.stdout) if result.stdout else {}


def test_faultless_tables_verify(filled, log):
    code, report = run(filled, log)
    assert (code, report["ok"], report["total"]) == (0, True, 0)
    assert [table["compared_rows"] for table in report["tables"]] == [3, 4, 2, 1]
    assert report["outcomes"] == {"accepted": 5}


@pytest.mark.parametrize(
    ("change", "column", "found"),
    [
        (
            "UPDATE features_topic_daily SET last_seen_at = last_seen_at + interval '1 ms'"
            " WHERE date = '2025-03-03'",
            "last_seen_at",
            1_740_996_062_346,
        ),
        (
            "UPDATE weekly_kpi SET kpis = kpis - 'P' WHERE user_id = 'ann'"
            " AND week_start = '2025-03-10'",
            "missing_keys",
            "P",
        ),
        (
            """UPDATE weekly_kpi SET kpis = kpis || '{"A_t": "many"}' WHERE user_id = 'ann'
            AND week_start = '2025-03-10'""",
            "A_t",
            "nan",
        ),
    ],
)
def test_a_changed_value_is_found(filled, log, change, column, found):
    asyncio.run(execute(filled, f"SET search_path TO {SCHEMA}; {change}"))
    code, report = run(filled, log)
    assert (code, report["total"]) == (1, 1)
    assert (report["mismatches"][0]["column"], report["mismatches"][0]["actual"]) == (column, found)


def test_a_mismatch_is_printed_with_its_key(filled, log):
    asyncio.run(execute(filled, f"UPDATE {SCHEMA}.features_topic_daily SET hints = 7"))
    result = CliRunner().invoke(
        app, [str(log), "--database-url", filled, "--schema", SCHEMA, "--max-list", "1"]
    )
    assert result.exit_code == 1
    key = r'Zoë, "\N" \N 2025-03-20'  # comes first in byte order
    assert f"features_topic_daily  {key}  hints: expected 0, found 7" in result.stdout
    assert "2 more" in result.stdout
    assert "3 mismatches" in result.stdout


def test_missing_tables_end_with_what_to_do(filled, log):
    result = CliRunner().invoke(app, [str(log), "--database-url", filled, "--schema", "empty"])
    assert result.exit_code == 2
    assert "apply the migrations" in result.stderr
