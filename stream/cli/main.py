"""All commands, mounted; an error of ours ends in its message and exit code 1."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from stream.cli.run import run
from stream.errors import StreamError

__all__ = ["app", "main"]

app = typer.Typer(
    name="thetastream",
    help="Live, exact learner ability and learning indicators from a stream of attempts.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command()(run)


@app.callback()
def _thetastream() -> None:
    """Live, exact learner ability and learning indicators from a stream of attempts."""


def main() -> None:
    """Run the command line."""
    try:
        app()
    except StreamError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)
