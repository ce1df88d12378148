"""The contract of item calibration, kept by the R service and by the embedded one alike.

That both find the same is in test_irt_agreement.py, what R does when things go wrong in
test_irt_faults.py.
"""

from __future__ import annotations

import gzip
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from stream.calibration.client import RIrtClient
from stream.calibration.contract import (
    AnchorRecord,
    CalibrateRequest,
    ItemRecord,
    ParamsRecord,
    ScoreRequest,
)
from stream.domain.scoring import eap_scores
from stream.errors import CalibrationRefusedError
from tests.r.answers import as_json, by_item, calibrate, simulate
from tests.r.conftest import TOKEN

pytestmark = pytest.mark.r


@pytest.fixture(params=["embedded", "r_irt"])
def service(request):
    """Either service: what is promised of one is promised of both."""
    return request.getfixturevalue(request.param)


async def score(service, request):
    async with RIrtClient(service.url, TOKEN, max_retries=1) as client:
        return await client.score(request)


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


def test_the_version_is_the_projects(r_irt):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert r_irt.get("/healthz").json()["version"] == project["project"]["version"]
