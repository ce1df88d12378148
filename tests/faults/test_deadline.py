"""A process that is told to end does so within its time, with the status that fits."""

from __future__ import annotations

import os
import time

import pytest

from stream import app as app_module
from stream.app import new_app
from stream.settings import Settings


@pytest.mark.parametrize(("failure", "status"), [(None, 0), (ValueError("it failed"), 1)])
def test_what_has_not_stopped_in_time_ends_with_the_status_that_fits(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: ValueError | None,
    status: int,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(app_module, "_ENDING_S", 0.05)
    monkeypatch.setattr(os, "_exit", ended.append)
    app = new_app("sink", Settings())
    app.failure = failure
    app.end_soon()
    app.end_soon()
    ends_at = time.monotonic() + 10
    while not ended and time.monotonic() < ends_at:
        time.sleep(0.01)
    time.sleep(0.2)
    assert ended == [status]
    assert "Nothing is lost: what was not committed is done again" in caplog.text
