"""Fixtures: the R services, each a child process on a free port, and the embedded calibrator.

Nothing here is skipped: where R or one of its packages is missing, the tests fail and say what
to install.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

R = Path(__file__).parents[2] / "r"

TOKEN = "secret"

START_SECS = 180
"""R needs seconds to load its packages, more on a busy machine."""


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=300.0,
            trust_env=False,
        )

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Send a body as JSON; bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content, headers=headers)

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the structured log so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def workers(self) -> list[int]:
        """Process ids of the R workers."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            # One that ends at this moment is none.
            with suppress(psutil.NoSuchProcess):
                if any(part.endswith("worker.R") for part in child.cmdline()):
                    found.append(child.pid)
        return found

    def end(self, how: int = signal.SIGTERM) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(15)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], port: int, log: Path, **settings: str) -> Service:
    environment = {**os.environ, "R_IRT_INTERNAL_TOKEN": TOKEN, **settings}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr
        )
    service = Service(process, f"http://127.0.0.1:{port}", log)
    until = time.monotonic() + START_SECS
    while time.monotonic() < until and process.poll() is None:
        try:
            if service.get("/healthz").status_code == 200:
                return service
        except httpx.TransportError:
            time.sleep(0.1)
    service.end(signal.SIGKILL)
    pytest.fail(f"{' '.join(command)} did not start: {log.read_text()[-2000:]}", pytrace=False)


StartR = Callable[..., Service]


@pytest.fixture(scope="session")
def start_r(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartR]:
    """Start ``r/<name>/service.R`` with settings of its own; ended with the session."""
    if shutil.which("Rscript") is None:
        packages = " ".join((R / "packages.txt").read_text().split())
        pytest.fail(f"Rscript is missing; on Debian: apt-get install {packages}", pytrace=False)
    running: list[Service] = []

    def start_service(name: str, **settings: str) -> Service:
        port = free_port()
        log = tmp_path_factory.mktemp("r") / f"{name}.log"
        command = ["Rscript", "--vanilla", str(R / name / "service.R")]
        service = start(command, port, log, R_SERVICE_PORT=str(port), **settings)
        running.append(service)
        return service

    yield start_service
    for service in running:
        service.end()


@pytest.fixture(scope="session")
def r_irt(start_r: StartR) -> Service:
    """The R item calibration."""
    return start_r("irt")


@pytest.fixture(scope="session")
def r_glmm(start_r: StartR) -> Service:
    """The R growth model of lme4."""
    return start_r("glmm")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The embedded calibrator."""
    port = free_port()
    command = [sys.executable, "-m", "stream.calibration.embedded", "--port", str(port)]
    service = start(command, port, tmp_path_factory.mktemp("embedded") / "log")
    yield service
    service.end()
