"""Every role ends in time when it is told to, whatever is away, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from stream.local.service import LocalService
from stream.local.stack import Stack
from tests.faults.roles import RoleProcess, Roles, end_all
from tests.faults.servers import silent, stopped

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WITHIN_S = 10.0
ALL = ("engine", "calibrator", "sink")
Away = Callable[[LocalService], AbstractContextManager[None]]
WELL = dict.fromkeys(ALL, 0)


def ready(roles: Roles) -> list[RoleProcess]:
    return [one.wait_ready() for one in [roles.start(role) for role in ALL]]


@pytest.mark.parametrize("away", [stopped, silent])
@pytest.mark.parametrize("part", ["kafka", "postgres"])
def test_every_role_ends_in_time_while_a_server_is_away_and_nothing_is_lost(
    breakable: Stack,
    roles: Roles,
    part: str,
    away: Callable[[LocalService], AbstractContextManager[None]],
) -> None:
    processes = ready(roles)
    roles.send(2000)
    roles.wait_counted(2000)
    # What is sent now is folded and, very likely, not committed when the server goes.
    roles.send(3000)
    with away(breakable.services[part]):
        assert end_all(processes, WITHIN_S) == WELL
    roles.start("engine").wait_ready()
    roles.wait_counted(5000)


def test_a_role_that_waits_for_a_broker_from_the_start_ends_in_time(
    roles: Roles, unused_tcp_port: int
) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    processes = [roles.start(role, kafka_broker=address) for role in ALL]
    for one in processes:
        one.wait_status("/healthz", 200)
        one.wait_status("/readyz", 503)
    assert end_all(processes, WITHIN_S) == WELL


def test_a_role_that_has_nothing_to_wait_for_ends_at_once(roles: Roles) -> None:
    processes = ready(roles)
    roles.send(1000)
    roles.wait_counted(1000)
    assert end_all(processes, WITHIN_S) == WELL
    for one in processes:
        assert "has not stopped in good order" not in one.text()
