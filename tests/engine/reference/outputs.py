"""From a learner's row to what is published about it: abilities, daily rows, weekly rows."""

from __future__ import annotations

from math import sqrt

from schemas.outputs import FeatureRow, KpiRow
from stream.domain import kpi
from stream.domain.improvement import (
    MIN_RECENT_FOR_THETA,
    accuracy_improvement,
    theta_improvement,
)
from stream.domain.window import (
    DAY_MS,
    KPI_WEEKS_AFTER_LAST,
    RECENT_DAYS,
    WINDOW_DAYS,
    day_of,
    sunday_of,
    week_of,
)
from stream.engine.day import CORRECT, HINT, Day
from stream.engine.flush import Indicators
from tests.engine.reference.learner import Learner

__all__ = ["changed_feature_rows", "changed_weeks", "kpi_row"]


_KPIS = ("I_t", "I_t_accuracy", "E_t", "R_t", "A_t", "P", "S")


def _improvement(
    learner: Learner, as_of: int, indicators: Indicators
) -> tuple[float | None, float | None]:
    """Return (I_t, I_t in its accuracy form) at a day."""
    recent_from, prev_from = as_of - RECENT_DAYS + 1, as_of - WINDOW_DAYS + 1
    n_prev = k_prev = n_recent = k_recent = 0
    last_prev: Day | None = None
    last_recent: Day | None = None
    for number, day in learner.days.items():
        if not day.attempts or not prev_from <= number <= as_of:
            continue
        if number >= recent_from:
            n_recent += day.attempts
            k_recent += day.correct
            if last_recent is None or number > last_recent.day:
                last_recent = day
        else:
            n_prev += day.attempts
            k_prev += day.correct
            if last_prev is None or number > last_prev.day:
                last_prev = day
    if last_prev is None or last_recent is None:
        return None, None
    accuracy = accuracy_improvement(n_prev, k_prev, n_recent, k_recent)
    if not indicators.use_theta or n_recent < MIN_RECENT_FOR_THETA:
        return accuracy, accuracy
    theta = theta_improvement(
        last_prev.theta, last_recent.theta, sqrt(last_recent.variance), n_recent
    )
    return theta, accuracy


def changed_feature_rows(learner: Learner, indicators: Indicators) -> list[FeatureRow]:
    """Return the rows of features_topic_daily that the changed days affect.

    A change on a day enters the windows of the 27 days after it, too.
    """
    affected = {
        number
        for number in learner.days
        if any(changed <= number < changed + WINDOW_DAYS for changed in learner.changed_days)
    }
    rows: list[FeatureRow] = []
    for number in sorted(affected):
        rows += _feature_rows(learner, learner.days[number], indicators)
    return rows


def _feature_rows(learner: Learner, day: Day, indicators: Indicators) -> list[FeatureRow]:
    improvement, accuracy = _improvement(learner, day.day, indicators)
    by_topic: dict[int, list[tuple[int, int, int, int, int]]] = {t: [] for t in day.topics}
    for row in day.valid_rows():
        if row[3] in by_topic:
            by_topic[row[3]].append(row)
    result = []
    for index, attempts in by_topic.items():
        times = [row[1] for row in attempts if row[1] >= 0]
        theta, variance = day.topics[index]
        result.append(
            FeatureRow(
                topic_id=learner.topics[index].topic_id,
                date=day.day,
                attempts=len(attempts),
                correct=sum(row[4] & CORRECT for row in attempts),
                hints=sum(row[4] & HINT for row in attempts) // HINT,
                avg_time_ms=sum(times) / len(times) if times else None,
                rt_median=kpi.median(times),
                theta_estimate=theta + learner.shift if indicators.include_theta else None,
                theta_sd=sqrt(variance) if indicators.include_theta else None,
                improvement=improvement,
                improvement_accuracy=accuracy,
                last_seen_at=day.day * DAY_MS + max(r[0] for r in attempts) if attempts else None,
            )
        )
    return result


def changed_weeks(learner: Learner, stream_week: int) -> list[int]:
    """Return the weeks whose rows the changes since the last flush affect, ascending.

    Parameters
    ----------
    learner
        With ``changed_days`` and ``published_latest_ms`` of the last flush.
    stream_week
        Latest week of the stream (a Monday): no row lies beyond.
    """
    first = week_of(learner.first_day)
    latest = week_of(day_of(learner.latest_ms))
    end = min(latest + 7 * KPI_WEEKS_AFTER_LAST, stream_week)
    weeks: set[int] = set()
    for day in learner.changed_days:
        week = week_of(day)
        weeks.update(range(week, week + 7 * KPI_WEEKS_AFTER_LAST + 1, 7))
    # Weeks that entered the learner's range, idle ones between two attempts included.
    known = learner.published_latest_ms
    published = week_of(day_of(known)) if known else first - 7
    weeks.update(range(published + 7, end + 1, 7))
    return sorted(week for week in weeks if first <= week <= end)


def kpi_row(learner: Learner, week_start: int, indicators: Indicators) -> KpiRow:
    """Return the row of weekly_kpi of a week, computed as of its Sunday."""
    as_of = sunday_of(week_start)
    recent_from = as_of - RECENT_DAYS + 1
    start = as_of - WINDOW_DAYS + 1
    days = sorted(n for n, day in learner.days.items() if start <= n <= as_of and day.attempts)
    if not days:
        return KpiRow(week_start, dict.fromkeys(_KPIS))
    sessions = 0
    right_times: tuple[list[int], list[int]] = ([], [])
    first_miss: dict[int, int] = {}
    last_right: dict[int, int] = {}
    for number in days:
        rows = learner.days[number].valid_rows()
        sessions += kpi.session_count(sorted([row[0] for row in rows])) if len(rows) > 1 else 1
        for time_ms, response_time, item, _, flags in rows:
            moment = number * DAY_MS + time_ms
            if flags & CORRECT:
                if response_time >= 0:
                    right_times[number >= recent_from].append(response_time)
                last_right[item] = max(last_right.get(item, moment), moment)
            else:
                first_miss[item] = min(first_miss.get(item, moment), moment)
    recovered = sum(last_right.get(item, -1) > moment for item, moment in first_miss.items())
    improvement, accuracy = _improvement(learner, as_of, indicators)
    last = learner.days[days[-1]]
    chance = kpi.chance_above_target(
        last.theta + learner.shift, sqrt(last.variance), indicators.target
    )
    return KpiRow(
        week_start,
        {
            "I_t": improvement,
            "I_t_accuracy": accuracy,
            "E_t": kpi.efficiency(kpi.median(right_times[0]), kpi.median(right_times[1])),
            "R_t": kpi.recovery(len(first_miss), recovered),
            "A_t": kpi.engagement(sessions, days),
            "P": chance,
            "S": kpi.stopping_risk(as_of, days, sessions),
        },
    )
