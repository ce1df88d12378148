"""``thetastream doctor``: what is wrong, and what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated

import httpx
import typer
from rich.console import Console

from stream.cli.theta import lookup_url
from stream.errors import StreamError
from stream.kafka.admin import describe_topics
from stream.migrate import pending_migrations
from stream.models.kind import ModelKind
from stream.models.request import enabled_kinds
from stream.settings import Settings

__all__ = ["Finding", "doctor"]

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is well, and if not, what to do."""

    subject: str
    ok: bool
    detail: str
    advice: str = ""


def _kafka(settings: Settings) -> list[Finding]:
    try:
        states = describe_topics(settings)
    except StreamError as error:
        return [Finding("kafka", False, str(error), "thetastream local up, or set KAFKA_BROKER")]
    findings = [Finding("kafka", True, f"{settings.kafka_broker} answers")]
    wrong = [f"{state.name}: {state.problem}" for state in states if state.problem]
    advice = "thetastream topics create; a differing topic: see docs/topics.md" if wrong else ""
    detail = "; ".join(wrong) or f"{len(states)} topics as in the catalogue"
    return [*findings, Finding("topics", not wrong, detail, advice)]


def _postgres(settings: Settings) -> list[Finding]:
    try:
        pending = asyncio.run(pending_migrations(settings.database_url, settings.db_schema))
    except StreamError as error:
        return [Finding("postgres", False, str(error), "check DATABASE_URL and the server")]
    detail = f"{len(pending)} migrations wait" if pending else "all tables are there"
    return [Finding("postgres", not pending, detail, "thetastream migrate" if pending else "")]


def _http(subject: str, url: str, advice: str, token: str = "") -> list[Finding]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        reply = httpx.get(url, timeout=_TIMEOUT_S, headers=headers)
    except httpx.HTTPError as error:
        return [Finding(subject, False, f"{url}: {error}", advice)]
    return [Finding(subject, reply.is_success, f"{url}: {reply.text[:200]}", advice)]


def _model(settings: Settings, kind: ModelKind) -> list[Finding]:
    return _http(
        f"model {kind.name}",
        f"{kind.base_url(settings).rstrip('/')}/healthz",
        f"start its service, or correct {kind.setting} and R_IRT_INTERNAL_TOKEN",
        settings.r_irt_internal_token,
    )


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Look at every part the pipeline needs; exit 1 when one needs attention.

    Examples:

        thetastream doctor
    """
    settings = Settings.from_env()
    checks: list[Callable[[], list[Finding]]] = [
        lambda: _kafka(settings),
        lambda: _postgres(settings),
        lambda: _http(
            "calibrator",
            f"{settings.r_irt_base_url.rstrip('/')}/healthz",
            "thetastream local up, or set R_IRT_BASE_URL and R_IRT_INTERNAL_TOKEN",
            settings.r_irt_internal_token,
        ),
        lambda: _http("engine", f"{lookup_url(settings)}/readyz", "thetastream run"),
    ]
    checks += [partial(_model, settings, kind) for kind in enabled_kinds(settings)]
    findings = [finding for check in checks for finding in check()]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        out = Console()
        for finding in findings:
            mark = "[green]ok[/green]   " if finding.ok else "[red]wrong[/red]"
            out.print(f"{mark} {finding.subject}: {finding.detail}", highlight=False)
            if not finding.ok:
                out.print(f"      do: {finding.advice}", highlight=False)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
