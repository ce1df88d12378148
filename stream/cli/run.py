"""``thetastream run``: the roles."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import typer

from stream.cli.pipeline import run_all
from stream.settings import Settings

__all__ = ["run"]


def run(
    role: Annotated[
        Literal["engine", "calibrator", "sink", "all"],
        typer.Option(help="Which part of the pipeline this process is; all: one process each."),
    ] = "all",
    web_port: Annotated[
        int | None, typer.Option(help="HTTP port, in place of THETASTREAM_WEB_PORT.")
    ] = None,
) -> None:
    """Run the engine, the calibrator, the sink, or all three, until Ctrl-C.

    Examples:

        thetastream run                  # all roles, each a child process

        thetastream run --role engine    # one role, as in Kubernetes
    """
    settings = Settings.from_env()
    if web_port is not None:
        settings = dataclasses.replace(settings, web_port=web_port)
    if role == "all":
        raise typer.Exit(run_all(settings))
    # Imported late: it loads the whole engine, which no other command needs.
    from stream.worker import run_role

    run_role(role, settings)
