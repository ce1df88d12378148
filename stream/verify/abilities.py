"""Expected abilities, where the item parameters have been the same all along.

Learners are followed through table ``attempt``, one answer after the other. Which attempts count,
and in what order, is the recomputation's; the formulas of the filter are those of
``stream.domain``, which tests of their own hold against exact posteriors. Nothing of the engine is
used: its packed rows, its compiled loop and its outputs are what this checks.

A void or regrade acts on an ability from the moment it arrives, which the tables do not tell:
learners with an accepted one are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from math import erfc, sqrt
from operator import itemgetter
from typing import Any, NamedTuple

import duckdb

from stream.domain.ability import (
    DEFAULT_FILTER,
    FilterConfig,
    fold,
    fold_global,
    initial_global,
    initial_topic,
    snapshot,
    topic_ability,
)
from stream.domain.memory import ItemMemory
from stream.domain.practice import NO_WEIGHTS, Weights, advantage, next_form, plug_in

__all__ = ["InForce", "ItemCurve", "expect_abilities"]

_AT_ONCE = 20_000
"""Rows handed from or to the database at once."""


class ItemCurve(NamedTuple):
    """What the filter folds an answer with; ``b_variance`` in logits^2, ``recall`` in logits."""

    a: float
    b: float
    c: float
    b_variance: float
    recall: float = 0.0


@dataclass(frozen=True, slots=True)
class InForce:
    """A whole version of the item parameters.

    Attributes
    ----------
    version
        Its name, which every row bears.
    items
        item_id -> its curve; any other item is one of which nothing is known.
    weights, filter
        Weights of practice, memory and form; constants of the filter.
    """

    version: str = "none"
    items: Mapping[str, ItemCurve] = field(default_factory=dict)
    weights: Weights = NO_WEIGHTS
    filter: FilterConfig = DEFAULT_FILTER


_FOLLOWED = """
CREATE OR REPLACE TABLE corrected AS
SELECT DISTINCT user_id FROM record JOIN outcome USING (seq)
WHERE op <> 'attempt' AND outcome.outcome = 'accepted';

CREATE OR REPLACE TABLE ability (user_id VARCHAR, theta DOUBLE, se DOUBLE, params_version VARCHAR);
CREATE OR REPLACE TABLE topic_ability (
    user_id VARCHAR, topic_id VARCHAR, theta DOUBLE, se DOUBLE, params_version VARCHAR);
CREATE OR REPLACE TEMP TABLE day_ability (
    user_id VARCHAR, topic_id VARCHAR, day INTEGER, theta DOUBLE, se DOUBLE);
"""

_ATTEMPTS = """
SELECT user_id, item_id, topic_id, correct, completed_ms, day, response_time_ms
FROM attempt WHERE user_id NOT IN (FROM corrected)
ORDER BY user_id, seq
"""

_WINDOWS = """
-- The learner's own ability at the end of each active day; rows of topics have a topic_id.
CREATE OR REPLACE TEMP TABLE whole AS
SELECT user_id, day, theta, se FROM day_ability WHERE topic_id IS NULL;

CREATE OR REPLACE TEMP TABLE as_of AS
SELECT user_id, day AS as_of FROM whole
UNION
SELECT user_id, (week_start - DATE '1970-01-01' + 6)::INTEGER FROM weekly
WHERE user_id NOT IN (FROM corrected);

CREATE OR REPLACE TEMP TABLE seen AS
SELECT
    user_id, as_of,
    arg_max(theta, day) AS theta,
    arg_max(se, day) AS se,
    arg_max(theta, day) FILTER (day > as_of - 14) AS recent,
    arg_max(se, day) FILTER (day > as_of - 14) AS recent_se,
    arg_max(theta, day) FILTER (day <= as_of - 14) AS prev
FROM as_of JOIN whole USING (user_id)
WHERE day BETWEEN as_of - 27 AND as_of
GROUP BY user_id, as_of;

