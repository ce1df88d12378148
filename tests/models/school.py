"""A small school in the tables that models are fitted on."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import asyncpg

FIRST = date(2024, 1, 1)
"""A Monday, the first day with attempts."""
WEEKS = 10
LEARNERS = 12
AS_OF = FIRST + timedelta(weeks=WEEKS)


def rows_of(learner: int) -> list[tuple[Any, ...]]:
    """Return a learner's daily rows: two days a week; the last third stops after half the weeks."""
    weeks = WEEKS // 2 if learner >= 2 * LEARNERS // 3 else WEEKS
    return [
        (
            f"u{learner:02}",
            f"t{(week + learner) % 2}",
            FIRST + timedelta(weeks=week, days=day),
            4,
            1 + (week + learner + day) % 4,
            round(0.1 * week + 0.05 * learner, 3),
        )
        for week in range(weeks)
        for day in (learner % 3, 4)
    ]


async def fill(connection: asyncpg.Connection) -> None:
    """Write the school's rows, as the sinks would have."""
    for learner in range(LEARNERS):
        await connection.executemany(
            "insert into features_topic_daily (user_id, topic_id, date, attempts, correct, "
            "theta_estimate) values ($1, $2, $3, $4, $5, $6)",
            rows_of(learner),
        )
    await connection.execute(
        """
        insert into weekly_kpi (user_id, week_start, kpis, source_partition, source_offset)
        select
            'u' || lpad(u::text, 2, '0'),
            $1::date + 7 * w,
            jsonb_build_object(
                'I_t', case when w < 2 then null else 0.01 * w + 0.001 * u end,
                'E_t', case when w < 2 then null else 0.1 end,
                'A_t', 0.5, 'S', 0.2, 'theirs', 7
            ),
            0, 100
        from generate_series(0, $2 - 1) u, generate_series(0, $3 - 1) w
        """,
        *(FIRST, LEARNERS, WEEKS),
    )
