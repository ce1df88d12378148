"""`r/install.sh`, with stand-ins for R and Debian's tools: what is installed, and what is told."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

R = Path(__file__).parents[2] / "r"
PACKAGES = (R / "packages.txt").read_text().split()

RSCRIPT = f"printf '%s\\n' {' '.join(name.removeprefix('r-cran-') for name in PACKAGES)}"
"""R that has every package."""

Machine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Run the script where these programs are all there is, each given as a line of shell."""
    for name in ("cat", "dirname", "grep", "sh"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)

    def run(user: int, **programs: str) -> subprocess.CompletedProcess[str]:
        for name, line in {"id": f"echo {user}", **programs}.items():
            path = tmp_path / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{line}\n")
            path.chmod(0o755)
        return subprocess.run(
            ["sh", str(R / "install.sh")],
            env={**os.environ, "PATH": str(tmp_path), "LOG": str(tmp_path / "log")},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_nothing_is_installed_where_all_is_there_wherever_it_came_from(machine: Machine) -> None:
    done = machine(1000, Rscript=RSCRIPT, pandoc="exit 0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_root_it_fails_and_names_what_is_missing(machine: Machine) -> None:
    done = machine(1000, dpkg="exit 0", apt_get='echo "$@" >>"$LOG"')
    assert done.returncode == 1
    assert f"are missing: {' '.join(PACKAGES)}\n" in done.stderr
    assert f"apt-get install --no-install-recommends {' '.join(PACKAGES)}\n" in done.stderr


def test_without_apt_root_is_told_the_same(machine: Machine) -> None:
    done = machine(0, Rscript=RSCRIPT.replace("prophet", ""), pandoc="exit 0")
    assert done.returncode == 1
    assert "missing: r-cran-prophet\n" in done.stderr


def test_what_debians_r_needs_without_saying_so_is_asked_for_on_debian(machine: Machine) -> None:
    """RcppParallel does not load there without dpkg-architecture."""
    done = machine(1000, Rscript=RSCRIPT, pandoc="exit 0", dpkg="exit 0")
    assert done.returncode == 1
    assert "missing: dpkg-dev\n" in done.stderr


def test_root_on_debian_gets_what_is_missing_and_no_more(machine: Machine, tmp_path: Path) -> None:
    done = machine(0, Rscript=RSCRIPT.replace("rpf", ""), apt_get='echo "$@" >>"$LOG"')
    assert (done.returncode, done.stderr) == (0, "")
    update, install = (tmp_path / "log").read_text().splitlines()
    assert " update " in update
    assert install.endswith(" install -y -qq --no-install-recommends pandoc r-cran-rpf")


@pytest.mark.parametrize("step", ["update", "install"])
def test_an_apt_that_fails_is_told_with_what_to_do(machine: Machine, step: str) -> None:
    failing = f'case "$*" in *" {step} "*) echo "E: no network" >&2; exit 100;; esac'
    done = machine(0, apt_get=failing)
    assert done.returncode == 1
    assert "E: no network" in done.stderr
    assert "apt-get failed, as told above; nothing that needs R was run" in done.stderr
