"""``thetastream theta``: what the platform knows about one learner."""

from __future__ import annotations

import json
import os
from typing import Annotated
from urllib.parse import quote

import httpx
import typer
from rich.console import Console
from rich.table import Table

from stream.errors import StreamError
from stream.settings import Settings

__all__ = ["lookup_url", "theta"]


def lookup_url(settings: Settings) -> str:
    """Return the base URL of the lookup API: THETASTREAM_URL, else the web host and port."""
    default = f"http://{settings.web_host}:{settings.web_port}"
    return os.environ.get("THETASTREAM_URL", default).rstrip("/")


def theta(
    user: Annotated[str, typer.Argument(help="user_id of the learner.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the reply as it came.")] = False,
) -> None:
    """Look a learner's abilities up; exit 4 when the learner is unknown.

    Examples:

        thetastream theta learner-17
    """
    settings = Settings.from_env()
    url = f"{lookup_url(settings)}/theta/{quote(user, safe='')}"
    headers = {"Authorization": f"Bearer {settings.api_token}"} if settings.api_token else {}
    try:
        reply = httpx.get(url, headers=headers, timeout=10.0)
    except httpx.HTTPError as error:
        raise StreamError(
            f"The lookup API at {url} does not answer ({error}). Start the engine: "
            "`thetastream run`; or set THETASTREAM_URL."
        ) from error
    if as_json:
        print(reply.text)
    if reply.status_code == httpx.codes.NOT_FOUND:
        if not as_json:
            Console(stderr=True).print(f"learner {user!r} is unknown", highlight=False)
        raise typer.Exit(4)
    if reply.is_error:
        raise StreamError(f"The lookup API answered {reply.status_code}: {reply.text}")
    if not as_json:
        _print(json.loads(reply.text))


def _print(body: dict[str, object]) -> None:
    out = Console()
    out.print(
        f"[bold]{body['user_id']}[/bold]  theta {body['theta']:+.3f}  se {body['se']:.3f}  "
        f"n {body['n']}  source {body['source']}  parameters {body['params_version']}",
        highlight=False,
    )
    table = Table("topic_id", "theta", "se", "n", "last attempt")
    topics = body["topics"]
    assert isinstance(topics, list)
    for row in topics:
        table.add_row(
            row["topic_id"],
            f"{row['theta']:+.3f}",
            f"{row['se']:.3f}",
            str(row["n"] if row["n"] is not None else "-"),
            str(row["last_attempt_at"] or "-"),
        )
    out.print(table)
