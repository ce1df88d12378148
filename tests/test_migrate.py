"""The tables: made once, and added to where the users have them already."""

from __future__ import annotations

import asyncio
import json
import re

import asyncpg
import pytest
from typer.testing import CliRunner

from stream.errors import DatabaseUnavailableError, MigrationError
from stream.migrate import Migration, migrate, migrations

TABLES = {
    *("features_topic_daily", "weekly_kpi", "student_topic_theta", "mirt_ability"),
    *("mirt_item_params", "mirt_fit_meta", "question", "growth_glmm_meta", "growth_brms_meta"),
    *("prophet_fit_meta", "prophet_anomalies", "survival_fit_meta", "user_segment"),
    *("segment_meta", "item_calibration", "drift_alerts"),
}
NAMES = [migration.name for migration in migrations()]


async def columns_of(connection: asyncpg.Connection, schema: str = "public") -> dict[str, set[str]]:
    rows = await connection.fetch(
        "select table_name, column_name from information_schema.columns where table_schema = $1",
        schema,
    )
    found: dict[str, set[str]] = {}
    for table, column in rows:
        found.setdefault(table, set()).add(column)
    return found


async def test_an_empty_database_gets_every_table_with_the_source_columns(database_url):
    assert await migrate(database_url) == NAMES
    connection = await asyncpg.connect(database_url)
    found = await columns_of(connection)
    await connection.close()
    assert set(found) >= TABLES | {"topic_partials", "item_partials", "sink_rejects"}
    source = {"source_partition", "source_offset", "params_version"}
    assert {table for table in TABLES if not source <= found[table]} == set()
    assert found["topic_totals"] == {"topic_id", "attempts", "correct", "learners"}
    assert "improvement_accuracy" in found["features_topic_daily"]


async def test_a_second_run_applies_nothing(database_url):
    await migrate(database_url)
    assert await migrate(database_url) == []


async def test_two_starters_at_once_apply_each_file_once(database_url):
    both = await asyncio.gather(migrate(database_url), migrate(database_url))
    assert sorted(both[0] + both[1]) == NAMES


async def test_a_shadow_schema_with_an_odd_name_is_made_beside_public(database_url):
    await migrate(database_url, 'Shadow "1"')
    connection = await asyncpg.connect(database_url)
    assert set(await columns_of(connection, 'Shadow "1"')) >= TABLES
    assert await columns_of(connection, "public") == {}
    await connection.close()


async def test_users_tables_keep_their_rows_and_gain_what_the_sinks_need(database_url):
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        """
        create table features_topic_daily (
            user_id bigint, topic_id varchar(40), date date, attempts int, correct int,
            avg_time_ms numeric, hints int, theta_estimate numeric(6,3), theta_sd real,
            rt_median numeric, improvement real, last_seen_at timestamp, computed_at timestamp,
            primary key (user_id, topic_id, date));
        insert into features_topic_daily values
            (7, 'fractions', '2024-03-01', 4, 3, 1200.5, 1, .25, .4, 1100, .1, now(), now());
        -- made without a key
        create table weekly_kpi (user_id uuid not null, week_start date not null, kpis json,
            created_at timestamptz, updated_at timestamptz);
        insert into weekly_kpi values
            ('6f1c1c1e-0000-4000-8000-000000000001', '2024-03-04', '{"mine": 1}');
        create table question (id bigint primary key, stem text not null, meta jsonb);
        insert into question values (1, '1 + 1 = ?', '{"tags": ["anchor"]}');
        """
    )
    before = [tuple(row) for row in await connection.fetch("select * from features_topic_daily")]
    await migrate(database_url)
    after = await connection.fetch("select * from features_topic_daily")
    assert [tuple(row)[:13] for row in after] == before
    assert {key: after[0][key] for key in list(after[0].keys())[13:]} == dict.fromkeys(
        ("improvement_accuracy", "source_partition", "source_offset", "params_version")
    )
    assert await connection.fetchval("select kpis::text from weekly_kpi") == '{"mine": 1}'
    assert await connection.fetchval("select stem from question") == "1 + 1 = ?"
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("insert into weekly_kpi select * from weekly_kpi")
    # A table that has its key gets no second index for it.
    indexes = await connection.fetch(
        "select indexdef from pg_indexes where tablename = 'features_topic_daily'"
    )
    assert len(indexes) == 1
    await connection.close()


