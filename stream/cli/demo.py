"""``thetastream demo``: the whole pipeline on one machine, checked row by row."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream.cli import pipeline
from stream.cli.demo_models import MODEL_DEFAULTS, fit_models, print_models, write_report
from stream.cli.demo_report import print_report
from stream.errors import StreamError
from stream.kafka.admin import create_topics
from stream.kafka.clients import new_producer
from stream.kafka.progress import unseen_partitions
from stream.local.addresses import StackAddresses, default_state_dir
from stream.local.interrupts import interruptible, raise_if_interrupted
from stream.local.stack import PARTS, R_PARTS, Stack
from stream.migrate import migrate
from stream.settings import Settings
from stream.sources import reader_for
from stream.sources.produce import send_attempts
from stream.sources.simulate import SchoolConfig, simulate
from topics.catalogue import (
    TopicSpec,
    attempts_topic,
    batch_abilities_topic,
    calibration_results_topic,
    feature_updates_topic,
    item_params_topic,
    item_partials_topic,
    kpi_updates_topic,
    theta_updates_topic,
    topic_partials_topic,
)

if TYPE_CHECKING:
    from stream.verify import Report

__all__ = ["demo"]

_MARKER = "demo-data"
"""File in the state directory that says: what the stack holds was put there by the demo."""

_DRAIN_TIMEOUT_S = 900.0

_ENGINE_INPUTS = (attempts_topic, batch_abilities_topic)
_SINK_INPUTS = (
    theta_updates_topic,
    feature_updates_topic,
    kpi_updates_topic,
    topic_partials_topic,
    item_partials_topic,
    item_params_topic,
    batch_abilities_topic,
    calibration_results_topic,
)

_DEMO_DEFAULTS = {
    # A replay is over in a minute: what waits hours in production waits seconds here.
    "THETASTREAM_TRIGGER_COOLDOWN_SECS": "15",
    "THETASTREAM_PROVISIONAL_SECS": "1",
    # The whole file enters a calibration, so that every learner's live ability can be compared
    # with the batch ability.
    "MIRT_LOOKBACK_DAYS": "3650",
}

_out = Console()


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Attempts to replay; default: a simulated school.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up until Ctrl-C.")] = False,
    r: Annotated[
        bool,
        typer.Option(
            "--r", help="With real R: calibrate, fit every model once, write the weekly report."
        ),
    ] = False,
    learners: Annotated[int, typer.Option(help="Of the simulated school.")] = 2000,
    items: Annotated[int, typer.Option(help="Of the simulated school.")] = 200,
    attempts: Annotated[int, typer.Option(help="Of the simulated school.")] = 300_000,
    growth: Annotated[float, typer.Option(help="Of the simulated school, logits a week.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the simulated school.")] = 1,
) -> None:
    """Start everything, replay attempts, calibrate, and check every row; exit 1 on a mismatch.

    Examples:

        thetastream demo

        thetastream demo --data attempts.csv.gz --keep

        thetastream demo --r
    """
    state_dir = default_state_dir()
    with interruptible(), ExitStack() as cleanup:
        env, settings = _start_stack(state_dir, cleanup, with_r=r)
        school = None
        if data is None:
            config = SchoolConfig(
                learners=learners, items=items, attempts=attempts, growth=growth, seed=seed
            )
            _say(
                f"simulating a school: {learners:,} learners, {items} items, {attempts:,} attempts"
            )
            school = simulate(config)
            data = state_dir / "demo" / "school.csv.gz"
            data.parent.mkdir(parents=True, exist_ok=True)
            school.write_csv(data)
        truth = school.truth() if school is not None else None
        reader = reader_for(data)
        _say("making tables and topics")
        asyncio.run(migrate(settings.database_url, settings.db_schema))
        create_topics(settings)
        if truth is not None:
            asyncio.run(_insert_anchors(settings, truth))
        _say("starting engine, calibrator and sink")
        supervisor = pipeline.supervisor(
            settings, env, lambda role, what: _say(f"[dim]{role}: {what}[/dim]")
        )
        cleanup.enter_context(supervisor.running())
        url = f"http://{settings.web_host}:{settings.web_port}"
        _wait("the engine", lambda: _is_ready(f"{url}/readyz"), 120.0)
        sent, seconds = _replay(settings, data, reader(data))
        _wait_drained(settings, "engine", _ENGINE_INPUTS)
        folded = time.monotonic() - seconds[0]
        _say(
            f"sent {sent:,} attempts in {seconds[1]:.1f} s; all folded {folded:.1f} s after the "
            f"first ({sent / folded:,.0f} a second)"
        )
        calibration = _calibrate(env)
        _wait_drained(settings, "engine", _ENGINE_INPUTS)
        _wait_drained(settings, "sink", _SINK_INPUTS)
        _say("recomputing every row from the file alone")
        report = _verify(settings, data)
        print_report(_out, settings, url, calibration, truth, report)
        well = report.ok
        if r:
            told = fit_models(env, _say)
            _wait_drained(settings, "sink", _SINK_INPUTS)
            well = print_models(_out, settings, told) and well
            well = write_report(_out, env, state_dir / "report.html") and well
        if keep:
            _stay(env, url)
        if not well:
            raise typer.Exit(1)


def _start_stack(
    state_dir: Path, cleanup: ExitStack, *, with_r: bool
) -> tuple[dict[str, str], Settings]:
    """Start a stack without earlier data; return the roles' environment and the settings."""
    Stack(state_dir, env=os.environ).down()
    stack = Stack(state_dir, env=os.environ, parts=R_PARTS if with_r else PARTS)
    own_kafka, own_postgres = "KAFKA_BROKER" not in os.environ, "DATABASE_URL" not in os.environ
    marker = state_dir / _MARKER
    for own, name in ((own_kafka, "kafka"), (own_postgres, "postgres")):
        directory = state_dir / name
        if not own or not directory.exists():
            continue
        if not marker.exists():
            raise StreamError(
                f"{directory} holds data that is not the demo's; it was left as it is. Set "
                "THETASTREAM_STATE_DIR to another directory, or remove it with `make clean`."
            )
        shutil.rmtree(directory)
    state_dir.mkdir(parents=True, exist_ok=True)
    marker.write_text("The demo may remove what the stack in this directory holds.\n")
    _say("starting Kafka, PostgreSQL and the calibrator")
    cleanup.callback(stack.down)
    cleanup.callback(_say, "stopping the stack")
    addresses: StackAddresses = stack.up(lambda part, what: _say(f"[dim]{part}: {what}[/dim]"))
    defaults = {**_DEMO_DEFAULTS, **(MODEL_DEFAULTS if with_r else {})}
    env = {**defaults, **os.environ, **addresses.environment()}
    port = urlsplit(addresses.thetastream_url).port
    env.setdefault("THETASTREAM_WEB_PORT", str(port))
    env["THETASTREAM_STATE_DIR"] = str(state_dir)
    name = f"demo{int(time.time())}"
    if not own_kafka:
        env.setdefault("THETASTREAM_TOPIC_PREFIX", f"{name}.")
        _say(f"KAFKA_BROKER is set: topics get the prefix {env['THETASTREAM_TOPIC_PREFIX']}")
    if not own_postgres:
        env.setdefault("THETASTREAM_DB_SCHEMA", name)
        _say(f"DATABASE_URL is set: tables go to the schema {env['THETASTREAM_DB_SCHEMA']}")
    return env, Settings.from_env(env)


