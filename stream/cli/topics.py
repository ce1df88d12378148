"""``thetastream topics``: make and check the Kafka topics."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stream.kafka.admin import create_topics, describe_topics
from stream.settings import Settings

__all__ = ["app"]

app = typer.Typer(name="topics", help="The Kafka topics.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def create(as_json: AsJson = False) -> None:
    """Make the topics that are missing; those that exist are left as they are.

    Examples:

        thetastream topics create
    """
    made = create_topics(Settings.from_env())
    if as_json:
        print(json.dumps({"created": made}))
    else:
        Console().print("made " + ", ".join(made) if made else "all topics exist", highlight=False)


@app.command()
def describe(as_json: AsJson = False) -> None:
    """Compare every topic with the catalogue; exit 1 when one is missing or differs.

    Examples:

        thetastream topics describe --json
    """
    states = describe_topics(Settings.from_env())
    if as_json:
        rows = [
            {
                "topic": state.name,
                "key": state.spec.key,
                "partitions": state.partitions,
                "wanted_partitions": state.wanted_partitions,
                "config": state.spec.config(),
                "about": state.spec.about,
                "problem": state.problem,
            }
            for state in states
        ]
        print(json.dumps(rows))
    else:
        table = Table("topic", "key", "partitions", "kept", "state", "about")
        for state in states:
            days = state.spec.retention_days
            kept = "newest a key" if state.spec.cleanup == "compact" else f"{days} days"
            table.add_row(
                state.name,
                state.spec.key,
                str(state.partitions or "-"),
                kept,
                f"[red]{state.problem}[/red]" if state.problem else "[green]ok[/green]",
                state.spec.about,
            )
        Console().print(table)
    if any(state.problem for state in states):
        raise typer.Exit(1)
