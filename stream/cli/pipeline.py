"""All three roles on one machine, each a supervised child process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from stream.app import ROLES
from stream.local.supervise import Report, RoleSupervisor, role_command, run_roles
from stream.settings import Settings

__all__ = ["run_all", "supervisor"]


def _command(settings: Settings) -> Callable[[str], list[str]]:
    """Return how a role is run: HTTP ports in a row from THETASTREAM_WEB_PORT."""
    first = settings.web_port

    def command(role: str) -> list[str]:
        port = first + ROLES.index(role) if first else 0
        return [*role_command(role), "--web-port", str(port)]

    return command


def supervisor(settings: Settings, env: Mapping[str, str], report: Report) -> RoleSupervisor:
    """Return a supervisor of all roles, not yet running."""
    state = Path(settings.state_dir)
    return RoleSupervisor(
        ROLES,
        env=env,
        log_dir=state / "log",
        run_dir=state / "run",
        command=_command(settings),
        report=report,
    )


def run_all(settings: Settings) -> int:
    """Run all roles until Ctrl-C; one that fails is started again. Returns an exit code."""
    console = Console()
    state = Path(settings.state_dir)
    return run_roles(
        ROLES,
        env=os.environ,
        log_dir=state / "log",
        run_dir=state / "run",
        command=_command(settings),
        report=lambda role, what: console.print(f"{role}: {what}", highlight=False),
    )
