"""PostgreSQL away, tables missing, rows refused: nothing is lost and nothing blocks for ever."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest

from stream.migrate import migrate
from stream.settings import Settings
from stream.sinks import metrics
from stream.sinks.consume import read_records
from stream.sinks.features import features_topic_daily, read_features
from stream.sinks.kpi import read_kpis
from stream.sinks.pool import SinkDatabase
from stream.sinks.theta import theta_reader

from .conftest import feature_row, features, kpis, make_record, theta, write

read_theta = theta_reader(Settings())


async def test_a_write_waits_while_postgresql_is_away_and_then_is_made(
    postgres_stack, tables, database, database_url, caplog
):
    await write(database, read_theta, theta("u1", 0.1))
    waited = metrics.SINK_WAITED_SECONDS._value.get()
    await asyncio.to_thread(postgres_stack.postgres.kill)
    try:
        writing = asyncio.create_task(write(database, read_theta, theta("u2", 0.2)))
        await asyncio.sleep(1)
        assert not writing.done()
        assert metrics.SINK_WAITING._value.get() == 1
    finally:
        await asyncio.to_thread(postgres_stack.postgres.start)
    await asyncio.wait_for(writing, 10)
    connection = await asyncpg.connect(database_url)
    found = await connection.fetch("select user_id, theta from mirt_ability order by user_id")
    await connection.close()
    assert [tuple(row) for row in found] == [("u1", 0.1), ("u2", 0.2)]
    assert metrics.SINK_WAITING._value.get() == 0
    assert metrics.SINK_WAITED_SECONDS._value.get() > waited
    assert any("nothing is lost" in message for message in caplog.messages)


async def test_connections_cut_in_mid_run_are_made_anew(tables, database):
    for i in range(20):
        await write(database, read_theta, theta(f"u{i}"))
        await tables.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where pid <> pg_backend_pid() and datname = current_database()"
        )
    assert await tables.fetchval("select count(*) from mirt_ability") == 20


async def test_missing_tables_are_named_and_waited_for(database_url, database, caplog):
    writing = asyncio.create_task(write(database, read_theta, theta()))
    await asyncio.sleep(0.3)
    assert not writing.done()
    assert "Table public.mirt_ability is missing: run `thetastream migrate`" in caplog.text
    await migrate(database_url)
    await asyncio.wait_for(writing, 10)


async def test_a_table_that_demands_a_column_we_do_not_write_is_waited_for_not_emptied_into_rejects(
    tables, database, caplog
):
    await tables.execute("alter table weekly_kpi add column school text not null")
    writing = asyncio.create_task(write(database, read_kpis, kpis({"I_t": 1})))
    await asyncio.sleep(0.3)
    assert not writing.done()
    assert "demands school" in caplog.text
    await tables.execute("alter table weekly_kpi alter column school set default 'x'")
    await asyncio.wait_for(writing, 10)
    assert await tables.fetchval("select count(*) from sink_rejects") == 0


async def test_a_refused_row_is_set_aside_and_its_neighbours_are_written(tables, database, caplog):
    await tables.execute("alter table features_topic_daily add check (attempts < 100)")
    rejects = metrics.SINK_REJECTS.labels(table="features_topic_daily")._value.get()
    updates = [
        features([feature_row(d) for d in range(19_800, 19_810)], f"u{i}") for i in range(50)
    ]
    updates[17].rows[3].attempts = 1000
    updates[31].rows[9].topic_id = "nul\0"
    updates[40].rows[0].date = 2**40
    await write(database, read_features, *updates)
    assert await tables.fetchval("select count(*) from features_topic_daily") == 497
    found = await tables.fetch("select * from sink_rejects order by kafka_offset")
    assert [(row["kafka_offset"], row["row_key"]) for row in found] == [
        (17, '["u17", "t1", 19803]'),
        (31, '["u31", "nul\\u0000", 19809]'),
        (40, '["u40", "t1", 1099511627776]'),
    ]
    assert {row["table_name"] for row in found} == {"features_topic_daily"}
    assert found[0]["record"] == make_record(updates[17]).value
    assert "violates check constraint" in found[0]["error"]
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 3
    assert metrics.SINK_REJECTS.labels(table="features_topic_daily")._value.get() == rejects + 3
    # A replay sets nothing aside twice.
    await write(database, read_features, *updates)
    assert await tables.fetchval("select count(*) from sink_rejects") == 3


async def test_a_text_too_long_for_a_users_column_is_refused_rather_than_cut_off(tables, database):
    await tables.execute("alter table features_topic_daily alter topic_id type varchar(4)")
    await write(
        database, read_features, features([feature_row(topic="abcd"), feature_row(topic="abcde")])
    )
    assert await tables.fetch("select topic_id from features_topic_daily") == [("abcd",)]
    assert await tables.fetchval("select row_key from sink_rejects") == '["u1", "abcde", 19800]'


async def test_two_texts_that_are_one_number_in_a_users_column_are_one_row(tables, database):
    await tables.execute(
        "alter table features_topic_daily alter user_id type bigint using user_id::bigint"
    )
    await write(
        database,
        read_features,
        features([feature_row(attempts=1)], "7", offset=1),
        features([feature_row(attempts=2)], "07", offset=2),
    )
    found = await tables.fetch("select user_id, attempts from features_topic_daily")
    assert found == [(7, 2)]
    assert await tables.fetchval("select count(*) from sink_rejects") == 0


async def test_a_record_that_is_not_what_it_should_be_is_set_aside_with_its_bytes(tables, database):
    await write(database, read_theta, b"\xff\0 no json", theta("u1"), None)
    assert await tables.fetchval("select count(*) from mirt_ability") == 1
    row = await tables.fetchrow("select * from sink_rejects")
    assert (row["kafka_offset"], row["record"], row["table_name"]) == (0, b"\xff\0 no json", "")


@pytest.mark.parametrize("url", ["nonsense", "postgresql://h:port/x", "postgresql://[::1/x"])
async def test_an_address_that_cannot_be_read_is_never_taken_for_a_rows_fault(url, caplog):
    database = SinkDatabase(Settings(database_url=url), [features_topic_daily])
    batch = read_records([make_record(features([feature_row()]))], read_features)
    writing = asyncio.create_task(database.write(batch))
    await asyncio.sleep(0.2)
    assert not writing.done()
    writing.cancel()
    assert "nothing is lost" in caplog.text
    assert "set aside" not in caplog.text
    await database.on_stop()


async def test_a_started_database_looks_at_its_tables_and_says_when_they_are_ready(
    database_url, monkeypatch
):
    monkeypatch.setattr("stream.sinks.pool.FIRST_WAIT_S", 0.05)
    database = SinkDatabase(Settings(database_url=database_url), [features_topic_daily])
    await database.start()
    await asyncio.sleep(0.2)
    assert not database.ready
    await migrate(database_url)
    for _ in range(100):
        if database.ready:
            break
        await asyncio.sleep(0.05)
    assert database.ready
    await database.stop()
