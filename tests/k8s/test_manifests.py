"""The manifests fit Kubernetes' schemas, and what they name exists in the program."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

from stream.app import _ENDING_S, ROLES
from stream.settings import Settings
from stream.worker import build
from tests.k8s.conftest import Object
from tests.k8s.parsing import ROOT, SETTINGS, parse_command

KUBERNETES = ("1.33", "1.37")
"""The oldest release the manifests are for, and the newest."""

WEB_PORT = Settings().web_port


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def templates(objects: list[Object]) -> Iterator[Object]:
    """Every pod template."""
    for one in objects:
        if one["kind"] == "CronJob":
            yield one["spec"]["jobTemplate"]["spec"]["template"]
        elif "template" in one.get("spec", {}):
            yield one["spec"]["template"]


def containers(objects: list[Object]) -> Iterator[Object]:
    """Every container, those that only initialise included."""
    for template in templates(objects):
        yield from template["spec"].get("initContainers", [])
        yield from template["spec"]["containers"]


def settings_map(objects: list[Object]) -> Object:
    (found,) = of_kind(objects, "ConfigMap")
    return found


def role_workloads(objects: list[Object]) -> dict[str, Object]:
    """Role -> the Deployment that runs it."""
    found: dict[str, Object] = {}
    for deployment in of_kind(objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        if "command" not in container:  # the image's entrypoint: thetastream
            command, values = parse_command(container["args"])
            assert command == "run"
            assert values["role"] not in found
            found[values["role"]] = deployment
    return found


def selects(selector: Any, labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


@pytest.mark.parametrize("release", KUBERNETES)
def test_every_object_fits_the_schema_strictly(objects: list[Object], release: str) -> None:
    assert objects
    for one in objects:
        kubernetes_validate.validate(one, release, strict=True)


def test_every_role_has_a_workload_that_runs_it(objects: list[Object]) -> None:
    assert set(role_workloads(objects)) == set(ROLES)


def test_settings_are_real_allowed_and_not_secret(objects: list[Object]) -> None:
    data = settings_map(objects)["data"]
    assert data.keys() <= SETTINGS.keys()
    assert not [name for name in data if SETTINGS[name]["secret"]]
    settings = Settings.from_env(data)
    assert settings.web_host == "0.0.0.0"
    # Two schedules would ask twice a day.
    assert settings.calibration_schedule == ""


def test_production_replicates_its_topics_and_runs_three_engines(objects: list[Object]) -> None:
    data = settings_map(objects)["data"]
    replicas = role_workloads(objects)["engine"]["spec"]["replicas"]
    assert 1 <= replicas <= int(data["THETASTREAM_PARTITIONS"])
    if data.get("THETASTREAM_KAFKA_SECURITY_PROTOCOL") == "SASL_SSL":
        assert (replicas, data["THETASTREAM_REPLICATION"]) == (3, "3")


def test_secrets_are_settings_taken_from_one_secret_that_is_not_here(
    objects: list[Object],
) -> None:
    assert not of_kind(objects, "Secret")
    taken = {}
    for container in containers(objects):
        for variable in container.get("env", []):
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference["name"] == "thetastream-secrets"
            assert reference["key"] == variable["name"]
            taken[variable["name"]] = SETTINGS[variable["name"]]["secret"]
    assert taken == {name: True for name, row in SETTINGS.items() if row["secret"]}


def test_each_role_is_given_the_secrets_it_uses(objects: list[Object]) -> None:
    given = {}
    for role, workload in role_workloads(objects).items():
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        given[role] = {variable["name"] for variable in container["env"]}
    common = {"THETASTREAM_API_TOKEN", "THETASTREAM_KAFKA_SASL_PASSWORD"}
    assert given == {
        "engine": common | {"DATABASE_URL"},  # learners that another engine holds
        "calibrator": common | {"R_IRT_INTERNAL_TOKEN", "DATABASE_URL"},  # models' datasets
        "sink": common | {"DATABASE_URL"},
    }


def test_containers_read_the_generated_settings_and_no_service_variables(
    objects: list[Object],
) -> None:
    name = settings_map(objects)["metadata"]["name"]
    for template in templates(objects):
        # A Service called thetastream-web would otherwise set THETASTREAM_WEB_PORT.
        assert template["spec"]["enableServiceLinks"] is False
    for container in containers(objects):
        if "command" not in container:
            assert container["envFrom"] == [{"configMapRef": {"name": name}}]


def test_every_command_exists(objects: list[Object]) -> None:
    commands = {
        parse_command(one["args"])[0] for one in containers(objects) if "command" not in one
    }
    assert commands == {"run", "migrate", "topics create", "calibrate now"}


def test_topics_and_tables_are_there_before_the_sink_starts(objects: list[Object]) -> None:
    sink = role_workloads(objects)["sink"]["spec"]["template"]["spec"]
    assert [parse_command(one["args"])[0] for one in sink["initContainers"]] == [
        "topics create",
        "migrate",
    ]


def test_the_daily_calibration_is_asked_for_at_three_utc(objects: list[Object]) -> None:
    (cron,) = of_kind(objects, "CronJob")
    spec = cron["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 3 * * *", "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    command, values = parse_command(container["args"])
    assert command == "calibrate now"
    # It publishes a request and ends; the calibrator does the work.
    assert (values["kind"], values["wait"]) == ("irt", False)


def test_probes_ask_routes_that_exist_on_the_port_of_the_setting(objects: list[Object]) -> None:
    for role, workload in role_workloads(objects).items():
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        app = build(role, Settings())
        server: Any = app.early_services[0]
        routes = {route.resource.canonical for route in server.routes.router.routes()}
        paths = {}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = container[probe]["httpGet"]
            assert get["port"] == "http"
            paths[probe] = get["path"]
        assert set(paths.values()) <= routes
        # Start and life do not wait for state to be loaded, however long it takes.
        assert paths["startupProbe"] == paths["livenessProbe"] == "/healthz"
        assert paths["readinessProbe"] == "/readyz"
        assert container["ports"] == [{"name": "http", "containerPort": WEB_PORT}]
    assert settings_map(objects)["data"]["THETASTREAM_WEB_PORT"] == str(WEB_PORT)


def test_every_role_has_time_to_end_and_a_hanging_one_holds_nobody_up(
    objects: list[Object],
) -> None:
    for workload in role_workloads(objects).values():
        pod = workload["spec"]["template"]["spec"]
        hook = pod["containers"][0].get("lifecycle", {}).get("preStop", {})
        before = hook.get("sleep", {}).get("seconds", 0)
        given = pod["terminationGracePeriodSeconds"]
        # The process ends itself after so many seconds; twice that is for a machine under load.
        assert 2 * _ENDING_S <= given - before <= 30


def test_services_and_policies_select_pods_by_ports_they_have(objects: list[Object]) -> None:
    pods = [template for template in templates(objects) if template["spec"]["containers"]]
    for service in of_kind(objects, "Service"):
        chosen = [p for p in pods if selects(service["spec"]["selector"], p["metadata"]["labels"])]
        (pod,) = chosen
        names = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    lookup = named(objects, "Service", "thetastream-lookup")
    engine = role_workloads(objects)["engine"]["spec"]["template"]["metadata"]["labels"]
    assert selects(lookup["spec"]["selector"], engine)
    assert [port["port"] for port in lookup["spec"]["ports"]] == [WEB_PORT]
    for policy in of_kind(objects, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        assert selector["matchLabels"]["app.kubernetes.io/name"] == "thetastream"
        known = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}
        for expression in selector.get("matchExpressions", []):
            assert expression["key"] == "app.kubernetes.io/component"
            assert set(expression["values"]) <= known


def test_each_role_loses_one_pod_at_a_time_and_spreads(objects: list[Object]) -> None:
    budgets = of_kind(objects, "PodDisruptionBudget")
    for role, workload in role_workloads(objects).items():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        (budget,) = [b for b in budgets if selects(b["spec"]["selector"]["matchLabels"], labels)]
        assert budget["spec"]["maxUnavailable"] == 1, role
        spread = workload["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [one["topologyKey"] for one in spread] == [
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        ]
        for one in spread:
            assert selects(one["labelSelector"]["matchLabels"], labels)


def test_every_pod_is_restricted(objects: list[Object]) -> None:
    for template in templates(objects):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] >= 10_000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        writable = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            paths = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            # With a read-only root the state directory has to be a volume.
            assert paths[settings_map(objects)["data"]["THETASTREAM_STATE_DIR"]] in writable
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}
            assert "memory" in resources["limits"]


def test_images_carry_the_release(objects: list[Object]) -> None:
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {one["image"] for one in containers(objects)} == {f"thetastream:{release}"}


def test_the_trial_points_the_calibrator_at_the_embedded_service(objects: list[Object]) -> None:
    services = {one["metadata"]["name"] for one in of_kind(objects, "Service")}
    url = settings_map(objects)["data"]["R_IRT_BASE_URL"]
    assert (url == "http://thetastream-fit:8001") == ("thetastream-fit" in services)
