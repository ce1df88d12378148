"""The client against a service that misbehaves on cue."""

import gzip
import json
import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from stream.calibration.client import RIrtClient
from stream.calibration.contract import (
    AnchorRecord,
    CalibrateRequest,
    ItemRecord,
    ObservationColumns,
    ObservationRow,
    ParamsRecord,
    ScoreRequest,
)
from stream.errors import (
    CalibrationRefusedError,
    CalibrationResponseError,
    CalibrationUnavailableError,
)
from stream.service_client import GZIP_FROM_BYTES
from stream.testing.fake_r_irt import (
    FakeRIrt,
    connection_error,
    good_calibration,
    html,
    json_text,
    status,
    timeout,
)

ROWS = [ObservationRow("u1", "q1", True), ObservationRow("u2", "q1", False, 1700000000000)]
COLUMNS = ObservationColumns(["u1", "u2"], ["q1", "q1"], [True, False], [None, 1700000000000])


def client(fake, **options):
    return RIrtClient(
        "http://r-irt.test:8001",
        options.pop("token", "secret"),
        transport=fake.transport,
        sleep=fake.sleep,
        **options,
    )


async def test_a_calibration_is_asked_for_as_the_contract_says():
    fake = FakeRIrt()
    anchor = AnchorRecord("q1", ParamsRecord(1.2, -0.5))
    async with client(fake) as r:
        response = await r.calibrate(CalibrateRequest(ROWS, "1PL", [anchor]))
    (request,) = fake.requests
    assert (request.method, request.url.path) == ("POST", "/irt/calibrate")
    assert request.headers["Authorization"] == "Bearer secret"
    assert fake.body() == {
        "observations": [
            {"user_id": "u1", "item_id": "q1", "is_correct": True, "responded_at": None},
            {"user_id": "u2", "item_id": "q1", "is_correct": False, "responded_at": 1700000000000},
        ],
        "model": "1PL",
        "anchors": [{"item_id": "q1", "params": {"a": 1.2, "b": -0.5, "c": 0.0}, "fixed": True}],
    }
    assert response.item_params[0].params.a == 1.0
    assert [ability.user_id for ability in response.abilities] == ["u1", "u2"]
    assert response.fit_meta.linking_constants.slope == 1.0
    assert fake.waits == []


async def test_without_a_token_none_is_sent():
    fake = FakeRIrt()
    async with client(fake, token="") as r:
        await r.calibrate(CalibrateRequest(ROWS))
    assert "Authorization" not in fake.requests[0].headers


async def test_columns_go_to_a_service_that_takes_them_and_rows_to_one_that_does_not():
    modern, plain = FakeRIrt(accepts=("rows", "columns")), FakeRIrt()
    for fake in (modern, plain):
        async with client(fake) as r:
            await r.calibrate(CalibrateRequest(COLUMNS))
    assert modern.body()["observations"]["user_id"] == ["u1", "u2"]
    assert plain.body()["observations"][1] == {
        "user_id": "u2",
        "item_id": "q1",
        "is_correct": False,
        "responded_at": 1700000000000,
    }


async def test_large_bodies_are_gzipped_and_small_ones_are_not():
    fake = FakeRIrt()
    many = [ObservationRow(f"user-{k}", "q1", k % 2 == 0) for k in range(2000)]
    async with client(fake) as r:
        await r.calibrate(CalibrateRequest(ROWS))
        await r.calibrate(CalibrateRequest(many))
    small, large = fake.requests
    assert "Content-Encoding" not in small.headers
    assert large.headers["Content-Encoding"] == "gzip"
    assert len(large.content) < GZIP_FROM_BYTES < len(gzip.decompress(large.content))
    assert len(fake.body()["observations"]) == 2000


