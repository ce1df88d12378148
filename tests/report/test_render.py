"""The page itself: whole, self-contained, accessible, and safe from what the data hold."""

from __future__ import annotations

import json
import os
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from stream.cli.report import REPORTS
from stream.report import ReportError, collect, render, write_data
from stream.settings import Settings

from .conftest import WEEK, add_day, add_everything

HEADINGS = [
    "Summary", "Theta trend", "Abilities and difficulties", "Item map", "Calibration",
    "IRT linking / equating", "Growth", "Forecast", "Churn", "Segments", "Drift alerts",
]  # fmt: skip
VOID = {"meta", "link", "br", "hr", "img", "input", "col", "wbr"}


class Page(HTMLParser):
    """A page's elements; raises where one is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def rendered(data: dict[str, Any], folder: Path) -> tuple[str, Page]:
    write_data(data, folder / "report.json")
    assert render(folder / "report.json", folder / "report.html", REPORTS, "knitr") == "knitr"
    text = (folder / "report.html").read_text()
    assert "cannot be shown" not in text
    page = Page(text)
    assert page.open == []
    return text, page


def assert_stands_alone(text: str, page: Page) -> None:
    assert not {"script", "img", "iframe", "link", "object"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith("#"), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    assert re.findall(r"@import|url\((?!#f\d+-)", text) == []


def assert_accessible(page: Page) -> None:
    assert page.attributes("html")[0]["lang"] == "en"
    assert len(page.attributes("h1")) == 1
    assert [h for h in page.texts["h2"] if h.strip()] == HEADINGS
    for drawing in page.attributes("svg"):
        assert drawing["role"] == "img"
        assert len(drawing["aria-label"] or "") > 10
    assert all(cell.get("scope") in ("col", "row") for cell in page.attributes("th"))
    assert len(page.attributes("caption")) == len(page.attributes("table"))
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for link in page.attributes("a"):
        assert (link["href"] or "")[1:] in ids


@pytest.mark.r
async def test_a_full_report_stands_alone_and_is_accessible(
    tables: asyncpg.Connection, report_settings: Settings, tmp_path: Path
) -> None:
    await add_everything(tables)
    text, page = rendered(await collect(report_settings, WEEK), tmp_path)
    assert_stands_alone(text, page)
    assert_accessible(page)
    assert len(page.attributes("figure")) == 13
    assert page.texts["title"] == ["Weekly learning report 2025-W13"]
    assert "40 learners answered 400 questions in 1 topic, as many as the week before" in text
    assert "24\u201330 March 2025" in text
    assert 'class="missing"' not in text
    for said in (
        "1 alert</a> raised in this week", "out of the ordinary", "proportional hazards",
        "The newest constants (23 Mar 2025) are slope 1.020 ± 0.020", "One was odd.",
        "week: normal(0, 0.1)", "25\u00a0% have left already",
    ):  # fmt: skip
        assert said in text


@pytest.mark.r
async def test_an_empty_report_says_in_each_section_how_to_get_it(
    tables: asyncpg.Connection, report_settings: Settings, tmp_path: Path
) -> None:
    data = await collect(report_settings, WEEK)
    text, page = rendered(data, tmp_path)
    assert_stands_alone(text, page)
    assert_accessible(page)
    assert text.count('class="missing"') == len(HEADINGS)
    assert "<code>thetastream model now survival</code>" in text
    assert page.attributes("figure") == []


@pytest.mark.r
@pytest.mark.parametrize("learners", [1, 2])
async def test_a_first_week_of_few_learners_can_be_shown(
    tables: asyncpg.Connection, report_settings: Settings, tmp_path: Path, learners: int
) -> None:
    for n in range(learners):
        await add_day(tables, f"u{n}", WEEK.start, 0.5 * n)
    text, page = rendered(await collect(report_settings, WEEK), tmp_path)
    assert_accessible(page)
    assert f"{learners} learner{'s' if learners > 1 else ''} answered {10 * learners}" in text
    assert "One week so far" in text


@pytest.mark.r
async def test_nothing_in_the_data_becomes_part_of_the_page(
    tables: asyncpg.Connection, report_settings: Settings, tmp_path: Path
) -> None:
    evil = "<script>alert(1)</script> ``` `r 1+1` *x* $y$ \"q\" 'q' &amp; </svg>"
    await add_everything(tables)
    await tables.execute("update drift_alerts set detail = $1, item_id = $1, kind = $1", evil)
    await tables.execute("update item_calibration set item_id = $1 where item_id = 'i0'", evil)
    await tables.execute(
        "update segment_meta set params = $1",
        json.dumps({"centers": [{"segment": evil, "size": 3, evil: 1.0}]}),
    )
    await tables.execute(
        "update growth_glmm_meta set params = jsonb_set(params, '{topics}', $1)",
        json.dumps([{"topic_id": evil, "intercept": 0.5}]),
    )
    text, page = rendered(await collect(report_settings, WEEK), tmp_path)
    assert_stands_alone(text, page)
    assert_accessible(page)
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


@pytest.mark.r
@pytest.mark.parametrize("fits", [None, {"fixed": "none", "kaplan_meier": [{}], "fitted": [{}]}])
async def test_fits_of_another_shape_leave_gaps_and_not_a_failure(
    tables: asyncpg.Connection, report_settings: Settings, tmp_path: Path, fits: Any
) -> None:
    await add_everything(tables)
    for table in (
        "growth_glmm_meta", "growth_brms_meta", "prophet_fit_meta", "survival_fit_meta",
        "segment_meta",
    ):  # fmt: skip
        await tables.execute(f"update {table} set params = $1, metrics = $1", json.dumps(fits))
    await tables.execute("delete from prophet_anomalies")
    _, page = rendered(await collect(report_settings, WEEK), tmp_path)
    assert_accessible(page)


@pytest.mark.r
def test_a_file_that_is_no_report_fails_in_a_sentence_and_an_older_page_stays(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.json").write_text('{"schema": "other", "week": {"iso": "2025-W13"}}')
    (tmp_path / "report.html").write_text("older")
    with pytest.raises(ReportError, match=r"this is not the data file.*older one stays.*x\.json"):
        render(tmp_path / "x.json", tmp_path / "report.html", REPORTS, "knitr")
    assert (tmp_path / "report.html").read_text() == "older"


def tools(folder: Path, **scripts: str) -> str:
    """Make programs that are shell scripts, and return a PATH that holds nothing else."""
    folder.mkdir()
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_missing_tools_end_in_what_to_install_and_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", tools(tmp_path / "bin"))
    data = tmp_path / "report.json"
    data.write_text("{}")
    with pytest.raises(ReportError) as caught:
        render(data, tmp_path / "report.html", REPORTS)
    said = str(caught.value)
    assert said.startswith("Rscript, pandoc cannot be found, so nothing was rendered.")
    assert "apt-get install -y r-base-core pandoc r-cran-ggplot2 r-cran-jsonlite" in said
    assert f"`thetastream report --from {data}`" in said
    assert data.read_text() == "{}"


def test_missing_r_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tools(tmp_path / "bin", Rscript="echo 'svglite knitr '", pandoc="exit 0")
    monkeypatch.setenv("PATH", path)
    with pytest.raises(ReportError, match="the R package svglite, the R package knitr cannot"):
        render(tmp_path / "report.json", tmp_path / "report.html", REPORTS)


def test_a_renderer_that_fails_is_quoted_and_leaves_the_older_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tools(
        tmp_path / "bin", Rscript="exit 0", pandoc="echo half > report.html; echo oh no >&2; exit 3"
    )
    monkeypatch.setenv("PATH", path + os.pathsep + "/bin:/usr/bin")
    monkeypatch.setattr("stream.report.rendering.shutil.which", lambda name: name != "quarto")
    (tmp_path / "report.html").write_text("older")
    with pytest.raises(ReportError, match=r"pandoc failed: oh no\. No report was written"):
        render(tmp_path / "report.json", tmp_path / "report.html", REPORTS)
    assert (tmp_path / "report.html").read_text() == "older"


def test_a_renderer_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tools(
        tmp_path / "bin", Rscript='case "$*" in *knit*) sleep 60 & wait;; esac', pandoc="exit 0"
    )
    monkeypatch.setenv("PATH", path + os.pathsep + "/bin:/usr/bin")
    monkeypatch.setattr("stream.report.rendering.missing_tools", lambda renderer: [])
    monkeypatch.setattr("stream.report.rendering.TIMEOUT_S", 0.5)
    began = time.monotonic()
    with pytest.raises(ReportError, match=r"Rscript was not done after 0\.5 s and was ended"):
        render(tmp_path / "report.json", tmp_path / "report.html", REPORTS, "knitr")
    assert time.monotonic() - began < 30.0  # its child, which holds the pipes, is ended too


def test_quarto_is_preferred_and_given_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for Quarto, which is not to be had here: what it is asked, and where."""
    path = tools(
        tmp_path / "bin",
        Rscript="exit 0",
        quarto='test -f page.html && echo "$* $THETASTREAM_REPORT_DATA" > report.html',
    )
    monkeypatch.setenv("PATH", path)
    data = tmp_path / "report.json"
    assert render(data, tmp_path / "out" / "r.html", REPORTS) == "quarto"
    assert (tmp_path / "out" / "r.html").read_text() == (
        f"render weekly_report.qmd --to html --output report.html {data}\n"
    )


def test_a_folder_without_the_document_is_told(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"There is no weekly_report\.qmd in"):
        render(tmp_path / "report.json", tmp_path / "report.html", tmp_path)
