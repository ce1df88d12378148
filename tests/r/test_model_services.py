"""The four model services, spoken to over HTTP as the calibrator does.

Known answers of the fits are tested in R (`r/<service>/tests/testthat`); here it is the contract:
what comes back, how it is refused, and that it does so while a fit runs.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import httpx
import pytest

from tests.r.conftest import TOKEN, Service, StartR

pytestmark = pytest.mark.r

Rows = list[dict[str, Any]]
Services = Callable[[str], Service]


def growth_rows() -> Rows:
    """Ten learners, ten weeks, one topic; learner i gains i/50 a week."""
    noise = random.Random(1)
    return [
        {
            "user_id": f"u{learner}",
            "topic_id": "t",
            "week": week,
            "score": 0.3 + 0.02 * learner * week + noise.gauss(0, 0.1),
        }
        for learner in range(10)
        for week in range(10)
    ]


def series() -> Rows:
    """Thirty weeks of a rising line with noise; the twentieth is far above it."""
    noise = random.Random(2)
    return [
        {
            "week_start": (date(2026, 1, 5) + timedelta(weeks=week)).isoformat(),
            "value": 0.1 + 0.002 * week + noise.gauss(0, 0.01) + (0.1 if week == 19 else 0.0),
        }
        for week in range(30)
    ]


def survival_rows() -> Rows:
    """A hundred learners; those with long gaps stop three times as soon."""
    noise = random.Random(3)
    rows = []
    for learner in range(100):
        gap = float(learner % 2)
        lifetime = noise.expovariate(0.02 * 3**gap)
        rows.append(
            {
                "user_id": f"u{learner}",
                "duration_days": round(min(lifetime, 60.0), 1),
                "event": int(lifetime <= 60),
                "long_gaps": gap,
                "accuracy": noise.random(),
            }
        )
    return rows


def segment_rows() -> Rows:
    """Three groups of ten learners, far apart."""
    noise = random.Random(4)
    return [
        {
            "user_id": f"u{learner:02}",
            "accuracy": 0.9 - 0.3 * (learner % 3) + noise.gauss(0, 0.02),
            "minutes": 100.0 * (learner % 3) + noise.gauss(0, 10),
        }
        for learner in range(30)
    ]


@dataclass(frozen=True)
class Model:
    """A service, what it takes, and what it must answer with."""

    service: str
    rows: Rows
    column: str
    """A number that every row has."""
    too_few: int
    few_reason: str
    answers: frozenset[str]
    metrics: frozenset[str]
    name: str = "rows"
    options: dict[str, Any] = field(default_factory=dict)
    constant_reason: str | None = None
    """What refuses a constant column; None: it is left out with a warning."""

    @property
    def path(self) -> str:
        return f"/{self.service}/fit"

    def request(self, rows: Rows | None = None, **more: Any) -> dict[str, Any]:
        return {"run_id": "run-1", self.name: self.rows if rows is None else rows} | (
            self.options | more
        )


MODELS = [
    Model(
        service="growth",
        rows=growth_rows(),
        column="score",
        too_few=9,
        few_reason="too few",
        answers=frozenset({"fixed", "students"}),
        metrics=frozenset(
            {"n", "students", "topics", "max_rhat", "min_ess", "divergences", "sigma"}
        ),
        options={"iterations": 600},
        constant_reason="score is 0.5 in every row",
    ),
    Model(
        service="forecast",
        rows=series(),
        column="value",
        too_few=7,
        few_reason="7 weeks are too few",
        answers=frozenset({"forecast", "fitted", "anomalies"}),
        metrics=frozenset({"n", "mae", "rmse", "residual_sd", "left_out"}),
        name="series",
        constant_reason="value is 0.5 in every week",
    ),
    Model(
        service="survival",
        rows=survival_rows(),
        column="accuracy",
        too_few=9,
        few_reason="9 learners are too few",
        answers=frozenset({"hazard_ratios", "kaplan_meier", "risks"}),
        metrics=frozenset({"n", "events", "concordance", "log_likelihood", "ph_p"}),
    ),
    Model(
        service="segments",
        rows=segment_rows(),
        column="accuracy",
        too_few=9,
        few_reason="9 learners are too few",
        answers=frozenset({"segments", "centers"}),
        metrics=frozenset({"k", "silhouette", "within", "between"}),
    ),
]
GROWTH, FORECAST, SURVIVAL, SEGMENTS = MODELS

each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.service)


@pytest.fixture(scope="module")
def services(start_r: StartR) -> Iterator[Services]:
    """A service by its name, started when first asked for."""
    running: dict[str, Service] = {}

    def get(name: str) -> Service:
        if name not in running:
            running[name] = start_r(name, R_SERVICE_MAX_BODY_MIB="1")
        return running[name]

    yield get
    for service in running.values():
        service.end()


def fit(service: Service, model: Model, **more: Any) -> dict[str, Any]:
    answer = service.post(model.path, model.request(**more))
    assert answer.status_code == 200, answer.text
    decoded: dict[str, Any] = answer.json()
    return decoded


def refusal(service: Service, model: Model, request: Any) -> str:
    answer = service.post(model.path, request)
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"])


def without(rows: Rows, column: str) -> Rows:
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def with_value(rows: Rows, column: str, value: Any) -> Rows:
    return [row | {column: value} for row in rows]


@each_model
def test_a_fit_answers_with_all_that_the_contract_names(services: Services, model: Model) -> None:
    answer = fit(services(model.service), model)
    assert answer["status"] == "ok"
    assert set(answer) == {"status", "fit_meta", "warnings"} | model.answers
    assert answer["fit_meta"]["run_id"] == "run-1"
    assert set(answer["fit_meta"]["metrics"]) == model.metrics
    assert answer["fit_meta"]["model_spec"]["package"]
    assert all(isinstance(warning, str) for warning in answer["warnings"])


@each_model
def test_the_same_seed_gives_the_same_answer_from_rows_columns_and_gzip(
    services: Services, model: Model
) -> None:
    service = services(model.service)
    rows = fit(service, model, seed=7)
    columns = {name: [row[name] for row in model.rows] for name in model.rows[0]}
    assert fit(service, model, seed=7, **{model.name: columns}) == rows
    packed = service.post(
        model.path,
        gzip.compress(json.dumps(model.request(seed=7)).encode()),
        **{"Content-Encoding": "gzip"},
    )
    assert packed.status_code == 200, packed.text
    assert packed.json() == rows


@each_model
def test_too_few_learners_are_refused_with_the_number_needed(
    services: Services, model: Model
) -> None:
    error = refusal(services(model.service), model, model.request(model.rows[: model.too_few]))
    assert model.few_reason in error
    assert str(model.too_few + 1) in error


@each_model
def test_a_missing_value_is_refused_with_its_row_and_column(
    services: Services, model: Model
) -> None:
    rows = [dict(row) for row in model.rows]
    rows[4][model.column] = None
    error = refusal(services(model.service), model, model.request(rows))
    assert f"row 5: {model.column}" in error


@each_model
def test_a_nan_in_the_body_is_refused(services: Services, model: Model) -> None:
    rows = [dict(row) for row in model.rows]
    rows[4][model.column] = math.nan
    answer = services(model.service).post(model.path, model.request(rows))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


@each_model
def test_a_missing_field_is_refused_by_name(services: Services, model: Model) -> None:
    service = services(model.service)
    needed = "week_start" if model is FORECAST else "user_id"
    assert needed in refusal(service, model, model.request(without(model.rows, needed)))
    assert model.name in refusal(service, model, {"run_id": "run-1"})


@each_model
def test_a_constant_column_is_refused_or_left_out_by_name(services: Services, model: Model) -> None:
    service = services(model.service)
    rows = with_value(model.rows, model.column, 0.5)
    if model.constant_reason is not None:
        assert model.constant_reason in refusal(service, model, model.request(rows))
    else:
        answer = fit(service, model, **{model.name: rows})
        assert f"The column {model.column} does not vary and was left out." in answer["warnings"]


@each_model
@pytest.mark.parametrize("sent", [None, "Bearer wrong"])
def test_a_wrong_token_is_refused(services: Services, model: Model, sent: str | None) -> None:
    url = services(model.service).url + model.path
    headers = {} if sent is None else {"Authorization": sent}
    answer = httpx.post(url, json=model.request(), headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert "token" in answer.json()["error"]


@each_model
def test_a_body_above_the_limit_is_refused_packed_or_not(services: Services, model: Model) -> None:
    service = services(model.service)
    body = json.dumps(model.request() | {"padding": "x" * 2**20}).encode()
    assert service.post(model.path, body).status_code == 413
    packed = service.post(model.path, gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert packed.status_code == 413
    assert "too large" in packed.json()["error"]


def test_growth_gives_each_learner_a_line_with_an_interval(services: Services) -> None:
    answer = fit(services("growth"), GROWTH)
    assert [row["term"] for row in answer["fixed"]] == ["(Intercept)", "week"]
    week = answer["fixed"][1]
    assert set(week) == {"term", "mean", "sd", "lower", "upper", "rhat", "ess"}
    assert week["lower"] < 0.09 < week["upper"]  # the mean of 0 to 9 fiftieths
    slopes = {row["user_id"]: row for row in answer["students"]}
    assert slopes["u9"]["slope"] > slopes["u5"]["slope"] > slopes["u0"]["slope"]
    assert slopes["u0"]["slope_upper"] < slopes["u9"]["slope_lower"]
    assert answer["fit_meta"]["metrics"]["divergences"] == 0
    assert set(answer["fit_meta"]["model_spec"]["priors"]) == {
        "intercept",
        "week",
        "sigma",
        "covariance",
    }


def test_a_growth_fit_that_must_not_be_used_is_unprocessable(services: Services) -> None:
    answer = services("growth").post(GROWTH.path, GROWTH.request(iterations=100))
    assert answer.status_code == 422, answer.text
    assert "more iterations" in answer.json()["error"]


def test_forecast_names_the_planted_week_and_the_next_four(services: Services) -> None:
    answer = fit(services("forecast"), FORECAST)
    weeks = [row["week_start"] for row in answer["forecast"]]
    assert weeks == ["2026-08-03", "2026-08-10", "2026-08-17", "2026-08-24"]
    assert all(row["lower"] < row["expected"] < row["upper"] for row in answer["forecast"])
    anomalies = {row["week_start"]: row for row in answer["anomalies"]}
    planted = anomalies[series()[19]["week_start"]]
    assert planted["z"] > 5
    assert all(abs(row["z"]) >= 2.5 for row in anomalies.values())
    assert len(answer["fitted"]) == 30


def test_survival_gives_the_planted_hazard_ratio_and_a_risk_for_everybody(
    services: Services,
) -> None:
    answer = fit(services("survival"), SURVIVAL, churn_days=10)
    ratios = {row["term"]: row for row in answer["hazard_ratios"]}
    assert ratios["long_gaps"]["lower"] < 3 < ratios["long_gaps"]["upper"]
    assert ratios["long_gaps"]["lower"] > 1
    risks = {row["user_id"]: row["risk"] for row in answer["risks"]}
    stopped = {row["user_id"] for row in SURVIVAL.rows if row["event"]}
    assert len(risks) == 100
    assert {user for user, risk in risks.items() if risk == 1} == stopped
    assert all(0 < risk <= 1 for risk in risks.values())
    survival = [row["survival"] for row in answer["kaplan_meier"]]
    assert survival == sorted(survival, reverse=True)
    assert answer["fit_meta"]["model_spec"]["churn_days"] == 10


def test_segments_keep_their_labels_from_run_to_run(services: Services) -> None:
    service = services("segments")
    first = fit(service, SEGMENTS)
    labels = {row["user_id"]: row["segment"] for row in first["segments"]}
    assert [labels[f"u{learner:02}"] for learner in range(6)] == ["A", "B", "C"] * 2
    renamed = [
        center | {"segment": {"A": "C", "B": "A", "C": "B"}[center["segment"]]}
        for center in first["centers"]
    ]
    again = fit(service, SEGMENTS, previous_centers=renamed, k="auto", seed=5)
    assert again["fit_meta"]["metrics"]["k"] == 3
    labels = {row["user_id"]: row["segment"] for row in again["segments"]}
    assert [labels[f"u{learner:02}"] for learner in range(6)] == ["C", "A", "B"] * 2


@each_model
def test_health_is_answered_with_the_service_and_its_version(
    services: Services, model: Model
) -> None:
    health = services(model.service).get("/healthz").json()
    assert health["status"] == "ok"
    assert health["service"] == model.service
    assert health["version"]
    assert health["fitting"] == 0


def test_health_is_answered_while_a_fit_runs(services: Services) -> None:
    service = services("growth")
    answers: list[httpx.Response] = []

    def run() -> None:
        answers.append(
            httpx.post(
                service.url + GROWTH.path,
                json=GROWTH.request(iterations=1500),
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=300,
                trust_env=False,
            )
        )

    fitting = threading.Thread(target=run)
    fitting.start()
    waits = []
    try:
        while fitting.is_alive():
            began = time.monotonic()
            health = service.get("/healthz").json()
            if health["fitting"]:
                waits.append(time.monotonic() - began)
            time.sleep(0.1)
    finally:
        fitting.join()
    assert answers[0].status_code == 200
    # Seen busy, and more than once; a server that fits itself would answer after the fit.
    assert len(waits) >= 5
    assert max(waits) < 2
