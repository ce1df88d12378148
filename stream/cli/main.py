"""All commands, mounted; an error of ours ends in its message and exit code 1."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import typer
from rich.console import Console

from stream.cli import calibrate, dlq, local, model, topics
from stream.cli.anchors import tag_anchors_command
from stream.cli.demo import demo
from stream.cli.doctor import doctor
from stream.cli.evaluate import evaluate
from stream.cli.migrate import migrate
from stream.cli.rebuild import rebuild
from stream.cli.replay import replay
from stream.cli.report import report
from stream.cli.run import run
from stream.cli.score import score
from stream.cli.simulate import simulate_command
from stream.cli.theta import theta
from stream.cli.verify import verify
from stream.errors import StreamError
from stream.local.addresses import default_state_dir

__all__ = ["app", "load_stack_addresses", "main"]

app = typer.Typer(
    name="thetastream",
    help="Live, exact learner ability and learning indicators from a stream of attempts.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.add_typer(local.app, name="local")
app.command()(run)
app.command()(migrate)
app.add_typer(topics.app, name="topics")
app.command()(replay)
app.command("simulate")(simulate_command)
app.command()(theta)
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(model.app, name="model")
app.command("tag-anchors")(tag_anchors_command)
app.command()(rebuild)
app.command()(verify)
app.command()(evaluate)
app.command()(score)
app.command()(report)
app.add_typer(dlq.app, name="dlq")
app.command()(doctor)


def load_stack_addresses() -> None:
    """Take addresses that are not set from the local stack's ``stack.env``, where there is one.

    So every command finds the stack that ``thetastream local up`` started, and an address of
    one's own always wins.
    """
    path: Path = default_state_dir() / "stack.env"
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator:
            os.environ.setdefault(name, value)
    port = urlsplit(os.environ.get("THETASTREAM_URL", "")).port
    if port:
        os.environ.setdefault("THETASTREAM_WEB_PORT", str(port))


def main() -> None:
    """Run the command line."""
    # `local` looks at what the user has set, not at what an earlier start has written.
    if sys.argv[1:2] not in (["local"], ["demo"]):
        load_stack_addresses()
    try:
        app()
    except StreamError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, markup=True)
        sys.exit(1)
