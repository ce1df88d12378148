"""Turning the data file into one HTML file: by Quarto where it is, else by knitr and pandoc."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stream.errors import StreamError

__all__ = ["PACKAGES", "Renderer", "ReportError", "installation", "missing_tools", "render"]

Renderer = Literal["quarto", "knitr"]

PACKAGES = ("ggplot2", "jsonlite", "knitr", "svglite")
"""R packages that the report itself uses; Quarto asks for rmarkdown too."""

DOCUMENT = "weekly_report.qmd"

TIMEOUT_S = 600.0
"""Seconds a rendering may take; a large one takes about ten."""

_TAIL_CHARACTERS = 2000


class ReportError(StreamError):
    """The report could not be rendered; the message says what was kept and what to install."""


def missing_tools(renderer: Renderer) -> list[str]:
    """Return the programs and R packages that a renderer lacks; empty when it is whole."""
    programs = ("quarto", "Rscript") if renderer == "quarto" else ("Rscript", "pandoc")
    missing = [program for program in programs if shutil.which(program) is None]
    if "Rscript" in missing:
        return missing
    wanted = [*PACKAGES, "rmarkdown"] if renderer == "quarto" else [*PACKAGES]
    names = ", ".join(f'"{name}"' for name in wanted)
    asked = f"for (p in c({names})) if (!requireNamespace(p, quietly = TRUE)) cat(p, '')"
    done = subprocess.run(  # noqa: S603 - our own words
        ["Rscript", "--no-save", "--no-restore", "-e", asked],  # noqa: S607 - found above
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        return [*missing, f"an Rscript that works ({_tail(done.stderr)})"]
    return missing + [f"the R package {name}" for name in done.stdout.split()]


def installation(renderer: Renderer) -> str:
    """Return the line that installs what a renderer needs on Debian or Ubuntu."""
    packages = " ".join(f"r-cran-{name}" for name in PACKAGES)
    if renderer == "quarto":
        return f"apt-get install -y r-base-core r-cran-rmarkdown {packages}, and Quarto itself"
    return f"apt-get install -y r-base-core pandoc {packages}"


def _choose_renderer() -> Renderer:
    """Return ``quarto`` where it is installed, else ``knitr``."""
    return "quarto" if shutil.which("quarto") else "knitr"


def render(data: Path, output: Path, reports: Path, renderer: Renderer | None = None) -> Renderer:
    """Render a data file into one HTML file that needs no other.

    Parameters
    ----------
    data
        As `stream.report.write_data` writes it. It is left as it is, whatever happens.
    output
        The HTML file; an older one is replaced only by a whole new one.
    reports
        Folder of the document, ``weekly_report.qmd`` and what it uses.
    renderer
        Which; None: Quarto where it is installed.

    Returns
    -------
    str
        The renderer that was used.

    Raises
    ------
    ReportError
        The document or a tool is missing, or the rendering failed.
    """
    kept = f"The data are kept in {data}; `thetastream report --from {data}` renders them."
    if not (reports / DOCUMENT).is_file():
        raise ReportError(
            f"There is no {DOCUMENT} in {reports}, so nothing was rendered. Name the folder "
            f"`reports` of the sources with --reports. {kept}"
        )
    renderer = renderer or _choose_renderer()
    missing = missing_tools(renderer)
    if missing:
        raise ReportError(
            f"{', '.join(missing)} cannot be found, so nothing was rendered. On Debian or "
            f"Ubuntu: {installation(renderer)}. {kept}"
        )
    with tempfile.TemporaryDirectory(prefix="thetastream-report-") as name:
        # A copy: Quarto and knitr write beside the document, which may be read-only.
        work = Path(name) / "reports"
        shutil.copytree(reports, work)
        env = dict(os.environ)
        env |= {"THETASTREAM_REPORT_DATA": str(data.resolve()), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        for command in _commands(renderer):
            _run(command, work, env, kept)
        made = work / "report.html"
        if not made.is_file():
            raise ReportError(f"{renderer} ended without an error and without a report. {kept}")
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_name(output.name + ".partial")
        shutil.copyfile(made, partial)
        partial.replace(output)
    return renderer


def _commands(renderer: Renderer) -> list[list[str]]:
    if renderer == "quarto":
        return [["quarto", "render", DOCUMENT, "--to", "html", "--output", "report.html"]]
    knit = f'knitr::knit("{DOCUMENT}", "report.md", quiet = TRUE)'
    return [
        # --no-init-file: a user's .Rprofile may print or attach what it likes.
        ["Rscript", "--no-save", "--no-restore", "--no-init-file", "-e", knit],
        [
            *("pandoc", "report.md", "--from", "markdown", "--to", "html5"),
            *("--template", "page.html", "--css", "report.css", "--section-divs"),
            # Known to every pandoc; newer ones call it --embed-resources --standalone.
            *("--self-contained", "--output", "report.html"),
        ],
    ]


def _run(command: Sequence[str], work: Path, env: dict[str, str], kept: str) -> None:
    process = subprocess.Popen(  # noqa: S603 - the command is ours
        list(command),
        cwd=work,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A group of its own: Quarto starts R, which would outlive it and hold the pipes open.
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ReportError(
                f"{command[0]} was not done after {TIMEOUT_S:g} s and was ended. {kept}"
            ) from error
        raise
    if process.returncode:
        raise ReportError(
            f"{command[0]} failed: {_tail(stderr or stdout)}. No report was written; an older one "
            f"stays. {kept}"
        )


def _tail(text: str) -> str:
    return " ".join(text.split())[-_TAIL_CHARACTERS:].rstrip(".") or "it said nothing"
