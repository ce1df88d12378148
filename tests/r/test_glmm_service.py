"""The growth service of lme4 over HTTP; known answers of the fit are tested in R."""

from __future__ import annotations

import gzip
import json
import random

import pytest

pytestmark = pytest.mark.r


def school(n_learners=40, n_weeks=8, slope_sd=0.05):
    """Rows of learners with lines of their own, and each one's true (intercept, slope)."""
    rng = random.Random(1)
    lines, rows = {}, []
    for n in range(n_learners):
        line = lines[f"u{n}"] = rng.gauss(0.2, 0.8), rng.gauss(0.1, slope_sd)
        rows += [
            {
                "user_id": f"u{n}",
                "topic_id": f"t{topic}",
                "week": week,
                "score": line[0] + line[1] * week + 0.3 * topic + rng.gauss(0, 0.3),
            }
            for week in range(n_weeks)
            for topic in range(4)
        ]
    return rows, lines


def as_columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_a_fit_answers_with_effects_lines_and_metrics(r_glmm):
    rows, lines = school()
    answer = r_glmm.post("/glmm/fit_progress", {"run_id": "run-1", "rows": rows})
    assert answer.status_code == 200, answer.text
    fit = answer.json()
    assert fit["status"] == "ok"
    assert fit["warnings"] == []
    meta = fit["fit_meta"]
    assert meta["run_id"] == "run-1"
    assert meta["model_spec"]["formula"] == "score ~ week + (week | user_id) + (1 | topic_id)"
    metrics = meta["metrics"]
    assert [metrics[key] for key in ("n", "students", "topics")] == [1280, 40, 4]
    assert (metrics["converged"], metrics["singular"]) == (True, False)
    assert metrics["sigma"] == pytest.approx(0.3, abs=0.02)
    assert metrics["log_likelihood"] < 0 < metrics["aic"] < metrics["bic"]
    fixed = {row["term"]: row for row in fit["fixed"]}
    slope = sum(line[1] for line in lines.values()) / len(lines)
    assert fixed["week"]["estimate"] == pytest.approx(slope, abs=0.01)
    assert fixed["week"]["t"] == pytest.approx(fixed["week"]["estimate"] / fixed["week"]["se"])
    # deviation + fixed: the learner's own line; the topics' mean (.45) is in the intercept
    assert {row["user_id"] for row in fit["students"]} == set(lines)
    for row in fit["students"]:
        intercept, slope = lines[row["user_id"]]
        assert row["intercept"] == pytest.approx(intercept + 0.45, abs=0.25)
        assert row["slope"] == pytest.approx(slope, abs=0.06)
    levels = [row["intercept"] for row in sorted(fit["topics"], key=lambda row: row["topic_id"])]
    assert levels == pytest.approx([-0.45, -0.15, 0.15, 0.45], abs=0.05)
    parts = [(row["group"], row["term"]) for row in fit["variances"]]
    assert parts == [
        ("user_id", "(Intercept)"),
        ("user_id", "week"),
        ("topic_id", "(Intercept)"),
        ("Residual", "Residual"),
    ]
    assert -1.0 < fit["variances"][1]["correlation"] < 1.0
    assert fit["variances"][0]["correlation"] is None


def test_rows_columns_and_gzip_give_the_same_fit(r_glmm):
    rows, _ = school(12, 5)
    estimates = []
    for sent in (rows, as_columns(rows)):
        body = json.dumps({"rows": sent}).encode()
        for content, headers in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
            answer = r_glmm.post("/glmm/fit_progress", content, **headers)
            assert answer.status_code == 200, answer.text
            estimates.append([row["estimate"] for row in answer.json()["fixed"]])
    for found in estimates[1:]:
        assert found == pytest.approx(estimates[0], abs=1e-6)


def test_a_fallback_is_told(r_glmm):
    rng = random.Random(2)
    wave = (0.02, -0.04, 0.02)  # without a trend, so that no slope differs even by chance
    rows = []
    for n in range(10):
        level = rng.gauss(0.0, 0.5)
        for topic in range(4):
            score = level + 0.3 * topic
            rows += [
                {
                    "user_id": f"u{n}",
                    "topic_id": f"t{topic}",
                    "week": week,
                    "score": score + 0.1 * week + (-1) ** topic * wave[week],
                }
                for week in range(3)
            ]
    answer = r_glmm.post("/glmm/fit_progress", {"rows": rows})
    assert answer.status_code == 200, answer.text
    fit = answer.json()
    simplest = "score ~ week + (1 | user_id) + (1 | topic_id)"
    assert fit["fit_meta"]["model_spec"]["formula"] == simplest
    assert len(fit["warnings"]) == 2
    assert all("was not used: it is singular" in warning for warning in fit["warnings"])
    assert len({round(row["slope"], 9) for row in fit["students"]}) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows": []}, "rows are empty"),
        ({"rows": None}, "rows is missing"),
        ({"min_observations": 10_000}, "are too few; at least 10000 are needed"),
        ({"min_observations": 0}, "min_observations is 0"),
        ({"run_id": 5}, "run_id is 5"),
        ({"rows": "x"}, "must be a list of objects"),
    ],
)
def test_a_wrong_request_is_answered_400_with_its_reason(r_glmm, change, told):
    rows, _ = school(12, 5)
    answer = r_glmm.post("/glmm/fit_progress", {"rows": rows, **change})
    assert answer.status_code == 400
    assert told in answer.json()["error"]


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("user_id", "u", "there is 1 user_id; at least 2"),
        ("week", 3, "all are of week 3; growth needs at least 2 weeks"),
        ("week", 1.5, "week is 1.5; it must be a whole number"),
        ("score", 0.5, "all scores are 0.5"),
        ("score", None, "row 1: score is missing or not a number"),
        ("score", "high", 'score is "high"; it must be a number'),
    ],
)
def test_rows_that_say_nothing_about_growth_are_answered_400(r_glmm, column, value, told):
    rows, _ = school(12, 5)
    answer = r_glmm.post("/glmm/fit_progress", {"rows": [{**row, column: value} for row in rows]})
    assert answer.status_code == 400
    assert told in answer.json()["error"]


def test_token_path_and_method_are_checked(r_glmm):
    wrong = r_glmm.client.post(
        "/glmm/fit_progress", content=b"{}", headers={"Authorization": "Bearer no"}
    )
    assert wrong.status_code == 401
    assert r_glmm.get("/glmm/fit_progress").status_code == 405
    assert r_glmm.post("/irt/calibrate", {}).status_code == 404
    assert r_glmm.get("/healthz").json()["service"] == "glmm"
    logged = [line for line in r_glmm.log_lines() if line.get("status") == 401]
    assert (logged[-1]["method"], logged[-1]["path"]) == ("POST", "/glmm/fit_progress")
