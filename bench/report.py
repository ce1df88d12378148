"""What the comparison found: a table, ``latest.json`` and a chart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.meter import Figure

__all__ = ["chart", "print_table", "ratio", "write_results"]

OURS = "thetastream"


def ratio(figures: Sequence[Figure], figure: Figure) -> float | None:
    """Return how many times our events/s one engine process does of another's, or None.

    Parameters
    ----------
    figures
        All figures; ours is the one of the same population.
    figure
        The other engine's.
    """
    for ours in figures:
        if ours.engine == OURS and ours.learners == figure.learners and ours is not figure:
            return ours.events_per_s / figure.events_per_s
    return None


def print_table(figures: Sequence[Figure], missing: Sequence[str]) -> None:
    """Print the comparison, and what is missing in it."""
    console = Console()
    console.width = max(console.width, 110)
    for learners in dict.fromkeys(figure.learners for figure in figures):
        table = Table(title=f"{learners:,} learners", title_justify="left")
        for name in ("engine", "version", "job"):
            table.add_column(name)
        for name in ("attempts", "events/s", "CPU s/million", "peak MiB", "ours / theirs"):
            table.add_column(name, justify="right")
        for figure in _ranked(figures, learners):
            times = ratio(figures, figure)
            table.add_row(
                figure.engine,
                figure.version,
                figure.job,
                f"{figure.events:,}",
                f"{figure.events_per_s:,.0f}",
                f"{figure.cpu_s_per_million:.1f}",
                f"{figure.peak_rss_mib:,.0f}",
                "" if times is None else f"{times:.2f}",
                style="bold" if figure.job == "whole" else "",
            )
        console.print(table)
        for figure in figures:
            if figure.learners == learners and figure.cpu_s_each:
                each = " and ".join(f"{one:.1f}" for one in figure.cpu_s_each)
                console.print(f"{figure.engine}: CPU seconds {each}", highlight=False)
    for line in missing:
        console.print(line, style="red", highlight=False, markup=False)


def write_results(figures: Sequence[Figure], directory: Path) -> None:
    """Write ``latest.json`` and ``latest.svg``."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = [figure.as_json() for figure in figures]
    (directory / "latest.json").write_text(json.dumps(lines, indent=2) + "\n")
    (directory / "latest.svg").write_text(chart(figures))


def _ranked(figures: Sequence[Figure], learners: int) -> list[Figure]:
    return sorted(
        (figure for figure in figures if figure.learners == learners),
        key=lambda figure: -figure.events_per_s,
    )


_WIDTH = 860
_LEFT = 250
_BAR = 22
_STEP = 32
_FILL = {"whole": "#1b7f5c", "small": "#8a94a6", "read": "#d5d9e0"}


def chart(figures: Sequence[Figure]) -> str:
    """Return the comparison as SVG: a bar an engine, with our ratio to it."""
    parts: list[str] = []
    top = 44
    for learners in dict.fromkeys(figure.learners for figure in figures):
        ranked = _ranked(figures, learners)
        # The limit of reading would leave no room for what is compared.
        longest = max((f.events_per_s for f in ranked if f.job != "read"), default=1)
        parts.append(f'<text x="16" y="{top}" class="h">{learners:,} learners</text>')
        top += 14
        for figure in ranked:
            parts += _bar(
                figure, ratio(figures, figure), min(1, figure.events_per_s / longest), top
            )
            top += _STEP
        top += 34
    height = top + 4
    note = (
        "events/s, one process. Green: the whole job, exactly once; grey: the smaller job; "
        "light: reading and parsing alone (cut off). x: thetastream / this engine."
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img">',
            "<title>thetastream and other stream processors</title>",
            "<style>text{font:13px system-ui,sans-serif;fill:#1f2733}"
            ".h{font-weight:600;font-size:15px}.n{font-size:11px;fill:#5b6675}"
            "@media(prefers-color-scheme:dark){text{fill:#e6e9ee}.n{fill:#a3adba}}</style>",
            *parts,
            f'<text x="16" y="{height - 14}" class="n">{note}</text>',
            "</svg>\n",
        ]
    )


def _bar(figure: Figure, times: float | None, share: float, top: int) -> list[str]:
    width = max(2, round(share * (_WIDTH - _LEFT - 170)))
    label = f"{figure.events_per_s:,.0f}" + (f"  ({times:.2f}x)" if times is not None else "")
    middle = top + _BAR - 6
    return [
        f'<text x="{_LEFT - 10}" y="{middle}" text-anchor="end">{escape(figure.engine)}</text>',
        f'<rect x="{_LEFT}" y="{top}" width="{width}" height="{_BAR}" rx="3" '
        f'fill="{_FILL[figure.job]}"/>',
        f'<text x="{_LEFT + width + 8}" y="{middle}">{label}</text>',
    ]
