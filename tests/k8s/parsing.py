"""What the names in a manifest mean to the program: its commands and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.main import get_command

from stream.cli.main import app
from stream.settings import describe

ROOT = Path(__file__).parents[2]
SETTINGS = {row["env"]: row for row in describe()}


def parse_command(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Parse arguments as `thetastream` does, without running anything: the command, its values.

    Raises what the command line would end with: an unknown command, option or value.
    """
    command: Any = get_command(app)
    name, rest, names, context = "thetastream", list(arguments), [], None
    while hasattr(command, "resolve_command"):
        # Without arguments a group would print its help and end.
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
        context.resilient_parsing = False
        name, command, rest = command.resolve_command(context, rest)
        names.append(name)
    return " ".join(names), command.make_context(name, rest, parent=context).params
