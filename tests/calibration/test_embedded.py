"""The embedded service over HTTP."""

import asyncio
import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer

from stream.calibration.answer import answer_calibrate
from stream.calibration.client import RIrtClient
from stream.calibration.contract import (
    AnchorRecord,
    CalibrateRequest,
    ItemRecord,
    ObservationColumns,
    ParamsRecord,
    ScoreRequest,
)
from stream.calibration.embedded import MAX_WAITING, create_app
from stream.errors import CalibrationRefusedError, EstimationError


def observations(n_learners=300, n_items=12, seed=1):
    """Columns of a complete matrix, and the true difficulties."""
    rng = np.random.default_rng(seed)
    theta, b = rng.normal(size=n_learners), rng.normal(size=n_items)
    correct = rng.random((n_learners, n_items)) < 1 / (1 + np.exp(b - theta[:, None]))
    columns = ObservationColumns(
        [f"u{i}" for i in range(n_learners) for _ in range(n_items)],
        [f"q{j}" for _ in range(n_learners) for j in range(n_items)],
        correct.ravel().tolist(),
    )
    return columns, b


@pytest.fixture
async def http():
    async with TestClient(TestServer(create_app())) as client:
        yield client


@pytest.fixture
async def service():
    async with (
        TestServer(create_app("secret")) as server,
        RIrtClient(str(server.make_url("")), "secret") as client,
    ):
        yield client


async def test_a_calibration_goes_through_the_client_and_back(service):
    columns, b = observations()
    response = await service.calibrate(CalibrateRequest(columns))
    found = {item.item_id: item for item in response.item_params}
    assert sorted(found) == sorted(set(columns.item_id))
    estimates = np.array([found[f"q{j}"].params.b for j in range(12)])
    assert np.corrcoef(estimates, b)[0, 1] > 0.97
    assert all(
        item.n == 300 and item.model == "2PL" and item.flags == [] for item in found.values()
    )
    assert all(0.0 < item.se["b"] < 0.6 for item in found.values())
    assert {ability.user_id for ability in response.abilities} == set(columns.user_id)
    meta = response.fit_meta
    assert {item.version for item in found.values()} == {meta.run_id}
    assert meta.metrics["converged"] is True
    counts = [meta.metrics[key] for key in ("n_learners", "n_items", "n_responses")]
    assert counts == [300, 12, 3600]
    assert meta.metrics["loglik"] < 0.0
    assert meta.model_spec["model"] == "2PL"
    assert (meta.linking_constants.slope, meta.linking_constants.intercept) == (1.0, 0.0)
    assert "own scale" in meta.model_spec["linking"]
    again = await service.calibrate(CalibrateRequest(columns))
    assert again.fit_meta.run_id != meta.run_id
    assert again.item_params[0].params == response.item_params[0].params


async def test_rows_columns_and_gzip_give_the_same_fit(http):
    columns, _ = observations(50, 4)
    as_columns = {
        "user_id": columns.user_id,
        "item_id": columns.item_id,
        "is_correct": [int(score) for score in columns.is_correct],
    }
    as_rows = [
        {"user_id": u, "item_id": i, "is_correct": c, "responded_at": "2024-01-01T00:00:00Z"}
        for u, i, c in zip(columns.user_id, columns.item_id, columns.is_correct, strict=True)
    ]
    fits = []
    for body in (as_columns, as_rows):
        plain = json.dumps({"observations": body, "model": "1PL"}).encode()
        for data, headers in (
            (plain, {}),
            (gzip.compress(plain), {"Content-Encoding": "gzip"}),
        ):
            answer = await http.post("/irt/calibrate", data=data, headers=headers)
            assert answer.status == 200
            fits.append([item["params"] for item in (await answer.json())["item_params"]])
    assert fits[0] == fits[1] == fits[2] == fits[3]


