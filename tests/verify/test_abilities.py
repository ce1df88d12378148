"""Expected abilities are those that the engine publishes, and a wrong one is found."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import orjson
import pytest

from schemas.calibration import MANIFEST_KEY, ItemParamsRecord, ParamsManifest
from schemas.codec import decode, encode
from schemas.outputs import FeatureUpdate, KpiUpdate, ThetaUpdate
from stream.domain.practice import Weights
from stream.engine.params import ParamsStore
from stream.engine.state import PartitionState
from stream.sources.simulate import SchoolConfig, simulate
from stream.verify.abilities import InForce, ItemCurve
from stream.verify.compare import compare_loaded
from stream.verify.recompute import recompute
from tests.engine.events import INGEST_MS, FakeRecord, flushed, unpacked

CONFIG = SchoolConfig(
    learners=25,
    items=30,
    topics=3,
    attempts=3000,
    days=70,
    anchors=0,
    share_duplicates=0.03,
    share_late=0.08,
    share_void=0.002,
    share_regrade=0.002,
    share_null_topic=0.1,
    share_null_time=0.2,
)
TARGET = 0.3
EPOCH = dt.date(1970, 1, 1)


def in_force(weighted: bool) -> tuple[InForce, ParamsStore]:
    """A version that knows most items, for the recomputation and for the engine."""
    weights = Weights(*(0.02 * (-1) ** n * (n % 5) for n in range(18))) if weighted else None
    items = simulate(CONFIG).truth()["items"][:-5]
    recalls = {item["item_id"]: 0.1 * (n % 7) - 0.3 for n, item in enumerate(items)}
    store = ParamsStore()
    for item in items:
        name = item["item_id"]
        record = ItemParamsRecord(name, item["a"], item["b"], 0.1, 0.2, "v1", recall=recalls[name])
        store.add(name.encode(), encode(record))
    manifest = ParamsManifest(
        *("v1", 1, "calibrated", "fixed", len(items), 1.0, 0.0, "reference", 0),  # type: ignore[arg-type]
        weights=weights._asdict() if weights else {},
        filter={"prior_mean": 0.1, "topic_var": 0.2},
    )
    assert store.add(MANIFEST_KEY, encode(manifest))
    curves = {
        i["item_id"]: ItemCurve(i["a"], i["b"], 0.1, 0.2**2, recalls[i["item_id"]]) for i in items
    }
    return InForce("v1", curves, store.weights, store.filter), store


def published(params: ParamsStore) -> dict[str, dict[Any, dict[str, Any]]]:
    """Fold the school with the engine's own state, flushing now and then; return the rows."""
    state = PartitionState(0, 7, params)
    rows: dict[str, dict[Any, dict[str, Any]]] = {
        name: {} for name in ("abilities", "topic_abilities", "features", "weekly")
    }

    def flush(week: int) -> None:
        for message in unpacked(flushed(state, week, target=TARGET).messages):
            take(message.topic, message.value)

    def take(topic: str, value: bytes | None) -> None:
        if topic == "theta-updates":
            u = decode(value or b"", ThetaUpdate)
            version = {"params_version": u.params_version}
            rows["abilities"][u.user_id] = {
                "user_id": u.user_id, "theta": u.theta, "se": u.se, **version
            }  # fmt: skip
            for t in u.topics:
                rows["topic_abilities"][u.user_id, t.topic_id] = {
                    "user_id": u.user_id, "topic_id": t.topic_id, "theta": t.theta, "se": t.se,
                    **version,
                }  # fmt: skip
        elif topic == "feature-updates":
            f = decode(value or b"", FeatureUpdate)
            for row in f.rows:
                fields = {name: getattr(row, name) for name in row.__struct_fields__}
                fields["date"] = EPOCH + dt.timedelta(days=row.date)
                if row.theta_estimate is not None:
                    fields["theta_estimate"] = round(row.theta_estimate, 3)
                rows["features"][f.user_id, row.topic_id, row.date] = {
                    "user_id": f.user_id, **fields
                }  # fmt: skip
        elif topic == "kpi-updates":
            k = decode(value or b"", KpiUpdate)
            for week in k.rows:
                rows["weekly"][k.user_id, week.week_start] = {
                    "user_id": k.user_id,
                    "week_start": EPOCH + dt.timedelta(days=week.week_start),
                    **week.kpis,
                    "missing_keys": "",
                }

    for offset, event in enumerate(simulate(CONFIG).attempts()):
        value = orjson.dumps(event if isinstance(event, dict) else dataclasses.asdict(event))
        state.fold([FakeRecord(orjson.loads(value)["user_id"].encode(), value, offset, INGEST_MS)])
        if offset % 700 == 699:
            flush(state.position.stream_week)
    flush(state.position.stream_week)
    return rows