CREATE OR REPLACE MACRO theta_improvement(prev, recent, recent_se, n_recent) AS
    CASE WHEN prev IS NOT NULL AND recent IS NOT NULL THEN
        greatest(-1::DOUBLE, least(1::DOUBLE,
            (recent - prev) * least(1::DOUBLE, n_recent / 30)
            * (1 - least(0.5::DOUBLE, 1.96::DOUBLE * recent_se))))
    END;

CREATE OR REPLACE TABLE features AS
SELECT
    f.*,
    f.user_id NOT IN (FROM corrected) AS followed,
    CASE WHEN $include_theta THEN d.theta END AS theta_estimate,
    CASE WHEN $include_theta THEN d.se END AS theta_sd,
    theta_improvement(s.prev, s.recent, s.recent_se, f.n_recent) AS improvement_theta
FROM features f
LEFT JOIN day_ability d ON d.user_id = f.user_id AND d.topic_id = f.topic_id
    AND d.day = f.date - DATE '1970-01-01'
LEFT JOIN seen s ON s.user_id = f.user_id AND s.as_of = f.date - DATE '1970-01-01';

CREATE OR REPLACE TABLE weekly AS
SELECT
    w.*,
    w.user_id NOT IN (FROM corrected) AS followed,
    chance_above($target, s.theta, s.se) AS P,
    theta_improvement(s.prev, s.recent, s.recent_se, w.n_recent) AS improvement_theta