async def test_fixed_anchors_keep_their_parameters_and_the_meta_says_why_the_link_is_trivial(
    service,
):
    columns, b = observations()
    anchors = [AnchorRecord(f"q{j}", ParamsRecord(1.0, float(b[j]) + 1.0)) for j in range(6)]
    unused = [AnchorRecord("elsewhere", ParamsRecord(1.0, 0.0))]
    free = [AnchorRecord("q7", ParamsRecord(1.0, 9.0), fixed=False)]
    response = await service.calibrate(CalibrateRequest(columns, anchors=anchors + unused + free))
    found = {item.item_id: item for item in response.item_params}
    assert [found[f"q{j}"].params.b for j in range(6)] == pytest.approx((b[:6] + 1.0).tolist())
    assert found["q0"].se["b"] == 0.0
    assert found["q7"].params.b == pytest.approx(b[7] + 1.0, abs=0.6)
    meta = response.fit_meta
    assert meta.metrics["group"]["mean"] == pytest.approx(1.0, abs=0.25)
    assert meta.model_spec["fixed_anchors"] == [f"q{j}" for j in range(6)]
    assert "by construction" in meta.model_spec["linking"]
    assert meta.metrics["warnings"] == ["1 fixed anchors have no response and took no part."]


async def test_poorly_determined_items_are_flagged(service):
    columns, _ = observations(60, 5)
    columns.user_id += ["u0", "u1", "u2"] + [f"u{i}" for i in range(40)]
    columns.item_id += ["rare"] * 3 + ["gift"] * 40
    columns.is_correct += [True, False, True] + [True] * 40
    response = await service.calibrate(CalibrateRequest(columns))
    flags = {item.item_id: item.flags for item in response.item_params}
    assert "few_responses" in flags["rare"]
    assert "large_error" in flags["rare"]
    assert "all_right" in flags["gift"]
    assert response.fit_meta.metrics["n_flagged"] == sum(bool(f) for f in flags.values())