async def _insert_anchors(settings: Settings, truth: Mapping[str, Any]) -> None:
    """Write the school's anchor items into ``question``, as the platform's own tags."""
    connection = await asyncpg.connect(settings.database_url)
    try:
        rows = [
            (
                anchor["item_id"],
                json.dumps(
                    {
                        "irt": {"a": anchor["a"], "b": anchor["b"], "c": 0.0},
                        "tags": ["anchor"],
                    }
                ),
            )
            for anchor in truth["anchors"]
        ]
        await connection.executemany(
            f'insert into "{settings.db_schema}".question (id, meta) values ($1, $2::jsonb) '  # noqa: S608
            "on conflict (id) do update set meta = excluded.meta",
            rows,
        )
    finally:
        await connection.close()


def _replay(settings: Settings, data: Path, attempts: Any) -> tuple[int, tuple[float, float]]:
    """Send the file; return the number sent, and when it began and how long it took."""
    producer = new_producer(settings)
    began = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_out, transient=True) as bar:
        task = bar.add_task(f"sending {data.name}", total=None)
        sent = send_attempts(
            producer,
            settings.topic(attempts_topic.name),
            attempts,
            progress=lambda n: bar.advance(task, n),
        )
    return sent, (began, time.monotonic() - began)


def _calibrate(env: Mapping[str, str]) -> dict[str, Any]:
    """Ask for a calibration of all that was sent, and wait until it is applied."""
    _say("asking for a last calibration over all attempts")
    done = subprocess.run(
        [sys.executable, "-m", "stream", "calibrate", "now", "--wait", "--json"],
        env=dict(env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StreamError(f"The calibration was not applied: {done.stderr.strip()}")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def _verify(settings: Settings, data: Path) -> Report:
    # Imported here: DuckDB belongs to the local extra, which a deployment goes without.
    from stream.verify import compare, recompute

    with closing(recompute(data, lateness_days=settings.lateness_days)) as expected:
        return compare(
            expected,
            settings.database_url,
            settings.db_schema,
            use_theta=settings.metrics_use_irt_theta,
        )


def _wait_drained(settings: Settings, role: str, specs: Sequence[TopicSpec]) -> None:
    """Wait until a role has committed everything there is for it."""
    _wait(
        f"the {role} to finish",
        lambda: not unseen_partitions(settings, role, specs),
        _DRAIN_TIMEOUT_S,
    )


def _wait(what: str, done: Callable[[], bool], timeout_s: float) -> None:
    ends_at = time.monotonic() + timeout_s
    with _out.status(f"waiting for {what}"):
        while not done():
            raise_if_interrupted()
            if time.monotonic() > ends_at:
                raise StreamError(
                    f"Waited {timeout_s:.0f} s for {what}. The roles' logs are in the state "
                    "directory under log/; `thetastream doctor` says what is wrong."
                )
            time.sleep(0.3)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).is_success
    except httpx.HTTPError:
        return False


def _stay(env: Mapping[str, str], url: str) -> None:
    for name in ("KAFKA_BROKER", "DATABASE_URL", "R_IRT_BASE_URL"):
        _say(f"{name}={env[name]}")
    _say(f"THETASTREAM_URL={url}")
    _say("everything stays up; Ctrl-C ends it")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        _say("ending")


def _say(text: str) -> None:
    _out.print(text, highlight=False, soft_wrap=True)