FROM weekly w
LEFT JOIN seen s ON s.user_id = w.user_id AND s.as_of = w.week_start - DATE '1970-01-01' + 6;
"""


def expect_abilities(
    con: duckdb.DuckDBPyConnection, params: InForce, target: float, *, include_theta: bool = True
) -> None:
    """Create the tables of expected abilities, and add what follows from them.

    Creates ``ability``, ``topic_ability`` and ``corrected`` (learners left out). Adds to
    ``features`` and ``weekly`` the columns ``followed``, ``improvement_theta`` (I_t in its theta
    form) and ``theta_estimate``, ``theta_sd`` or ``P``.

    Parameters
    ----------
    con
        Database with the tables of :func:`stream.verify.recompute.recompute`.
    params
        In force since before the first attempt.
    target
        Ability that P asks for, METRICS_DEFAULT_TARGET.
    include_theta
        Whether daily rows have abilities, AGG_INCLUDE_THETA.
    """
    con.execute(_FOLLOWED)
    tables: dict[str, list[tuple[Any, ...]]] = {
        "ability": [],
        "topic_ability": [],
        "day_ability": [],
    }
    numbers = count()
    items: dict[str, int] = {}
    learner = _Learner("", params)
    for user, item_id, *attempt in _rows(con):
        if user != learner.user_id:
            learner.write(tables)
            learner = _Learner(user, params)
            if len(tables["day_ability"]) >= _AT_ONCE:
                _insert(con, tables)
        item = items.get(item_id)
        if item is None:
            item = items[item_id] = next(numbers)
        learner.take(item, params.items.get(item_id), *attempt)
    learner.write(tables)
    _insert(con, tables)
    con.create_function("chance_above", _chance_above, ["DOUBLE"] * 3, "DOUBLE")
    given = {"target": target, "include_theta": include_theta}
    for statement in con.extract_statements(_WINDOWS):
        con.execute(statement, {name: given[name] for name in statement.named_parameters})


class _Learner:
    """A learner as the filter knows it, and as it was at the end of each active day."""

    def __init__(self, user_id: str, params: InForce) -> None:
        self.user_id = user_id
        self._params = params
        config = params.filter
        self._unknown = ItemCurve(1.0, config.item_mean, 0.0, config.item_var)
        self._n = 0
        self._latest_day = 0
        self._g, self._vg = initial_global(config)
        self._form = 0.0
        self._memory = ItemMemory()
        # topic_id -> [d0, s, r, right, wrong, time of the latest answer].
        self._topics: dict[str, list[Any]] = {}
        # Day -> (theta, variance); (day, topic_id) -> the same in the topic.
        self._days: dict[int, tuple[float, float]] = {}
        self._topic_days: dict[tuple[int, str], tuple[float, float]] = {}

    def take(
        self,
        item: int,
        curve: ItemCurve | None,
        topic_id: str | None,
        correct: bool,
        completed_ms: int,
        day: int,
        response_ms: int | None,
    ) -> None:
        """Fold one accepted attempt; attempts come in the order of arrival."""
        in_order = day >= self._latest_day
        if not in_order and day not in self._days:
            self._days[day] = self._nearest(day)
        curve = curve or self._unknown
        start_s = (completed_ms - (response_ms or 0)) / 1000
        self._fold(item, curve, topic_id, correct, start_s, completed_ms / 1000)
        if in_order:
            # A late attempt leaves what was seen of a day as it was.
            self._latest_day = day
            self._days[day] = snapshot(self._g, self._vg)
        if topic_id is not None and (in_order or (day, topic_id) not in self._topic_days):
            d0, s, r = self._topics[topic_id][:3]
            ability = topic_ability(self._g, self._vg, d0, s, r)
            self._topic_days[day, topic_id] = snapshot(*ability)

    def write(self, tables: dict[str, list[tuple[Any, ...]]]) -> None:
        """Add what is expected of this learner to the tables' rows."""
        if not self._n:
            return
        user, version = self.user_id, self._params.version
        tables["ability"].append((user, self._g, sqrt(self._vg), version))
        for topic_id, (d0, s, r, *_) in self._topics.items():
            theta, variance = topic_ability(self._g, self._vg, d0, s, r)
            tables["topic_ability"].append((user, topic_id, theta, sqrt(variance), version))
        days = tables["day_ability"]
        days += [(user, None, day, theta, sqrt(v)) for day, (theta, v) in self._days.items()]
        days += [
            (user, topic_id, day, theta, sqrt(v))
            for (day, topic_id), (theta, v) in self._topic_days.items()
        ]

    def _nearest(self, day: int) -> tuple[float, float]:
        """Return the ability of the day nearest before one, else after."""
        before = [one for one in self._days if one < day]
        return self._days[max(before) if before else min(self._days)]

    def _fold(
        self,
        item: int,
        curve: ItemCurve,
        topic_id: str | None,
        correct: bool,
        start_s: float,
        end_s: float,
    ) -> None:
        a, b, c, b_variance, recall = curve
        config, weights, n = self._params.filter, self._params.weights, self._n
        topic = None
        right, wrong, topic_s, theta = 0, 0, 0.0, self._g
        if topic_id is not None:
            topic = self._topics.setdefault(topic_id, [*initial_topic(config), 0, 0, 0.0])
            right, wrong, topic_s = topic[3:]
            theta = topic_ability(self._g, self._vg, *topic[:3])[0]
        gain = 0.0
        if weights is not NO_WEIGHTS:
            trace = self._memory.recall(item)
            gain = advantage(weights, right, wrong, topic_s, self._form, trace, n, start_s, recall)
            self._form = next_form(self._form, plug_in(theta, a, b, c, gain), correct)
            self._memory.remember(item, n, int(end_s), correct)
        eased = b - gain / a
        if topic is None:
            self._g, self._vg = fold_global(
                self._g, self._vg, a, eased, c, correct, n, b_variance, config
            )
        else:
            d0, s, r = topic[:3]
            self._g, self._vg, *topic[:3] = fold(
                self._g, self._vg, d0, s, r, a, eased, c, correct, n, right + wrong, b_variance,
                config,
            )  # fmt: skip
            topic[3:] = right + correct, wrong + (not correct), max(topic_s, end_s)
        self._n = n + 1


def _chance_above(target: float, theta: float, se: float) -> float:
    return 0.5 * erfc((target - theta) / se / sqrt(2.0))


def _rows(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    cursor = con.cursor().execute(_ATTEMPTS)
    while rows := cursor.fetchmany(_AT_ONCE):
        yield from rows


def _insert(con: duckdb.DuckDBPyConnection, tables: dict[str, list[tuple[Any, ...]]]) -> None:
    for name, rows in tables.items():
        if rows:
            columns = [list(map(itemgetter(n), rows)) for n in range(len(rows[0]))]
            places = ", ".join(f"unnest(${n})" for n in range(1, len(columns) + 1))
            con.execute(f"INSERT INTO {name} SELECT {places}", columns)
            rows.clear()