async def test_scoring_uses_the_given_parameters(service):
    columns = ObservationColumns(["u1", "u1", "u2"], ["q1", "q2", "q1"], [True, True, False])
    items = [ItemRecord("q1", ParamsRecord(1.0, 0.0)), ItemRecord("q2", ParamsRecord(1.0, 1.0))]
    one, two = await service.score(ScoreRequest(columns, items))
    assert (one.user_id, two.user_id) == ("u1", "u2")
    assert one.theta > 0.3 > 0.0 > two.theta
    with pytest.raises(CalibrationRefusedError, match="1 of the answered items have no parameters"):
        await service.score(ScoreRequest(columns, items[:1]))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "not what this service takes"),
        (b"\xff\xfe", "not what this service takes"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `observations`"),
        (b'{"observations": []}', "observations are empty"),
        (b'{"observations": [{"user_id": "u", "item_id": "i"}]}', "field `is_correct`"),
        (b'{"observations": [{"user_id": 7, "item_id": "i", "is_correct": 1}]}', "user_id"),
        (
            b'{"observations": [{"user_id": "u", "item_id": "i", "is_correct": 2}]}',
            "is_correct is 2",
        ),
        (
            b'{"observations": {"user_id": ["u"], "item_id": [], "is_correct": [1]}}',
            "same length; they have 1, 0 and 1",
        ),
        (b'{"observations": [{"user_id": "u", "item_id": "i", "is_correct": 1}]}', "one learner"),
        (
            b'{"observations": {"user_id": ["u", "v"], "item_id": ["i", "i"], '
            b'"is_correct": [1, 0]}, "model": "4PL"}',
            "'4PL' is not known",
        ),
        (
            b'{"observations": {"user_id": ["u", "v"], "item_id": ["i", "i"], '
            b'"is_correct": [1, 0]}, "anchors": [{"item_id": "j", "params": {"a": 1, "b": 0}}]}',
            "none of the 1 fixed anchors has a response",
        ),
        (
            b'{"observations": {"user_id": ["u", "v"], "item_id": ["i", "i"], '
            b'"is_correct": [1, 0]}, "anchors": [{"item_id": "i", "params": {"a": -1, "b": 0}}]}',
            "item 'i'.*a is -1",
        ),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_with_a_reason_a_person_understands(
    body, told
):
    with pytest.raises(EstimationError, match=told):
        answer_calibrate(body)


async def test_a_refusal_is_answered_400_with_its_reason(http):
    answer = await http.post("/irt/calibrate", data=b'{"observations": []}')
    assert answer.status == 400
    assert await answer.json() == {
        "error": "observations are empty; there is nothing to fit",
        "status": "failed",
    }


async def test_a_body_that_is_not_the_gzip_it_claims_is_refused(http):
    answer = await http.post("/irt/calibrate", data=b"plain", headers={"Content-Encoding": "gzip"})
    assert answer.status == 400


async def test_a_body_above_the_limit_is_refused_also_when_it_was_small_on_the_wire():
    async with TestClient(TestServer(create_app(max_body_bytes=10_000))) as client:
        big = b" " * 20_000
        answer = await client.post("/irt/calibrate", data=big)
        assert answer.status == 413
        assert "too large" in (await answer.json())["error"]
        answer = await client.post(
            "/irt/calibrate", data=gzip.compress(big), headers={"Content-Encoding": "gzip"}
        )
        assert answer.status == 413


async def test_every_path_asks_for_the_token_if_there_is_one():
    async with TestClient(TestServer(create_app("secret"))) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            for method, path in (("GET", "/healthz"), ("POST", "/irt/score"), ("GET", "/nowhere")):
                answer = await client.request(method, path, headers=headers)
                assert answer.status == 401
                assert "R_IRT_INTERNAL_TOKEN" in (await answer.json())["error"]
        answer = await client.get("/healthz", headers={"Authorization": "Bearer secret"})
        assert await answer.json() == {
            "status": "ok",
            "service": "thetastream embedded",
            "observations": ["rows", "columns"],
            "busy": False,
        }


async def test_an_unknown_path_or_method_is_answered_in_json(http):
    assert (await http.get("/nowhere")).status == 404
    answer = await http.get("/irt/calibrate")
    assert answer.status == 405
    assert (await answer.json())["status"] == "failed"


async def test_health_answers_during_a_fit_and_too_many_requests_are_told_to_come_back(http):
    columns, _ = observations(4000, 60)
    body = json.dumps(
        {
            "observations": {
                "user_id": columns.user_id,
                "item_id": columns.item_id,
                "is_correct": columns.is_correct,
            },
            "model": "3PL",
        }
    ).encode()

    async def fit():
        async with http.post("/irt/calibrate", data=io.BytesIO(body)) as answer:
            await answer.read()
            return answer.status, answer.headers.get("Retry-After")

    fits = [asyncio.create_task(fit()) for _ in range(MAX_WAITING)]
    slowest, seen = 0.0, 0
    refused = None
    while not all(task.done() for task in fits):
        started = time.perf_counter()
        async with http.get("/healthz") as answer:
            busy = (await answer.json())["busy"]
        slowest, seen = max(slowest, time.perf_counter() - started), seen + busy
        if refused is None and seen == 3:
            refused = await fit()
        await asyncio.sleep(0.02)
    assert [task.result()[0] for task in fits] == [200] * MAX_WAITING
    assert seen >= 3
    assert slowest < 10.0  # a blocked loop would answer after the fits, half a minute or more
    assert refused == (429, "10")


def descendants(pid):
    return [child.pid for child in psutil.Process(pid).children()]


def alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_the_program_serves_and_leaves_nothing_running_however_it_ends(how):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(  # noqa: ASYNC220  it starts at once
        [sys.executable, "-m", "stream.calibration.embedded", "--port", str(port)],
        env={**os.environ, "R_IRT_INTERNAL_TOKEN": "t", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url, headers = f"http://127.0.0.1:{port}", {"Authorization": "Bearer t"}
        async with ClientSession(headers=headers) as session:
            for _ in range(200):
                try:
                    async with session.get(f"{url}/healthz") as answer:
                        assert answer.status == 200
                        break
                except OSError:
                    await asyncio.sleep(0.05)
        columns, _ = observations(50, 5)
        async with RIrtClient(url, "t") as client:
            await client.calibrate(CalibrateRequest(columns))
        children = descendants(process.pid)
        assert children
        process.send_signal(how)
        code = await asyncio.to_thread(process.wait, 15)
        assert code == (-signal.SIGKILL if how == signal.SIGKILL else 0)
        for _ in range(100):
            if not any(alive(child) for child in children):
                break
            await asyncio.sleep(0.05)
        assert not [child for child in children if alive(child)]
    finally:
        if process.poll() is None:
            process.kill()
