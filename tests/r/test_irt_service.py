"""The contract of item calibration, kept by the R service and by the embedded one alike."""

from __future__ import annotations

import csv
import gzip
import json
import resource
import signal
import subprocess
import threading
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from stream.calibration.client import RIrtClient
from stream.calibration.contract import (
    AnchorRecord,
    CalibrateRequest,
    ItemRecord,
    ObservationColumns,
    ParamsRecord,
    ScoreRequest,
)
from stream.domain.scoring import eap_scores
from stream.errors import CalibrationRefusedError
from tests.r.conftest import TOKEN

pytestmark = pytest.mark.r


@pytest.fixture(params=["embedded", "r_irt"])
def service(request):
    """Either service: what is promised of one is promised of both."""
    return request.getfixturevalue(request.param)


def simulate(seed, n_learners, n_items, per_learner=None, *, mean=0.0, sd=1.0, c=0.0):
    """Answers as columns, and the true slopes and difficulties."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(mean, sd, n_learners)
    a, b = np.exp(rng.normal(0, 0.3, n_items)), rng.normal(0, 1, n_items)
    taken = per_learner or n_items
    learner = np.repeat(np.arange(n_learners), taken)
    order = rng.permuted(np.tile(np.arange(n_items), (n_learners, 1)), axis=1)
    item = order[:, :taken].ravel()
    p = c + (1 - c) / (1 + np.exp(-a[item] * (theta[learner] - b[item])))
    columns = ObservationColumns(
        [f"u{i}" for i in learner], [f"q{j}" for j in item], (rng.random(len(p)) < p).tolist()
    )
    return columns, a, b


def anchors(a, b, n):
    return [AnchorRecord(f"q{j}", ParamsRecord(float(a[j]), float(b[j]))) for j in range(n)]


def as_json(columns, **rest):
    return {
        "observations": {
            "user_id": columns.user_id,
            "item_id": columns.item_id,
            "is_correct": [int(score) for score in columns.is_correct],
        },
        **rest,
    }


async def calibrate(service, request):
    async with RIrtClient(service.url, TOKEN, max_retries=1) as client:
        return await client.calibrate(request)


async def score(service, request):
    async with RIrtClient(service.url, TOKEN, max_retries=1) as client:
        return await client.score(request)


def by_item(response):
    return {item.item_id: item for item in response.item_params}


# --- what both promise


async def test_a_calibration_goes_through_the_client_and_back(service):
    columns, _, b = simulate(1, 300, 12)
    response = await calibrate(service, CalibrateRequest(columns))
    found = by_item(response)
    assert sorted(found) == sorted(set(columns.item_id))
    estimates = np.array([found[f"q{j}"].params.b for j in range(12)])
    assert np.corrcoef(estimates, b)[0, 1] > 0.97
    assert all(item.n == 300 and item.model == "2PL" and not item.flags for item in found.values())
    assert all(0.0 < item.se["b"] < 0.7 for item in found.values())
    assert {ability.user_id for ability in response.abilities} == set(columns.user_id)
    meta = response.fit_meta
    assert {item.version for item in found.values()} == {meta.run_id}
    assert meta.metrics["converged"] is True
    counts = [meta.metrics[key] for key in ("n_learners", "n_items", "n_responses", "n_flagged")]
    assert counts == [300, 12, 3600, 0]
    assert meta.metrics["warnings"] == []
    assert meta.metrics["loglik"] < 0.0
    assert meta.model_spec["model"] == "2PL"
    assert meta.model_spec["priors"] == {"log_a_sd": 0.5, "b_sd": 3.0, "c_beta": None}
    assert meta.model_spec["fixed_anchors"] == []
    assert (meta.linking_constants.slope, meta.linking_constants.intercept) == (1.0, 0.0)
    assert "own scale" in meta.model_spec["linking"]
    again = await calibrate(service, CalibrateRequest(columns))
    assert again.fit_meta.run_id != meta.run_id
    assert again.item_params[0].params.b == pytest.approx(response.item_params[0].params.b, 1e-8)


def test_health_lists_the_forms_of_observations_that_are_taken(service):
    answer = service.get("/healthz")
    assert answer.status_code == 200
    health = answer.json()
    assert health["status"] == "ok"
    assert health["observations"] == ["rows", "columns"]
    assert health["busy"] is False


def test_rows_columns_and_gzip_give_the_same_fit(service):
    columns, _, _ = simulate(2, 60, 5)
    plain = as_json(columns, model="1PL")
    observations = plain["observations"]
    rows = [
        {"user_id": u, "item_id": i, "is_correct": bool(c), "responded_at": at}
        for u, i, c, at in zip(
            *observations.values(), ["2024-01-01T00:00:00Z", 1704067200000, None] * 100, strict=True
        )
    ]
    fits = []
    for body in (plain, {**plain, "observations": rows}):
        data = json.dumps(body).encode()
        for sent, headers in ((data, {}), (gzip.compress(data), {"Content-Encoding": "gzip"})):
            answer = service.post("/irt/calibrate", sent, **headers)
            assert answer.status_code == 200, answer.text
            fits.append([item["params"]["b"] for item in answer.json()["item_params"]])
    for fit in fits[1:]:
        assert fit == pytest.approx(fits[0], abs=1e-8)


async def test_fixed_anchors_keep_their_parameters_and_free_the_group(service):
    columns, _, b = simulate(1, 300, 12)
    fixed = [AnchorRecord(f"q{j}", ParamsRecord(1.0, float(b[j]) + 1.0)) for j in range(6)]
    unused = [AnchorRecord("elsewhere", ParamsRecord(1.0, 0.0))]
    free = [AnchorRecord("q7", ParamsRecord(1.0, 9.0), fixed=False)]
    response = await calibrate(service, CalibrateRequest(columns, anchors=fixed + unused + free))
    found = by_item(response)
    assert [found[f"q{j}"].params.b for j in range(6)] == pytest.approx((b[:6] + 1.0).tolist())
    assert (found["q0"].params.a, found["q0"].se["b"]) == (1.0, 0.0)
    assert found["q7"].params.b == pytest.approx(b[7] + 1.0, abs=0.6)
    meta = response.fit_meta
    assert meta.metrics["group"]["mean"] == pytest.approx(1.0, abs=0.25)
    assert meta.metrics["group"]["mean_se"] > 0.0
    assert meta.model_spec["fixed_anchors"] == [f"q{j}" for j in range(6)]
    assert "by construction" in meta.model_spec["linking"]
    assert (meta.linking_constants.slope, meta.linking_constants.intercept) == (1.0, 0.0)
    assert meta.metrics["warnings"] == ["1 fixed anchors have no response and took no part."]


async def test_poorly_determined_items_are_flagged_and_kept_in_check(service):
    columns, _, _ = simulate(1, 60, 5)
    columns.user_id += ["u0", "u1", "u2"] + [f"u{i}" for i in range(40)]
    columns.item_id += ["rare"] * 3 + ["gift"] * 40
    columns.is_correct += [True, False, True] + [True] * 40
    response = await calibrate(service, CalibrateRequest(columns))
    flags = {item.item_id: item.flags for item in response.item_params}
    assert flags["rare"] == ["few_responses", "large_error"]
    assert "all_right" in flags["gift"]
    assert response.fit_meta.metrics["n_flagged"] == sum(bool(f) for f in flags.values())
    assert all(abs(item.params.b) < 6.0 for item in response.item_params)


async def test_scores_are_exact(service):
    columns, a, b = simulate(5, 40, 20, 12)
    items = [ItemRecord(f"q{j}", ParamsRecord(float(a[j]), float(b[j]), 0.1)) for j in range(20)]
    found = await score(service, ScoreRequest(columns, items))
    learner = [int(user[1:]) for user in columns.user_id]
    item = [int(name[1:]) for name in columns.item_id]
    exact = eap_scores(learner, item, columns.is_correct, a, b, 0.1)
    assert len(found) == 40
    for ability in found:
        i = int(ability.user_id[1:])
        assert ability.theta == pytest.approx(exact.theta[i], abs=1e-3)
        assert ability.se == pytest.approx(exact.se[i], abs=1e-3)
    with pytest.raises(CalibrationRefusedError, match="1 of the answered items have no parameters"):
        await score(service, ScoreRequest(columns, items[1:]))


PAIR = '"observations": {"user_id": ["u", "v"], "item_id": ["i", "i"], "is_correct": [1, 0]}'


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{", ""),
        ("[]", "object"),
        ("{}", "observations"),
        ('{"observations": []}', "observations are empty; there is nothing to fit"),
        ('{"observations": [{"user_id": "u", "item_id": "i"}]}', "is_correct"),
        ('{"observations": [{"user_id": 7, "item_id": "i", "is_correct": 1}]}', "user_id"),
        (
            '{"observations": [{"user_id": "u", "item_id": "i", "is_correct": 2}]}',
            "is_correct is 2",
        ),
        ('{"observations": [{"user_id": "u", "item_id": "i", "is_correct": NaN}]}', ""),
        (
            '{"observations": {"user_id": ["u"], "item_id": [], "is_correct": [1]}}',
            "must have the same length",
        ),
        (
            '{"observations": [{"user_id": "u", "item_id": "i", "is_correct": 1}]}',
            "one learner alone",
        ),
        (f'{{{PAIR}, "model": "4PL"}}', "'4PL' is not known; it must be 1PL, 2PL or 3PL"),
        (
            f'{{{PAIR}, "anchors": [{{"item_id": "j", "params": {{"a": 1, "b": 0}}}}]}}',
            "none of the 1 fixed anchors has a response",
        ),
        (
            f'{{{PAIR}, "anchors": [{{"item_id": "i", "params": {{"a": -1, "b": 0}}}}]}}',
            "item 'i': item parameter a is -1",
        ),
    ],
)
def test_a_request_that_cannot_be_fitted_is_answered_400_with_its_reason(service, body, told):
    answer = service.post("/irt/calibrate", body.encode())
    assert answer.status_code == 400
    assert answer.json()["status"] == "failed"
    assert told in answer.json()["error"]


def test_a_body_that_is_not_the_gzip_it_claims_is_answered_400(service):
    for body in (b"plain", gzip.compress(b'{"observations": []}')[:-12]):
        # The embedded service closes the connection on such a body.
        headers = {"Content-Encoding": "gzip", "Connection": "close"}
        assert service.post("/irt/calibrate", body, **headers).status_code == 400


def test_every_path_asks_for_the_token(service):
    for authorization in ("", "Bearer wrong", TOKEN):
        headers = {"Authorization": authorization}
        for method, path in (("GET", "/healthz"), ("POST", "/irt/score"), ("GET", "/nowhere")):
            answer = service.client.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert "R_IRT_INTERNAL_TOKEN" in answer.json()["error"]


def test_an_unknown_path_or_method_is_answered_in_json(service):
    assert service.get("/nowhere").status_code == 404
    answer = service.get("/irt/calibrate")
    assert answer.status_code == 405
    assert answer.json()["status"] == "failed"


# --- that they agree


async def agree(embedded, r_irt, columns, *, model="2PL", fixed=()):
    """Both fits of the same request; determined items must be within .02."""
    request = CalibrateRequest(columns, model, list(fixed))
    one, two = await calibrate(embedded, request), await calibrate(r_irt, request)
    ours, theirs = by_item(one), by_item(two)
    held = {anchor.item_id for anchor in fixed}
    determined = [
        item
        for item in ours.values()
        if item.item_id not in held and item.se["a"] < 0.3 and abs(item.params.b) < 4.0
    ]
    for item in determined:
        other = theirs[item.item_id].params
        assert other.a == pytest.approx(item.params.a, abs=0.02), item.item_id
        assert other.b == pytest.approx(item.params.b, abs=0.02), item.item_id
    for key in ("mean", "sd"):
        group = [fit.fit_meta.metrics["group"][key] for fit in (one, two)]
        assert group[1] == pytest.approx(group[0], abs=0.01)
    theta = {ability.user_id: ability.theta for ability in one.abilities}
    assert all(
        ability.theta == pytest.approx(theta[ability.user_id], abs=0.02)
        for ability in two.abilities
    )
    return one, two, len(determined)


def flagged(response):
    return {item.item_id for item in response.item_params if item.flags}


async def test_both_agree_on_real_first_attempts_and_flag_the_same_items(
    embedded, r_irt, shared_data
):
    seen, answers = set(), []
    path = shared_data / "mofacts_stats_cloze" / "attempts.csv.gz"
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            key = row["user_id"], row["item_id"]
            if key not in seen:
                seen.add(key)
                answers.append((*key, row["correct"] == "1"))
    columns = ObservationColumns(*(list(column) for column in zip(*answers, strict=True)))
    one, two, determined = await agree(embedded, r_irt, columns)
    assert determined == 114
    assert flagged(one) == flagged(two)
    assert len(flagged(one)) == 13


async def test_both_agree_on_sat12(embedded, r_irt, shared_data):
    rows = list(csv.reader((shared_data / "static" / "sat12_scored.csv").read_text().splitlines()))
    answers = [
        (f"u{n}", item, score == "1")
        for n, row in enumerate(rows[1:])
        for item, score in zip(rows[0], row, strict=True)
        if score in ("0", "1")
    ]
    columns = ObservationColumns(*(list(column) for column in zip(*answers, strict=True)))
    one, two, determined = await agree(embedded, r_irt, columns)
    assert determined == 29
    assert flagged(one) == flagged(two) == {"item11"}


@pytest.mark.parametrize("model", ["1PL", "2PL", "3PL"])
async def test_both_agree_on_simulated_answers(embedded, r_irt, model):
    columns, _, _ = simulate(3, 1500, 40, 20, c=0.2 if model == "3PL" else 0.0)
    _, _, determined = await agree(embedded, r_irt, columns, model=model)
    assert determined >= (15 if model == "3PL" else 39)


@pytest.mark.parametrize("model", ["1PL", "2PL", "3PL"])
async def test_both_agree_beside_fixed_anchors_in_another_group(embedded, r_irt, model):
    columns, a, b = simulate(6, 1500, 30, 15, mean=0.7, sd=1.3)
    _, two, determined = await agree(embedded, r_irt, columns, model=model, fixed=anchors(a, b, 8))
    assert determined >= 18
    assert two.fit_meta.metrics["group"]["mean"] == pytest.approx(0.7, abs=0.15)


@pytest.mark.parametrize("name", ["lsat6", "lsat7"])
def test_the_published_lsat_estimates_come_out_without_priors(r_irt, shared_data, name):
    static = shared_data / "static"
    published = json.loads((static / "lsat_published.json").read_text())[name]
    patterns = list(csv.reader((static / f"{name}_patterns.csv").read_text().splitlines()))[1:]
    answers = [
        (f"u{n}-{k}", f"q{j}", int(score))
        for n, row in enumerate(patterns)
        for k in range(int(row[5]))
        for j, score in enumerate(row[:5])
    ]
    users, items, scores = (list(column) for column in zip(*answers, strict=True))
    columns = ObservationColumns(users, items, scores)
    answer = r_irt.post("/irt/calibrate", as_json(columns, priors="none", run_id="published"))
    assert answer.status_code == 200, answer.text
    fit = answer.json()
    assert fit["fit_meta"]["run_id"] == "published"
    found = sorted(fit["item_params"], key=lambda item: item["item_id"])
    assert [i["params"]["a"] for i in found] == pytest.approx(published["a"], abs=2e-3)
    assert [i["params"]["b"] for i in found] == pytest.approx(published["b"], abs=5e-3)
    loglik = published.get("loglik", published["check_loglik_recomputed_61pt_GH"])
    assert fit["fit_meta"]["metrics"]["loglik"] == pytest.approx(loglik, abs=1e-3)
    assert fit["fit_meta"]["metrics"]["item_fit"]["rmsd_max"] < 0.05


# --- faults, of the R service


def slow_body():
    """A fit of well above five seconds."""
    columns, _, _ = simulate(8, 6000, 120, c=0.2)
    return gzip.compress(json.dumps(as_json(columns, model="3PL", run_id="slow")).encode(), 1)


def in_background(service, body):
    """Post the body from a thread; its answer is appended to the list."""
    answers = []

    def post():
        answers.append(service.post("/irt/calibrate", body, **{"Content-Encoding": "gzip"}))

    thread = threading.Thread(target=post)
    thread.start()
    return thread, answers


def busy_worker(service):
    """Wait until a fit is well under way; its process id: the one that has used most time."""
    until = time.monotonic() + 60
    while service.get("/healthz").json()["fitting"] == 0:
        assert time.monotonic() < until, "the fit did not start"
        time.sleep(0.05)
    time.sleep(2.0)

    def used(pid):
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(stat[11]) + int(stat[12])

    return max(service.workers(), key=used)


def test_health_answers_within_a_second_during_a_slow_fit(start_r):
    service = start_r("irt", R_SERVICE_WORKERS="1")
    started = time.monotonic()
    thread, answers = in_background(service, slow_body())
    waits = []
    while thread.is_alive():
        asked = time.monotonic()
        fitting = service.get("/healthz").json()["fitting"]
        waits.append((time.monotonic() - asked, fitting))
        time.sleep(0.1)
    assert answers[0].status_code == 200, answers[0].text
    assert time.monotonic() - started > 5.0
    assert max(wait for wait, _ in waits) < 1.0
    assert sum(fitting == 1 for _, fitting in waits) >= 10
    logged = [line for line in service.log_lines() if line.get("path") == "/irt/calibrate"]
    assert [(line["status"], line["rows"], line["run_id"]) for line in logged] == [
        (200, 720_000, "slow")
    ]
    assert logged[0]["ms"] > 5000


def test_a_worker_killed_in_mid_fit_costs_that_request_only(start_r):
    service = start_r("irt", R_SERVICE_WORKERS="1")
    thread, answers = in_background(service, slow_body())
    subprocess.run(["kill", "-KILL", str(busy_worker(service))], check=True)
    thread.join(60)
    assert answers[0].status_code == 500
    assert "died" in answers[0].json()["error"]
    columns, _, _ = simulate(1, 60, 5)
    assert service.post("/irt/calibrate", as_json(columns)).status_code == 200


def test_too_many_requests_are_told_to_come_back(start_r):
    service = start_r("irt", R_SERVICE_WORKERS="1")
    body = slow_body()
    fits = [in_background_quietly(service, body) for _ in range(2)]
    until = time.monotonic() + 60
    while service.get("/healthz").json()["fitting"] < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    answer = service.post("/irt/calibrate", b"{}")
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "10"
    service.end(signal.SIGKILL)
    for thread, _ in fits:
        thread.join(60)


def test_a_body_above_the_limit_is_answered_413_also_when_it_was_small_on_the_wire(start_r):
    service = start_r("irt", R_SERVICE_MAX_BODY_MIB="1", R_SERVICE_WORKERS="1")
    big = b" " * 2**21
    for body, headers in ((big, {}), (gzip.compress(big), {"Content-Encoding": "gzip"})):
        answer = service.post("/irt/calibrate", body, **headers)
        assert answer.status_code == 413
        assert "too large" in answer.json()["error"]


def test_a_fit_that_takes_too_long_is_ended(start_r):
    service = start_r("irt", R_SERVICE_FIT_TIMEOUT_SECS="2", R_SERVICE_WORKERS="1")
    answer = service.post("/irt/calibrate", slow_body(), **{"Content-Encoding": "gzip"})
    assert answer.status_code == 500
    assert "R_SERVICE_FIT_TIMEOUT_SECS" in answer.json()["error"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_however_the_service_ends(start_r, how):
    service = start_r("irt")
    thread, _ = in_background_quietly(service, slow_body())
    busy_worker(service)
    children = service.workers()
    assert children
    service.end(how)
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in children):
        assert time.monotonic() < until, "workers outlive their service"
        time.sleep(0.1)
    thread.join(60)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def in_background_quietly(service, body):
    """As `in_background`, where the service may be gone before it answers."""
    errors = []

    def post():
        try:
            service.post("/irt/calibrate", body, **{"Content-Encoding": "gzip"})
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    return thread, errors


def test_the_version_is_the_projects(r_irt):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert r_irt.get("/healthz").json()["version"] == project["project"]["version"]


@pytest.mark.slow
async def test_a_million_observations_stay_below_4_gib_on_either_side(start_r):
    service = start_r("irt", R_SERVICE_WORKERS="1")
    columns, _, b = simulate(20, 20_000, 500, 50)
    most = [0]
    done = threading.Event()

    def watch():
        while not done.wait(0.2):
            most[0] = max([most[0], *(resident_kib(pid) for pid in service.workers())])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        response = await calibrate(service, CalibrateRequest(columns))
    finally:
        done.set()
        watcher.join()
    assert response.fit_meta.metrics["converged"] is True
    assert response.fit_meta.metrics["n_responses"] == 1_000_000
    estimates = by_item(response)
    assert np.mean([abs(estimates[f"q{j}"].params.b - b[j]) for j in range(500)]) < 0.1
    assert 100_000 < most[0] < 4 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20


def resident_kib(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
