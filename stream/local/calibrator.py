"""The embedded calibrator as a server of the local stack: the R contract without R."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from stream.errors import LocalStackError
from stream.local.processes import write_atomically
from stream.local.service import Command, LocalService

MODULE = "stream.calibration.embedded"
"""The calibrator's entry point; listens on 127.0.0.1 at `--port`."""


class LocalCalibrator(LocalService):
    """The local calibration service.

    Parameters
    ----------
    home
        Its directory: token, log, process record.
    command
        Program and arguments to which `--port PORT` is added; the embedded calibrator by default.
    token
        The Bearer token to ask for; by default one is made at the first start and kept.
    """

    name = "calibrator"
    stop_grace_s = 5.0

    def __init__(
        self, home: Path, command: Sequence[str] | None = None, *, token: str = ""
    ) -> None:
        super().__init__(home)
        self._given_token = token
        self._command = tuple(command) if command else None

    @property
    def address(self) -> str:
        """Base URL of the service."""
        return f"http://127.0.0.1:{self.ports['port']}"

    @property
    def token_file(self) -> Path:
        """Where the token is kept."""
        return self.home / "token"

    @property
    def token(self) -> str:
        """The Bearer token that the service asks for; empty before the first start."""
        try:
            return self.token_file.read_text().strip()
        except FileNotFoundError:
            return ""

    def prepare(self) -> None:
        """Write the token down, or make one once."""
        if self._given_token or not self.token:
            token = self._given_token or secrets.token_urlsafe(24)
            write_atomically(self.token_file, token + "\n", mode=0o600)

    def command(self) -> Command:
        """Return the calibrator's command; its marker is an otherwise idle -X option."""
        marker = f"thetastream={self.home}"
        base = self._command or (sys.executable, "-X", marker, "-m", MODULE)
        return Command(
            argv=(*base, "--port", str(self.ports["port"])),
            marker=marker,
            env={
                **os.environ,
                "R_IRT_INTERNAL_TOKEN": self.token,
                # The working directory is the state directory; ours may be on the path only
                # because we were started in the checkout.
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
        )

    def probe(self) -> None:
        """Ask for its health."""
        import httpx

        try:
            # No proxy from the environment: it listens on this machine.
            with httpx.Client(timeout=2.0, trust_env=False) as client:
                answer = client.get(
                    f"{self.address}/healthz", headers={"Authorization": f"Bearer {self.token}"}
                )
        except httpx.HTTPError as err:
            raise LocalStackError(f"{self.address} does not answer: {err!r}") from err
        if answer.status_code != httpx.codes.OK:
            raise LocalStackError(f"{self.address}/healthz answered {answer.status_code}")
