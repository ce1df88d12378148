"""``thetastream report``: the weekly report, one HTML file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from stream.errors import SourceError
from stream.report import SCHEMA, Renderer, Week, collect, render, write_data
from stream.settings import Settings

__all__ = ["report"]

REPORTS = Path(__file__).resolve().parents[2] / "reports"
"""Of a checkout; an installed package has none, and is told with ``--reports``."""


def _week(text: str) -> Week:
    try:
        return Week.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def report(
    week: Annotated[
        Week | None,
        typer.Option(
            parser=_week,
            metavar="DAY|YYYY-Www",
            help="A day of the week (2025-03-26) or its ISO number (2025-W13); default: the newest "
            "that is over and has attempts.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="HTML file to write; its data go beside it, as .json.")
    ] = Path("report.html"),
    weeks: Annotated[int, typer.Option(min=2, max=104, help="Weeks that trends go back.")] = 12,
    data_only: Annotated[
        bool, typer.Option("--data-only", help="Write the data file and render nothing.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--from", help="Render this data file; no database is asked."),
    ] = None,
    renderer: Annotated[
        Renderer | None,
        typer.Option(help="Default: quarto where it is installed.", show_default=False),
    ] = None,
    reports: Annotated[
        Path, typer.Option(help="Folder of weekly_report.qmd.", show_default=False)
    ] = REPORTS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for a program to read.")
    ] = False,
) -> None:
    """Write the report of a week: what PostgreSQL knew when it was over.

    One HTML file that needs no other, rendered by Quarto, else by R with knitr and pandoc. A
    section without rows says what is missing and how to get it. No learner is named.
    Exit code: 0 written, 1 not rendered (the data file is kept) or no database, 2 wrong argument.

    Examples:

        thetastream report --week 2025-W13 --out report.html

        thetastream report --data-only --out monday.html && thetastream report --from monday.json
    """
    if out.suffix == ".json":
        raise typer.BadParameter(f"{out}: the page is HTML; its data take the name with .json")
    if data is None:
        content = asyncio.run(collect(Settings.from_env(), week, weeks))
        data = out.with_suffix(".json")
        write_data(content, data)
    else:
        content = _read(data)
    used = None if data_only else render(data, out, reports, renderer)
    missing = {
        name: part["missing"]
        for name, part in content.items()
        if isinstance(part, dict) and part.get("missing")
    }
    iso = content["week"]["iso"]
    if as_json:
        shown = {
            "week": iso,
            "out": None if data_only else str(out),
            "data": str(data),
            "renderer": used,
            "missing": missing,
        }
        print(json.dumps(shown, indent=2))
        return
    console = Console(soft_wrap=True)
    what = f"{data} holds the data of" if data_only else f"{out} is the report of"
    console.print(f"{what} {iso}" + (f", by {used}" if used else ""), highlight=False, markup=False)
    for name, why in missing.items():
        console.print(f"  {name}: {why}", highlight=False, markup=False)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = orjson.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise SourceError(f"{path} is not a data file of this report ({SCHEMA})")
    return content
