"""``thetastream dlq``: records that could not be counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from stream.dead_letters import from_json, put_back, read_dead_letters
from stream.errors import BrokerUnavailableError, StreamError
from stream.kafka.clients import new_producer
from stream.settings import Settings

__all__ = ["app"]

app = typer.Typer(name="dlq", help="Dead letters: list them, put them back.", no_args_is_help=True)

Reason = Annotated[str | None, typer.Option(help="Only those with this reason code.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, whole.")]


@app.command("list")
def list_(
    reason: Reason = None,
    limit: Annotated[int, typer.Option(help="Most rows in the table; 0: all.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the records that could not be counted, and why.

    Examples:

        thetastream dlq list

        thetastream dlq list --reason invalid --json > letters.jsonl   # to repair in an editor
    """
    letters = read_dead_letters(Settings.from_env(), reason)
    if as_json:
        for letter in letters:
            print(json.dumps(letter.to_json(), ensure_ascii=False))
        return
    out = Console()
    counts = Counter(letter.reason for letter in letters)
    out.print(
        f"{len(letters)} dead letters" + "".join(f", {n} {r}" for r, n in counts.most_common())
    )
    if letters:
        table = Table("attempts at", "reason", "detail", "key", "value")
        for letter in letters[: limit or None]:
            table.add_row(
                f"{letter.source_partition}:{letter.source_offset}",
                letter.reason,
                letter.detail[:80],
                repr(letter.key)[:40],
                repr((letter.value or b"")[:60]),
            )
        out.print(table)


@app.command()
def replay(
    file: Annotated[
        Path | None,
        typer.Argument(help="Repaired lines of `dlq list --json`; default: as they are."),
    ] = None,
    reason: Reason = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send dead letters to attempts again: repaired ones from a file, or as they are.

    An attempt that was counted meanwhile is not counted again; what is still wrong comes back.

    Examples:

        thetastream dlq replay letters.jsonl

        thetastream dlq replay --reason too_late   # after the allowed lateness was raised
    """
    settings = Settings.from_env()
    if file is None:
        letters = read_dead_letters(settings, reason)
        records = [(letter.key, letter.value) for letter in letters]
    else:
        records = []
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = msgspec.json.decode(line, type=dict)
            except msgspec.DecodeError as error:
                raise StreamError(
                    f"{file}, line {number}: {error}. Nothing was sent; repair the line."
                ) from error
            if reason in (None, row.get("reason")):
                records.append(from_json(row))
    producer = new_producer(settings)
    sent = put_back(settings, producer, records)
    if len(producer):
        raise BrokerUnavailableError(f"{len(producer)} of {sent} were not sent; run it again.")
    print(json.dumps({"sent": sent}) if as_json else f"sent {sent} dead letters to attempts again")