@pytest.mark.parametrize(
    "fault", [status(500), status(502), status(503), status(429), timeout, connection_error]
)
async def test_what_may_pass_is_tried_again_with_growing_waits(fault, caplog):
    fake = FakeRIrt([fault, fault])
    with caplog.at_level(logging.INFO, "stream.service_client"):
        async with client(fake) as r:
            response = await r.calibrate(CalibrateRequest(ROWS))
    assert response.status == "succeeded"
    assert len(fake.requests) == 3
    assert fake.waits == [5.0, 10.0]
    tries = [record.getMessage() for record in caplog.records if "try" in record.getMessage()]
    assert [f"try {k} of 3" in message for k, message in zip((1, 2, 3), tries, strict=True)] == [
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("fault", [status(500, "out of memory"), timeout, connection_error])
async def test_after_the_last_try_the_service_is_unavailable(fault):
    fake = FakeRIrt([fault] * 9)
    async with client(fake, max_retries=4, retry_delay_s=2.0) as r:
        with pytest.raises(CalibrationUnavailableError, match="try 4 of 4, the last") as caught:
            await r.calibrate(CalibrateRequest(ROWS))
    assert caught.value.retriable
    assert len(fake.requests) == 4
    assert fake.waits == [2.0, 4.0, 6.0]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 409, 413, 422])
async def test_a_refusal_is_not_tried_again_and_tells_the_services_reason(code):
    fake = FakeRIrt([status(code, "is_correct is missing")])
    async with client(fake) as r:
        with pytest.raises(
            CalibrationRefusedError, match=f"{code}: is_correct is missing"
        ) as caught:
            await r.calibrate(CalibrateRequest(ROWS))
    assert not caught.value.retriable
    assert len(fake.requests) == 1


async def test_retry_after_is_honoured_as_seconds_and_as_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    fake = FakeRIrt([status(429, Retry_After="17"), status(503, Retry_After=later)])
    async with client(fake) as r:
        await r.calibrate(CalibrateRequest(ROWS))
    assert fake.waits[0] == 17.0
    assert 35.0 <= fake.waits[1] <= 40.0


async def test_a_retry_after_that_is_short_or_nonsense_leaves_the_usual_wait():
    fake = FakeRIrt([status(429, Retry_After="1"), status(429, Retry_After="soon")])
    async with client(fake) as r:
        await r.calibrate(CalibrateRequest(ROWS))
    assert fake.waits == [5.0, 10.0]


async def test_a_service_that_asks_for_an_hour_is_away():
    fake = FakeRIrt([status(503, Retry_After="3600")])
    async with client(fake) as r:
        with pytest.raises(CalibrationUnavailableError, match="try 1 of 3"):
            await r.calibrate(CalibrateRequest(ROWS))
    assert fake.waits == []


def altered(change):
    """A good response to ROWS, changed, as text (json writes NaN as NaN)."""
    response = good_calibration(
        {"observations": {"user_id": ["u1", "u2"], "item_id": ["q1", "q1"]}, "model": "2PL"}
    )
    change(response)
    return json_text(json.dumps(response))


def set_in(*path, value):
    def change(response):
        for key in path[:-1]:
            response = response[key]
        response[path[-1]] = value

    return change


ITEM, ABILITY = ("item_params", 0), ("abilities", 0)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (json_text('{"status": "succ'), "not the contract's.*16 bytes"),
        (json_text(""), "not the contract's.*0 bytes"),
        (json_text("null"), "not the contract's"),
        (html, "not the contract's.*<html>"),
        (status(302), "302"),
        (altered(set_in(*ITEM, "params", "a", value=float("nan"))), "not the contract's"),
        (altered(set_in(*ABILITY, "theta", value=float("inf"))), "not the contract's"),
        (altered(set_in(*ABILITY, "theta", value=None)), "not the contract's"),
        (altered(set_in(*ABILITY, "theta", value="0.3")), "not the contract's"),
        (altered(set_in(*ABILITY, "theta", value=1e999)), "not the contract's"),
        (altered(lambda r: r.pop("abilities")), "missing required field `abilities`"),
        (altered(lambda r: r["fit_meta"].pop("run_id")), "missing required field `run_id`"),
        (altered(set_in(*ITEM, "params", "a", value=-0.5)), "'q1'.*a is -0.5"),
        (altered(set_in(*ITEM, "params", "c", value=1.0)), "'q1'.*c is 1.0"),
        (altered(set_in(*ITEM, "se", "b", value=-1.0)), "standard error of -1.0 for b"),
        (altered(set_in(*ITEM, "item_id", value="q9")), "1 items that were not.*'q9'"),
        (altered(set_in(*ABILITY, "user_id", value="u9")), "1 learners that were not.*'u9'"),
        (altered(set_in(*ABILITY, "user_id", value="u2")), "a learner twice"),
        (altered(set_in(*ABILITY, "se", value=0.0)), "se 0.0 for learner 'u1'"),
        (altered(set_in("item_params", value=[])), "no item parameters"),
        (altered(set_in("fit_meta", "linking_constants", "slope", value=0.0)), "linking constants"),
        (altered(set_in("status", value="failed")), "status 'failed'"),
    ],
)
async def test_an_answer_that_is_not_the_contracts_is_refused_at_once(answer, told):
    fake = FakeRIrt([answer])
    async with client(fake) as r:
        with pytest.raises(CalibrationResponseError, match=told) as caught:
            await r.calibrate(CalibrateRequest(ROWS))
    assert not caught.value.retriable
    assert len(fake.requests) == 1


