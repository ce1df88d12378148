"""The R services as servers of the local stack: item calibration and the models."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from stream.errors import LocalStackError
from stream.local.calibrator import LocalCalibrator
from stream.local.service import Command

__all__ = ["R_SERVICES", "LocalRService", "check_r"]

R_SERVICES: dict[str, tuple[str, ...]] = {
    "irt": ("OpenMx", "rpf", "Matrix"),
    "glmm": ("lme4",),
    "growth": ("rstanarm",),
    "forecast": ("prophet",),
    "survival": ("survival",),
    "segments": ("cluster",),
}
"""A folder in ``r/`` each, and the packages its fits need."""

_SHARED_PACKAGES = ("plumber", "promises", "later", "processx", "jsonlite")

_FOLDER = Path(__file__).parents[2] / "r"


class LocalRService(LocalCalibrator):
    """One R service.

    Parameters
    ----------
    service
        Its folder in ``r/``.
    home
        Its directory: log, ports, process record.
    token_file
        Where the Bearer token is that all R services share; made at the first start.
    token
        The token to ask for, in place of one of its own making.
    """

    # Six R processes load their packages side by side; Stan's take longest.
    start_timeout_s = 300.0

    def __init__(self, service: str, home: Path, token_file: Path, *, token: str = "") -> None:
        super().__init__(home, token=token)
        self.name = f"r-{service}"
        self._service = service
        self._token_file = token_file

    @property
    def token_file(self) -> Path:
        """Where the token is."""
        return self._token_file

    def command(self) -> Command:
        """Return the service's command; its marker is an argument that R passes over."""
        marker = f"thetastream={self.home}"
        return Command(
            argv=(
                shutil.which("Rscript") or "Rscript",
                str(_FOLDER / self._service / "service.R"),
                marker,
            ),
            marker=marker,
            env={
                **os.environ,
                "R_SERVICE_PORT": str(self.ports["port"]),
                "R_SERVICE_WORKERS": "1",
                "R_IRT_INTERNAL_TOKEN": self.token,
            },
        )


def check_r() -> None:
    """Check that R and the packages of all services are there.

    Raises
    ------
    LocalStackError
        Something is missing; the message ends with the line that installs it.
    """
    if not (_FOLDER / "lib" / "server.R").is_file():
        raise LocalStackError(
            f"the R services are not at {_FOLDER}: they come with a checkout, not with the package"
        )
    packages = sorted({*_SHARED_PACKAGES, *(p for needs in R_SERVICES.values() for p in needs)})
    rscript = shutil.which("Rscript")
    if rscript is None:
        raise LocalStackError(
            f"Rscript was not found. On Debian or Ubuntu:\n  {_installation(['r-base'], packages)}"
        )
    quoted = ", ".join(f'"{package}"' for package in packages)
    asked = f'cat(Filter(function(p) !nzchar(system.file(package = p)), c({quoted})), sep = "\\n")'
    done = subprocess.run(  # noqa: S603 - the command is ours
        [rscript, "--vanilla", "-e", asked], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LocalStackError(f"{rscript} does not run: {done.stderr.strip()[-500:]}")
    if missing := done.stdout.split():
        raise LocalStackError(
            f"R packages are missing: {', '.join(missing)}. On Debian or Ubuntu:\n"
            f"  {_installation([], missing)}"
        )


def _installation(first: list[str], packages: list[str]) -> str:
    debian = [*first, *(f"r-cran-{package.lower()}" for package in packages)]
    return f"apt-get install {' '.join(debian)}"
