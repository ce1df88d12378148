"""`thetastream local`: start, look at and end the local stack."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream.errors import LocalStackError
from stream.local.addresses import PartStatus, default_state_dir, without_password
from stream.local.stack import PARTS, R_PARTS, Stack

__all__ = ["app"]

EXIT_NOT_ALL_RUNNING = 3
"""`status` found a part that cannot be used; 1 and 2 are errors of the command itself."""

_COLOURS = {
    "running": "green",
    "external": "cyan",
    "unhealthy": "yellow",
    "stopped": "red",
    "unreachable": "red",
}

app = typer.Typer(
    name="local",
    help="The local stack: a real Kafka, a real PostgreSQL and the embedded calibrator.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_out = Console()
_err = Console(stderr=True)

StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        help="Where the stack lives; default THETASTREAM_STATE_DIR, else .local",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command(
    epilog="Examples: [bold]thetastream local up[/bold]; "
    "[bold]KAFKA_BROKER=broker:9092 thetastream local up[/bold] (all but Kafka)"
)
def up(
    state_dir: StateDir = None,
    as_json: AsJson = False,
    r: Annotated[
        bool,
        typer.Option("--r", help="Real R: its calibrator in place of the embedded one, models."),
    ] = False,
) -> None:
    """Start what does not run yet, wait until all answers, print the addresses.

    A part whose address is set (KAFKA_BROKER, DATABASE_URL, R_IRT_BASE_URL) is not started.
    The stack stays up after this command; the addresses are also in STATE_DIR/stack.env.
    """
    stack = Stack(state_dir or default_state_dir(), parts=R_PARTS if r else PARTS)
    with _err.status("starting the local stack") as spinner:

        def progress(part: str, what: str) -> None:
            spinner.update(f"{part}: {escape(what)}")
            if not as_json:
                _err.print(f"[bold]{part:<10}[/bold] {escape(what)}")

        try:
            addresses = stack.up(progress)
        except LocalStackError as err:
            _fail(err)
    if as_json:
        _print_json(stack, stack.status())
        return
    for name, value in addresses.environment().items():
        _out.print(f"{name}={_shown(name, value)}", highlight=False, soft_wrap=True)
    _out.print(f"[dim]with passwords in {escape(str(stack.env_file))}[/dim]", soft_wrap=True)


@app.command(epilog="Example: [bold]thetastream local down[/bold]")
def down(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """End exactly what `up` started; the data is kept, parts of your own are left alone."""
    stack = _stack(state_dir)
    try:
        ended = stack.down()
    except LocalStackError as err:
        _fail(err)
    if as_json:
        typer.echo(json.dumps({"state_dir": str(stack.state_dir), "ended": ended}))
    else:
        _out.print(f"ended: {', '.join(ended)}" if ended else "nothing was running")


@app.command(
    epilog="Examples: [bold]thetastream local status[/bold]; "
    "[bold]thetastream local status --json | jq '.parts\\[].state'[/bold]"
)
def status(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Ask each part how it is. Exit code 0: all can be used; 3: one cannot."""
    stack = _stack(state_dir)
    parts = stack.status()
    if as_json:
        _print_json(stack, parts)
    else:
        table = Table("part", "state", "address", "pid", "")
        for part in parts:
            table.add_row(
                part.name,
                f"[{_COLOURS[part.state]}]{part.state}[/]",
                escape(part.address),
                str(part.pid or ""),
                escape(part.detail),
            )
        _out.print(table)
    if not all(part.ok for part in parts):
        raise typer.Exit(EXIT_NOT_ALL_RUNNING)


def _stack(state_dir: Path | None) -> Stack:
    return Stack(state_dir or default_state_dir())


def _shown(name: str, value: str) -> str:
    return "***" if name.endswith("TOKEN") else without_password(value)


def _print_json(stack: Stack, parts: list[PartStatus]) -> None:
    addresses = stack.addresses.environment()
    typer.echo(
        json.dumps(
            {
                "state_dir": str(stack.state_dir),
                "env_file": str(stack.env_file),
                "all_running": all(part.ok for part in parts),
                "parts": [asdict(part) for part in parts],
                "addresses": {name: _shown(name, value) for name, value in addresses.items()},
            },
            indent=2,
        )
    )


def _fail(err: LocalStackError) -> NoReturn:
    _err.print(f"[red]error:[/red] {escape(str(err))}", soft_wrap=True, highlight=False)
    raise typer.Exit(1)