def raises(error):
    def step(request):
        raise error("scripted", request=request)

    return step


@pytest.mark.parametrize(
    ("fault", "ours"),
    [
        (httpx.ConnectTimeout, CalibrationUnavailableError),
        (httpx.ReadTimeout, CalibrationUnavailableError),
        (httpx.WriteTimeout, CalibrationUnavailableError),
        (httpx.PoolTimeout, CalibrationUnavailableError),
        (httpx.ConnectError, CalibrationUnavailableError),
        (httpx.ReadError, CalibrationUnavailableError),
        (httpx.WriteError, CalibrationUnavailableError),
        (httpx.CloseError, CalibrationUnavailableError),
        (httpx.ProxyError, CalibrationUnavailableError),
        (httpx.RemoteProtocolError, CalibrationUnavailableError),
        (httpx.LocalProtocolError, CalibrationRefusedError),
        (httpx.UnsupportedProtocol, CalibrationRefusedError),
        (httpx.DecodingError, CalibrationResponseError),
        (httpx.TooManyRedirects, CalibrationResponseError),
    ],
)
async def test_every_error_of_httpx_becomes_one_of_ours(fault, ours):
    async with client(FakeRIrt([raises(fault)] * 3)) as r:
        with pytest.raises(ours):
            await r.calibrate(CalibrateRequest(ROWS))


async def test_a_try_that_trickles_on_past_its_limit_is_given_up():
    async def trickle(request):
        import asyncio

        await asyncio.sleep(30)
        return httpx.Response(200)

    fake = FakeRIrt()
    fake.transport = httpx.MockTransport(trickle)
    async with client(fake, timeout_s=0.05, max_retries=2) as r:
        with pytest.raises(CalibrationUnavailableError, match=r"within 0\.05 s"):
            await r.calibrate(CalibrateRequest(ROWS))
    assert fake.waits == [5.0]


@pytest.mark.parametrize("url", ["http://r-irt:port", "ftp://r-irt:8001", "r-irt:8001"])
async def test_a_base_url_that_cannot_be_used_is_named(url):
    with pytest.raises(CalibrationRefusedError, match="R_IRT_BASE_URL"):
        async with RIrtClient(url) as r:
            await r.calibrate(CalibrateRequest(ROWS))


async def test_a_service_that_is_not_there_is_unavailable_over_a_real_socket():
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    async with RIrtClient("http://127.0.0.1:9", max_retries=2, sleep=sleep) as r:
        with pytest.raises(CalibrationUnavailableError, match="the last"):
            await r.calibrate(CalibrateRequest(COLUMNS))
    assert slept == [5.0]


async def test_scores_are_asked_for_and_checked_the_same_way():
    request = ScoreRequest(ROWS, [ItemRecord("q1", ParamsRecord(1.0, 0.0))])
    good = json_text('{"abilities": [{"user_id": "u1", "theta": 0.2, "se": 0.9}]}')
    wrong = json_text('{"abilities": [{"user_id": "u7", "theta": 0.2, "se": 0.9}]}')
    fake = FakeRIrt([good, wrong])
    async with client(fake) as r:
        (ability,) = await r.score(request)
        assert (ability.user_id, ability.theta, ability.se) == ("u1", 0.2, 0.9)
        assert fake.requests[0].url.path == "/irt/score"
        with pytest.raises(CalibrationResponseError, match="'u7'"):
            await r.score(request)
