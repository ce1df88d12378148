"""``thetastream replay``: a file of attempts into Kafka."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream.errors import BrokerUnavailableError, StreamError
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.settings import Settings
from stream.sources import FORMATS, reader_for
from stream.sources.produce import send_attempts
from topics.catalogue import attempts_topic

__all__ = ["replay"]


def parse_speed(text: str) -> float | None:
    """Read ``max`` or a factor such as ``60x``.

    Raises
    ------
    StreamError
        Neither.
    """
    if text == "max":
        return None
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if factor <= 0:
        raise StreamError(f"--speed {text!r} is not allowed: give max, or a factor such as 60x.")
    return factor


def replay(
    file: Annotated[Path, typer.Argument(help="Attempts, plain or .gz.")],
    format: Annotated[  # noqa: A002 (named as the option is)
        str | None,
        typer.Option(help=f"One of {', '.join(FORMATS)}; default: by the file's name."),
    ] = None,
    speed: Annotated[
        str, typer.Option(help="max, or event time per wall-clock time: 1x, 60x.")
    ] = "max",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send the attempts of a file to Kafka, in the file's order.

    Examples:

        thetastream replay attempts.csv.gz

        thetastream replay attempts.csv.gz --speed 60x   # an hour of attempts a minute
    """
    factor = parse_speed(speed)
    settings = Settings.from_env()
    reader = reader_for(file, format)
    create_topics(settings)
    producer = new_producer(settings)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task(f"sending {file.name}", total=None)
        sent = send_attempts(
            producer,
            settings.topic(attempts_topic.name),
            reader(file),
            speed=factor,
            progress=lambda n: bar.advance(task, n),
        )
    if len(producer):
        raise BrokerUnavailableError(
            f"{len(producer)} of {sent} attempts were not acknowledged by {settings.kafka_broker}. "
            "Send the file again: attempts already counted are recognised as duplicates."
        )
    if as_json:
        print(json.dumps({"file": str(file), "sent": sent}))
    else:
        Console().print(f"sent [bold]{sent:,}[/bold] attempts of {file.name}")