TYPES = {
    "user_id": "VARCHAR", "topic_id": "VARCHAR", "params_version": "VARCHAR",
    "missing_keys": "VARCHAR", "date": "DATE", "week_start": "DATE",
}  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "weighted"])
def school(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("school") / "school.csv"
    simulate(CONFIG).write_csv(path)
    params, store = in_force(request.param)
    rows = published(store)
    with recompute(path, params=params, target=TARGET) as expected:
        con = expected.con
        for name, found in rows.items():
            columns = list(next(iter(found.values())))
            types = ", ".join(f'"{c}" {TYPES.get(c, "DOUBLE")}' for c in columns)
            con.execute(f"CREATE TABLE kept_{name} ({types})")
            places = ", ".join("?" for _ in columns)
            con.executemany(
                f"INSERT INTO kept_{name} VALUES ({places})",
                [list(row.values()) for row in found.values()],
            )
        yield expected


@pytest.fixture
def expected(school):
    for name in ("abilities", "topic_abilities", "features", "weekly"):
        school.con.execute(f"CREATE OR REPLACE TABLE actual_{name} AS FROM kept_{name}")
    for name in ("topic", "item"):
        school.con.execute(f"CREATE OR REPLACE TABLE actual_{name}s AS FROM {name}_total")
    return school


def test_what_the_engine_publishes_is_what_is_expected(expected):
    report = compare_loaded(expected)
    assert report.mismatches == []
    assert report.ok
    compared = {line.table: line.compared_rows for line in report.tables}
    assert compared["mirt_ability (live)"] == 25 - report.learners_left_out > 15
    assert compared["student_topic_theta"] > 40
    assert compared["features_topic_daily"] > 300
    by_theta = "followed AND n_recent >= 5 AND improvement_accuracy IS NOT NULL"
    late = "EXISTS (FROM attempt b WHERE b.user_id = a.user_id AND b.seq < a.seq AND b.day > a.day)"
    for met in (f"features WHERE {by_theta}", f"attempt a WHERE {late}"):
        assert expected.con.execute(f"SELECT count(*) FROM {met}").fetchone()[0] > 20


@pytest.mark.parametrize(
    ("table", "column", "change", "where"),
    [
        ("abilities", "theta", "theta + 1e-8", "ability"),
        ("abilities", "se", "se * (1 + 1e-7)", "ability"),
        ("abilities", "params_version", "'v0'", "ability"),
        ("topic_abilities", "theta", "theta - 1e-8", "topic_ability"),
        ("features", "theta_estimate", "theta_estimate + .002", "features"),
        ("features", "theta_estimate", "NULL", "features"),
        ("features", "theta_sd", "theta_sd + 2e-6", "features"),
        ("features", "improvement", "improvement + 2e-6", "features"),
        ("weekly", "P", "P + 2e-6", "weekly"),
        ("weekly", "P", "NULL", "weekly"),
        ("weekly", "I_t", "I_t - 2e-6", "weekly"),
    ],
)
def test_one_wrong_ability_is_found_and_named(expected, table, column, change, where):
    key = {"ability": "user_id", "topic_ability": "user_id, topic_id"}.get(where) or (
        "user_id, topic_id, date" if where == "features" else "user_id, week_start"
    )
    condition = (
        "user_id NOT IN (FROM corrected)"
        if "ability" in where
        else "followed AND n_recent >= 5 AND improvement_theta IS NOT NULL"
    )
    changed = expected.con.execute(
        f"UPDATE actual_{table} SET {column} = {change} WHERE ({key}) ="
        f" (SELECT ({key}) FROM {where} WHERE {condition} ORDER BY {key} LIMIT 1)"
    ).fetchone()
    assert changed == (1,)
    report = compare_loaded(expected)
    assert [(found.kind, found.column) for found in report.mismatches] == [("differs", column)]


def test_a_lost_ability_is_missing(expected):
    expected.con.execute("DELETE FROM actual_topic_abilities WHERE user_id NOT IN (FROM corrected)")
    (line,) = [one for one in compare_loaded(expected).tables if one.missing]
    assert (line.table, line.missing) == ("student_topic_theta", line.expected_rows)