async def test_a_table_whose_key_repeats_is_refused_and_left_as_it_was(database_url):
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        """
        create table weekly_kpi (user_id text not null, week_start date not null, kpis jsonb,
            created_at timestamptz, updated_at timestamptz);
        insert into weekly_kpi values ('u', '2024-03-04'), ('u', '2024-03-04');
        """
    )
    with pytest.raises(MigrationError, match=r"0002.*weekly_kpi.*repeat its key"):
        await migrate(database_url)
    assert len((await columns_of(connection))["weekly_kpi"]) == 5
    await connection.execute(
        "delete from weekly_kpi where ctid = (select min(ctid) from weekly_kpi)"
    )
    assert await migrate(database_url) == NAMES[1:]
    await connection.close()


async def test_totals_are_the_sums_over_the_partitions(database_url):
    await migrate(database_url)
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "insert into topic_partials values ('t', 0, 5, 3, 2, 9), ('t', 1, 7, 1, 4, 9)"
    )
    assert tuple(await connection.fetchrow("select * from topic_totals")) == ("t", 12, 4, 6)
    await connection.close()


async def test_a_database_that_is_away_is_named_without_its_password(unused_tcp_port):
    url = f"postgresql://me:secret@127.0.0.1:{unused_tcp_port}/school"
    with pytest.raises(DatabaseUnavailableError) as caught:
        await migrate(url)
    assert f"127.0.0.1:{unused_tcp_port}/school" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.retriable


async def test_a_wrong_password_says_what_to_check(database_url):
    wrong = re.sub(r":[^:@/]+@", ":wrong@", database_url)
    with pytest.raises(DatabaseUnavailableError, match="user and password"):
        await migrate(wrong)


def test_files_are_numbered_from_one_without_a_gap():
    assert [int(name[:4]) for name in NAMES] == list(range(1, len(NAMES) + 1))


def test_no_file_drops_or_rewrites_anything():
    destructive = re.compile(r"\b(drop|truncate|delete|update|rename|alter column)\b")
    code = {m.name: re.sub(r"--.*", "", m.sql.lower()) for m in migrations()}
    # "on conflict do update" and the like have no place in a migration either.
    assert {name for name, sql in code.items() if destructive.search(sql)} == set()


async def test_a_file_that_fails_changes_nothing_and_the_ones_before_it_stay(
    database_url, monkeypatch
):
    broken = Migration("9999_broken.sql", "create table half (id int); select 1 / 0;")
    monkeypatch.setattr("stream.migrate.migrations", lambda: [*migrations(), broken])
    with pytest.raises(MigrationError, match=r"9999_broken\.sql.*division by zero"):
        await migrate(database_url)
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select to_regclass('half')") is None
    assert await connection.fetchval("select count(*) from thetastream_migrations") == len(NAMES)
    await connection.close()


def test_the_command_says_what_it_applied(database_url, monkeypatch):
    import typer

    from stream.cli.migrate import migrate as command

    monkeypatch.setenv("DATABASE_URL", database_url)
    app = typer.Typer()
    app.command()(command)
    first = CliRunner().invoke(app, ["--json", "--schema", "shadow"], catch_exceptions=False)
    assert json.loads(first.stdout) == {"schema": "shadow", "applied": NAMES}
    second = CliRunner().invoke(app, ["--schema", "shadow"], catch_exceptions=False)
    assert "nothing to do" in second.stdout
