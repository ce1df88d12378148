"""R services of the local stack; without R, a message that says what to install."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import psutil
import pytest

from stream.errors import LocalStackError
from stream.local import r_services
from stream.local.r_services import R_SERVICES, check_r
from stream.local.stack import PARTS, R_PARTS, Stack, running_stack


@pytest.fixture
def path_without_r(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def fake_rscript(directory: Path, script: str) -> None:
    program = directory / "Rscript"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_without_r_the_message_ends_with_the_line_that_installs_it(path_without_r: Path) -> None:
    with pytest.raises(
        LocalStackError, match=r"Rscript was not found(.|\n)*apt-get install r-base"
    ):
        check_r()


def test_missing_packages_are_named_with_the_line_that_installs_them(path_without_r: Path) -> None:
    fake_rscript(path_without_r, "printf 'prophet\\nOpenMx'")
    with pytest.raises(LocalStackError) as caught:
        check_r()
    assert "missing: prophet, OpenMx" in str(caught.value)
    assert str(caught.value).endswith("apt-get install r-cran-prophet r-cran-openmx")


def test_with_everything_there_nothing_is_said(path_without_r: Path) -> None:
    fake_rscript(path_without_r, "exit 0")
    check_r()


def test_nothing_is_started_where_r_is_missing(path_without_r: Path, tmp_path: Path) -> None:
    stack = Stack(tmp_path / "state", env={}, parts=R_PARTS)
    with pytest.raises(LocalStackError, match="Rscript was not found"):
        stack.up()
    assert [service.process() for service in stack.services.values()] == [None] * len(R_PARTS)


def test_every_folder_of_r_is_a_service_of_the_stack() -> None:
    folders = {path.parent.name for path in r_services._FOLDER.glob("*/service.R")}
    assert folders == set(R_SERVICES)


def test_a_service_answers_asks_for_the_shared_token_and_is_ended_by_its_stack() -> None:
    with running_stack(parts=("r-glmm", "r-survival")) as stack:
        addresses = stack.addresses
        assert addresses.environment().keys() >= {
            *("R_GLMM_BASE_URL", "R_SURVIVAL_BASE_URL", "R_IRT_INTERNAL_TOKEN")
        }
        token = {"Authorization": f"Bearer {addresses.r_irt_internal_token}"}
        for url in (addresses.r_glmm_base_url, addresses.r_survival_base_url):
            assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 401
            reply = httpx.get(f"{url}/healthz", headers=token, trust_env=False)
            assert reply.json()["status"] == "ok"
        assert [part.state for part in stack.status()] == ["running", "running"]
        # Another Stack object of the directory knows what was started there.
        assert Stack(stack.state_dir, env={}).parts == ("r-glmm", "r-survival")
        processes = [service.process() for service in stack.services.values()]
    # A child of ours that has ended stays a zombie while nobody asks for its exit code.
    assert len(processes) == 2
    for process in processes:
        assert process is not None
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_stack_that_was_never_started_has_the_usual_parts(tmp_path: Path) -> None:
    assert Stack(tmp_path, env={}).parts == PARTS
