"""What models are fitted on: as of a day, the same every time."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import asyncpg
import pytest

from stream.errors import DatabaseUnavailableError, EstimationError
from stream.models.kind import Dataset
from stream.models.registry import KINDS
from stream.models.survival import CHURN_DAYS
from stream.models.tables import read_dataset, whole_learners
from stream.settings import Settings
from tests.models.school import AS_OF, FIRST, LEARNERS, WEEKS

pytestmark = pytest.mark.integration


async def read(kind: str, settings: Settings, as_of: date = AS_OF) -> Dataset:
    return await read_dataset(KINDS[kind], settings, as_of)


async def execute(settings: Settings, sql: str) -> None:
    connection = await asyncpg.connect(settings.database_url)
    await connection.execute(sql)
    await connection.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refit_of_an_old_date_is_asked_of_the_same_data(
    school: Settings, kind: str
) -> None:
    as_of = FIRST + timedelta(weeks=9, days=2)
    before = await read(kind, school, as_of)
    # What comes later, and rows written anew in another order, change nothing.
    await execute(
        school,
        """
        insert into features_topic_daily (user_id, topic_id, date, attempts, correct)
            select 'u' || n, 't0', '2024-03-06', 9, 9 from generate_series(10, 99) n
            on conflict do nothing;
        insert into weekly_kpi (user_id, week_start, kpis)
            select 'u' || n, '2024-03-04', '{"I_t": 1, "A_t": 1}' from generate_series(10, 99) n
            on conflict (user_id, week_start) do update set kpis = excluded.kpis;
        create table shuffled as select * from features_topic_daily order by random();
        delete from features_topic_daily;
        insert into features_topic_daily select * from shuffled;
        update weekly_kpi set kpis = kpis || '{"new": 1}' where user_id > 'u05';
        """,
    )
    after = await read(kind, school, as_of)
    assert after == before
    assert (await read(kind, school, date(2024, 3, 18))).body != before.body


async def test_progress_has_the_share_of_right_answers_a_learner_topic_and_week(
    school: Settings,
) -> None:
    dataset = await read("glmm", replace(school, glmm_lookback_weeks=4))
    rows = dataset.body["rows"]
    found = dict(
        zip(
            zip(rows["user_id"], rows["topic_id"], rows["week"], strict=True),
            rows["score"],
            strict=True,
        )
    )
    # Learner 3 in week 6: day 0 has 1 + 9 % 4, day 4 has 1 + 13 % 4 of four right.
    assert found["u03", "t1", 0] == (2 + 2) / 8
    assert {week for _, _, week in found} == {0, 1, 2, 3}
    assert dataset.about["first_week"] == (FIRST + timedelta(weeks=6)).isoformat()
    # Four learners stopped before.
    assert dataset.learners == {f"u{n:02}" for n in range(8)}
    growth = (await read("growth", replace(school, glmm_lookback_weeks=4))).body
    assert growth.pop("max_observations") == school.growth_max_rows
    assert growth == dataset.body


async def test_whole_weeks_alone_enter_growth(school: Settings) -> None:
    in_the_week = FIRST + timedelta(weeks=5, days=3)
    assert await read("glmm", school, in_the_week) == await read(
        "glmm", school, FIRST + timedelta(weeks=5)
    )


async def test_the_forecast_is_of_the_mean_improvement_of_weeks_that_ended(
    school: Settings,
) -> None:
    series = (await read("forecast", school, AS_OF - timedelta(days=1))).body["series"]
    assert series["week_start"][0] == (FIRST + timedelta(weeks=2)).isoformat()
    assert series["week_start"][-1] == (FIRST + timedelta(weeks=8)).isoformat()
    assert series["value"][0] == pytest.approx(0.02 + 0.001 * 5.5)


async def test_a_learner_has_stopped_after_fourteen_whole_days(school: Settings) -> None:
    last = FIRST + timedelta(weeks=WEEKS - 1, days=4)
    for days, events in ((CHURN_DAYS, LEARNERS // 3), (CHURN_DAYS + 1, LEARNERS)):
        rows = (await read("survival", school, last + timedelta(days=days))).body["rows"]
        assert sum(rows["event"]) == events
    # From the first day to the end of the fourteenth without an attempt.
    assert rows["duration_days"][0] == (last - FIRST).days + CHURN_DAYS + 1
    rows = (await read("survival", school)).body["rows"]
    assert (rows["duration_days"][0], rows["event"][0]) == (7 * WEEKS, 0)
    # What describes a learner is of the first week alone.
    assert (rows["attempts_a_week"][0], rows["mean_gap_days"][0]) == (8, 7 / 2)
    assert (rows["accuracy"][0], rows["theta"][0]) == ((1 + 1) / 8, 0.0)
    assert set(rows) == {
        *("user_id", "duration_days", "event"),
        *("accuracy", "attempts_a_week", "mean_gap_days", "theta"),
    }


async def test_theta_is_the_newest_of_each_topic_weighed_by_attempts(school: Settings) -> None:
    rows = (await read("segments", school)).body["rows"]
    # Learner 0: topic t0 in even weeks, the last one 8; t1 in odd ones, the last one 9.
    assert rows["theta"][0] == pytest.approx((0.8 + 0.9) / 2)
    assert rows["attempts"][0] == 80
    assert (rows["A_t"][0], rows["E_t"][0]) == (0.5, 0.1)


async def test_without_thetas_the_column_is_left_out(school: Settings) -> None:
    await execute(school, "update features_topic_daily set theta_estimate = null")
    for kind in ("survival", "segments"):
        assert "theta" not in (await read(kind, school)).body["rows"]


async def test_segments_get_the_centres_of_the_date_before(school: Settings) -> None:
    features = '"accuracy": 0.5, "attempts": 9, "A_t": 0, "E_t": 0, "theta": 0'
    for run, as_of in (("old", "2024-02-26"), ("same", AS_OF.isoformat())):
        await execute(
            school,
            f"insert into segment_meta (run_id, params, as_of) values ('{run}', "
            f'\'{{"centers": [{{"segment": "{run}", "size": 4, {features}}}]}}\', \'{as_of}\')',
        )
    body = (await read("segments", school)).body
    assert [center["segment"] for center in body["previous_centers"]] == ["old"]
    assert "size" not in body["previous_centers"][0]
    # Of other features they tell nothing.
    await execute(school, "update features_topic_daily set theta_estimate = null")
    await execute(school, "update segment_meta set params = params #- '{centers,0,A_t}'")
    assert "previous_centers" not in (await read("segments", school)).body


@pytest.mark.parametrize("kind", KINDS)
async def test_a_date_before_everything_has_nothing_to_fit_and_says_so(
    school: Settings, kind: str
) -> None:
    with pytest.raises(EstimationError, match="2024-01-01"):
        await read(kind, school, FIRST)


async def test_too_few_rows_are_named_with_their_setting(school: Settings) -> None:
    with pytest.raises(EstimationError, match="GLMM_MIN_OBSERVATIONS asks for 10000"):
        await read("glmm", replace(school, glmm_min_observations=10_000))


async def test_a_database_that_is_away_is_told_of(school: Settings) -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1:1/none"):
        await read("glmm", replace(school, database_url="postgresql://127.0.0.1:1/none"))


async def test_a_cap_leaves_whole_learners_out_and_always_the_same(school: Settings) -> None:
    whole = await read("glmm", school)
    capped = await read("glmm", replace(school, model_max_rows=100))
    assert capped.about["rows"] <= 100
    assert capped.about["learners"] + capped.about["learners_left_out"] == LEARNERS
    counts = [ds.body["rows"]["user_id"].count(min(capped.learners)) for ds in (whole, capped)]
    assert counts[0] == counts[1]
    earlier = await read("glmm", replace(school, model_max_rows=60), FIRST + timedelta(weeks=5))
    assert earlier.learners <= capped.learners


def test_a_cap_that_nobody_fits_under_leaves_nothing() -> None:
    assert whole_learners([{"user_id": "u"}] * 3, 2, "x") == ([], 1)


async def test_too_few_weeks_for_a_forecast_are_named_with_their_setting(school: Settings) -> None:
    with pytest.raises(EstimationError, match=r"^8 weeks.*FORECAST_MIN_WEEKS asks for 9$"):
        await read("forecast", replace(school, forecast_min_weeks=9))
