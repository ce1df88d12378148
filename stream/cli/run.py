"""``thetastream run``: the roles."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from stream.settings import Settings

__all__ = ["run"]


def run(
    role: Annotated[
        Literal["engine", "calibrator", "sink", "all"],
        typer.Option(help="Which part of the pipeline this process is; all: one process each."),
    ] = "all",
) -> None:
    """Run the engine, the calibrator, the sink, or all three, until Ctrl-C.

    Examples:

        thetastream run                  # all roles, each a child process

        thetastream run --role engine    # one role, as in Kubernetes
    """
    settings = Settings.from_env()
    if role == "all":
        from stream.cli.pipeline import run_all

        run_all(settings)
        return
    from stream.worker import run_role

    run_role(role, settings)
