"""What a batch of absolute rows does to a table."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.outputs import ItemPartial, TopicPartial
from stream.errors import DatabaseSchemaError
from stream.settings import Settings
from stream.sinks.consume import read_records
from stream.sinks.features import features_topic_daily, read_features
from stream.sinks.kpi import read_kpis, weekly_kpi
from stream.sinks.theta import theta_reader
from stream.sinks.totals import read_item_partial, read_topic_partial
from stream.sinks.upsert import Batch

from .conftest import feature_row, features, kpis, make_record, theta, write

read_theta = theta_reader(Settings())


def at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)


async def test_every_column_of_a_daily_row_arrives_exactly(tables, database):
    await write(database, read_features, features([feature_row()], at=1_700_000_000_123))
    row = await tables.fetchrow("select * from features_topic_daily")
    assert dict(row) == {
        "user_id": "u1",
        "topic_id": "t1",
        "date": date(2024, 3, 18),
        "attempts": 4,
        "correct": 3,
        "avg_time_ms": 1234.5,
        "hints": 1,
        "theta_estimate": Decimal("0.123"),
        "theta_sd": 0.25,
        "rt_median": 1000.0,
        "improvement": None,
        "last_seen_at": datetime(2024, 3, 18, 0, 1, 1, 1000, tzinfo=UTC),
        "computed_at": at(1_700_000_000_123),
        "improvement_accuracy": -0.125,
        "source_partition": 2,
        "source_offset": 10,
        "params_version": "v1",
    }


async def test_a_theta_update_writes_the_live_row_and_one_a_topic(tables, database):
    await write(database, read_theta, theta("u1", 0.5, at=5000))
    live = await tables.fetchrow("select * from mirt_ability")
    assert dict(live) == {
        "user_id": "u1",
        "version": "live",
        "theta": 0.5,
        "se": 0.4,
        "model": "2PL",
        "fitted_at": at(5000),
        "last_attempt_at": at(900),
        "source_partition": 2,
        "source_offset": 10,
        "params_version": "v1",
    }
    topic = await tables.fetchrow("select * from student_topic_theta")
    assert dict(topic) == {
        "user_id": "u1",
        "topic_id": "t1",
        "theta": 1.5,
        "se": 0.6,
        "model": "2PL",
        "version": "v1",
        "fitted_at": at(5000),
        "last_attempt_at": at(800),
        "source_partition": 2,
        "source_offset": 10,
        "params_version": "v1",
    }


@pytest.mark.parametrize(
    ("second", "wins"),
    [
        ({"offset": 11, "at": 1000}, True),
        ({"offset": 11, "at": 1}, True),
        ({"offset": 9, "at": 9000}, False),
        # Nothing was folded in between, but the ability was computed again.
        ({"offset": 10, "at": 1001}, True),
        ({"offset": 10, "at": 1000}, True),
        ({"offset": 10, "at": 999}, False),
    ],
)
@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_an_older_row_never_overwrites_a_newer_one(
    tables, database, second, wins, in_one_batch
):
    updates = [theta(value=0.1, offset=10, at=1000), theta(value=0.2, **second)]
    if in_one_batch:
        await write(database, read_theta, *updates)
    else:
        for update in updates:
            await write(database, read_theta, update)
    assert await tables.fetchval("select theta from mirt_ability") == (0.2 if wins else 0.1)
    assert await tables.fetchval("select theta from student_topic_theta") == (1.2 if wins else 1.1)


async def test_a_row_from_another_partition_wins_only_if_computed_later(tables, database):
    await write(database, read_theta, theta(value=0.1, offset=500, at=1000))
    moved = theta(value=0.2, offset=3, at=999)
    moved.source_partition = 7
    await write(database, read_theta, moved)
    assert await tables.fetchval("select theta from mirt_ability") == 0.1
    moved.computed_at = 1001
    await write(database, read_theta, moved)
    assert await tables.fetchval("select theta from mirt_ability") == 0.2


async def test_a_row_of_somebody_elses_is_overwritten(tables, database):
    await tables.execute(
        "insert into mirt_ability (user_id, version, theta, fitted_at) "
        "values ('u1', 'live', 9, '2099-01-01')"
    )
    await write(database, read_theta, theta(value=0.1))
    assert await tables.fetchval("select theta from mirt_ability") == 0.1


async def test_the_same_batch_twice_changes_nothing(tables, database):
    updates = [features([feature_row(d) for d in range(19_800, 19_830)], f"u{i}") for i in range(9)]
    await write(database, read_features, *updates)
    query = "select * from features_topic_daily order by user_id, date"
    before = await tables.fetch(query)
    await write(database, read_features, *updates)
    assert await tables.fetch(query) == before
    assert len(before) == 270


async def test_kpis_are_merged_and_unknown_keys_stay(tables, database):
    await tables.execute(
        """insert into weekly_kpi (user_id, week_start, kpis, created_at)
        values ('u1', '2024-03-18', '{"growth_slope": 0.25, "I_t": 9}', '2024-01-01')"""
    )
    await write(database, read_kpis, kpis({"I_t": 0.5, "E_t": None}, at=7000))
    row = await tables.fetchrow("select * from weekly_kpi")
    assert json.loads(row["kpis"]) == {"growth_slope": 0.25, "I_t": 0.5, "E_t": None}
    assert row["created_at"] == datetime(2024, 1, 1, tzinfo=UTC)
    assert row["updated_at"] == at(7000)


async def test_kpis_of_one_batch_are_merged_as_the_database_would(tables, database):
    first, second = kpis({"I_t": 1, "S": 2}, at=1000), kpis({"I_t": 3}, offset=11, at=2000)
    await write(database, read_kpis, first, second)
    row = await tables.fetchrow("select * from weekly_kpi")
    assert json.loads(row["kpis"]) == {"I_t": 3, "S": 2}
    assert (row["created_at"], row["updated_at"]) == (at(1000), at(2000))


async def test_totals_are_summed_over_absolute_rows(tables, database):
    await write(
        database,
        read_topic_partial,
        TopicPartial("t", 0, 5, 3, 2, 100),
        TopicPartial("t", 0, 9, 4, 2, 200),
        TopicPartial("t", 1, 1, 1, 1, 50),
        TopicPartial("t", 0, 5, 3, 2, 100),
    )
    await write(database, read_item_partial, ItemPartial("i", 0, 5, 3, 2.5, 1.25, 100))
    assert tuple(await tables.fetchrow("select * from topic_totals")) == ("t", 10, 5, 3)
    assert tuple(await tables.fetchrow("select * from item_totals")) == ("i", 5, 3, 2.5, 1.25)


async def test_users_columns_of_other_types_are_served(database_url, database):
    import asyncpg

    from stream.migrate import migrate

    connection = await asyncpg.connect(database_url)
    await connection.execute(
        """
        create table features_topic_daily (
            user_id uuid, topic_id varchar(8), date date, attempts smallint, correct smallint,
            avg_time_ms numeric(10, 1), hints int, theta_estimate numeric(6,3), theta_sd real,
            rt_median int, improvement real, last_seen_at timestamp, computed_at timestamp,
            primary key (user_id, topic_id, date));
        create table weekly_kpi (user_id bigint, week_start date, kpis json not null,
            created_at timestamptz, updated_at timestamptz, primary key (user_id, week_start));
        insert into weekly_kpi values (42, '2024-03-18', '{"mine": 1}');
        """
    )
    await migrate(database_url)
    user = "6f1c1c1e-0000-4000-8000-000000000001"
    await write(database, read_features, features([feature_row()], user))
    await write(database, read_kpis, kpis({"I_t": 0.5}, "42"))
    row = await connection.fetchrow("select * from features_topic_daily")
    assert (str(row["user_id"]), row["rt_median"], row["avg_time_ms"]) == (
        user,
        1000,
        Decimal("1234.5"),
    )
    assert row["last_seen_at"] == datetime(2024, 3, 18, 0, 1, 1, 1000)  # noqa: DTZ001 - no zone
    found = json.loads(await connection.fetchval("select kpis from weekly_kpi"))
    assert found == {"mine": 1, "I_t": 0.5}
    await connection.close()


def test_a_missing_column_is_named():
    types = {column.name: "text" for column in weekly_kpi.all_columns}
    del types["source_offset"]
    with pytest.raises(DatabaseSchemaError, match="weekly_kpi has no column source_offset"):
        weekly_kpi.statement("public", types)


def test_rows_leave_a_batch_in_the_order_of_their_keys():
    batch = read_records(
        [make_record(features([feature_row()], user)) for user in ("b", "c", "a")], read_features
    )
    [(table, rows)] = batch.tables()
    assert table is features_topic_daily
    assert [row.values[0] for row in rows] == ["a", "b", "c"]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_a_batch_keeps_the_newest_row_whatever_the_order(orders):
    batch = Batch()
    for i, (offset, computed) in enumerate(orders):
        batch.add(weekly_kpi, ("u", 1, {"i": i}, computed, computed, 0, offset, "v"), None)
    [(_, [row])] = batch.tables()
    newest = max(range(len(orders)), key=lambda i: (*orders[i], i))
    assert (row.values[2], row.values[6], row.values[4]) == ({"i": newest}, *orders[newest])
