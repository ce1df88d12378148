"""The compose file runs the same roles, with settings that exist."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from stream.app import _ENDING_S, ROLES
from stream.calibration.embedded import main as embedded
from stream.settings import Settings
from tests.k8s.parsing import ROOT, SETTINGS, parse_command

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"].startswith("thetastream:")}
COMMANDS = {name: parse_command(one["command"]) for name, one in OURS.items() if name != "irt"}


def test_every_role_runs_once() -> None:
    roles = [values["role"] for command, values in COMMANDS.values() if command == "run"]
    assert sorted(roles) == sorted(ROLES)
    assert {command for command, _ in COMMANDS.values()} == {"run", "migrate", "topics create"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_environment_names_are_settings_with_allowed_values(name: str) -> None:
    environment = OURS[name]["environment"]
    assert environment.keys() <= SETTINGS.keys()
    # ${NAME:-default}, as compose fills it in where NAME is not set.
    values = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", one) for key, one in environment.items()}
    settings = Settings.from_env(values)
    # No CronJob here: the calibrator itself keeps the time.
    assert settings.calibration_schedule == "03:00"


def test_addresses_are_services_of_the_file() -> None:
    environment = OURS["engine"]["environment"]
    hosts = [
        environment["KAFKA_BROKER"].partition(":")[0],
        re.search(r"@(\w+):", environment["DATABASE_URL"])[1],
        re.search(r"//(\w+):", environment["R_IRT_BASE_URL"])[1],
    ]
    assert hosts == ["kafka", "postgres", "irt"]
    assert environment["KAFKA_BROKER"] in SERVICES["kafka"]["environment"][
        "KAFKA_ADVERTISED_LISTENERS"
    ].replace("INSIDE://", "").split(",")


def test_roles_wait_for_topics_and_tables() -> None:
    for role in ROLES:
        waits = {name: one["condition"] for name, one in SERVICES[role]["depends_on"].items()}
        assert waits["topics"] == waits["migrate"] == "service_completed_successfully"
    for name, server in (("topics", "kafka"), ("migrate", "postgres")):
        assert SERVICES[name]["depends_on"] == {server: {"condition": "service_healthy"}}
        assert "healthcheck" in SERVICES[server]
        # One that is started again never completes.
        assert "restart" not in SERVICES[name]
    assert SERVICES["calibrator"]["depends_on"]["irt"] == {"condition": "service_healthy"}


def test_a_stop_leaves_every_role_time_to_end() -> None:
    for role in ROLES:
        seconds = int(SERVICES[role]["stop_grace_period"].removesuffix("s"))
        # The process ends itself after so many seconds; twice that is for a machine under load.
        assert seconds >= 2 * _ENDING_S


def test_the_calibration_service_listens_where_it_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = SERVICES["irt"]
    assert service["entrypoint"] == ["python", "-m", "stream.calibration.embedded"]
    listening: dict[str, Any] = {}
    monkeypatch.setattr(
        "stream.calibration.embedded.web.run_app", lambda app, **how: listening.update(how)
    )
    embedded(service["command"])
    assert (listening["host"], listening["port"]) == ("0.0.0.0", 8001)
    assert service["environment"]["R_IRT_BASE_URL"].endswith(":8001")


def test_images_are_pinned_and_ports_stay_on_this_machine() -> None:
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {one["image"] for one in OURS.values()} == {f"thetastream:{release}"}
    for service in SERVICES.values():
        assert re.search(r":\d", service["image"])
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
