"""What a process says of itself, by what it has heard of its consumer group."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stream.lookup.server import process_health
from stream.settings import Settings

SESSION_S = 10.0


def app(**changes: Any) -> Any:
    """An app that is well, with some things changed."""
    silence_s = changes.pop("silence_s", 1.0)
    return SimpleNamespace(
        settings=Settings(session_timeout_secs=SESSION_S),
        silence_s=lambda: silence_s,
        **{"failure": None, "crashed": False, "has_joined": True, **changes},
    )


def test_a_process_that_is_well_is_alive_and_ready() -> None:
    health = process_health(app())
    assert (health.alive(), health.ready()) == (None, None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"has_joined": False}, "not yet in the consumer group"),
        ({"silence_s": SESSION_S + 1}, "not heard of for 11 s"),
        ({"failure": ValueError()}, "ending after an error"),
        ({"crashed": True}, "ending after an error"),
    ],
)
def test_what_keeps_a_process_from_its_work_is_told_and_is_no_reason_to_restart_it(
    changes: dict[str, Any], reason: str
) -> None:
    health = process_health(app(**changes))
    assert reason in str(health.ready())
    assert health.alive() is None


def test_a_silence_longer_than_a_brokers_restart_is_a_reason_to_restart_the_process() -> None:
    assert process_health(app(silence_s=299.0)).alive() is None
    assert "for 301 s" in str(process_health(app(silence_s=301.0)).alive())


def test_what_the_role_itself_lacks_is_told_when_all_else_is_well() -> None:
    assert process_health(app(), lambda: "PostgreSQL").ready() == "PostgreSQL"
    assert "consumer group" in str(process_health(app(has_joined=False), lambda: "it").ready())
