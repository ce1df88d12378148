"""The lookup's answers where no engine is at fault and where one is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request

from stream.engine.kernel.changing import begin_change, end_change
from stream.lookup import theta as module
from stream.lookup.announcements import Announced, Announcements
from stream.lookup.theta import theta_route
from tests.engine.events import event, folded


class Store:
    """PostgreSQL as one learner."""

    async def read(self, user_id: str) -> dict[str, Any] | None:
        if user_id == "away":
            raise OSError
        return {"user_id": user_id, "source": "store"} if user_id == "stored" else None


class Asked:
    """A route over one partition, and how it answers."""

    def __init__(self, session_s: float = 60.0) -> None:
        self.state = folded([event("a", "u1"), event("b", "u/2")])
        self.engine = Announcements()
        self._known = known = Announced(self.engine.connect(), session_s, lambda: None)
        self.engine.hold(0, self.state.store.segment.fd)
        self._route = theta_route(known, Store())  # type: ignore[arg-type]

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()
        self._known.close()

    async def get(self, user_id: str) -> tuple[int, dict[str, Any]]:
        match = {"user_id": user_id}
        request = make_mocked_request("GET", "/theta/x", match_info=match)
        answer: Any = await self._route(request)
        return answer.status, orjson.loads(answer.body)


@pytest.fixture
def asked() -> Iterator[Asked]:
    with Asked() as one:
        one.engine.ready(True)
        yield one


async def test_a_learner_is_told_live_else_from_the_store_else_unknown(asked: Asked) -> None:
    status, body = await asked.get("u/2")
    assert (status, body["source"], body["n"], body["staleness_ms"]) == (200, "live", 1, 0)
    assert [topic["topic_id"] for topic in body["topics"]] == ["t1"]
    assert body["last_attempt_at"] == "2024-09-30T00:00:00.000Z"
    assert (await asked.get("stored"))[1]["source"] == "store"
    assert (await asked.get("nobody"))[0] == 404
    status, body = await asked.get("away")
    assert status == 503
    assert "PostgreSQL does not answer" in body["error"]


async def test_while_state_is_loaded_only_what_is_there_is_told() -> None:
    with Asked() as asked:
        asked.engine.ready(False)
        assert (await asked.get("u1"))[0] == 200
        status, body = await asked.get("stored")
    assert (status, body["error"]) == (503, "loading state, try again soon")


async def test_an_engine_that_is_silent_is_not_believed() -> None:
    with Asked(session_s=0.0) as asked:
        asked.engine.ready(True)
        assert (await asked.get("u1"))[0] == 404
        assert (await asked.get("stored"))[1]["source"] == "store"


async def test_a_learner_is_waited_for_while_it_is_being_changed(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = asked.state.store
    begin_change(store.segment.control, store.find_user("u1"))
    waiting = asyncio.create_task(asked.get("u1"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert (await asked.get("u/2"))[0] == 200
    end_change(store.segment.control)
    assert (await waiting)[0] == 200
    begin_change(store.segment.control, store.find_user("u1"))
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    status, body = await asked.get("u1")
    assert status == 503
    assert "stands still" in body["error"]
