"""A whole pipeline on a throw-away stack, for measurements."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from stream.cli.pipeline import supervisor
from stream.kafka.admin import create_topics
from stream.local.stack import running_stack
from stream.migrate import migrate
from stream.settings import Settings

__all__ = ["RESULTS", "Pipeline", "percentile", "running_pipeline", "wait_until"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Pipeline:
    """Addresses of a running pipeline, and its settings."""

    settings: Settings
    url: str
    env: dict[str, str]


@contextmanager
def running_pipeline(**overrides: str) -> Iterator[Pipeline]:
    """Run Kafka, PostgreSQL, the calibrator and all roles as long as the block lasts.

    Parameters
    ----------
    overrides
        Settings by their environment names.
    """
    with tempfile.TemporaryDirectory(prefix="thetastream-bench-") as directory:
        Path(directory).chmod(0o711)
        with running_stack(Path(directory) / "stack") as stack:
            addresses = stack.addresses
            port = urlsplit(addresses.thetastream_url).port
            env = {
                **os.environ,
                **addresses.environment(),
                "THETASTREAM_WEB_PORT": str(port),
                "THETASTREAM_STATE_DIR": str(Path(directory) / "stack"),
                **overrides,
            }
            settings = Settings.from_env(env)
            asyncio.run(migrate(settings.database_url))
            create_topics(settings)
            roles = supervisor(settings, env, lambda role, what: print(f"  {role}: {what}"))
            with roles.running():
                url = f"http://127.0.0.1:{port}"
                wait_until(lambda: _ready(url), 120)
                yield Pipeline(settings, url, env)


def wait_until(done: Callable[[], bool], timeout_s: float, *, every_s: float = 0.1) -> None:
    """Wait for a condition, or end the measurement with an error."""
    ends_at = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > ends_at:
            sys.exit(f"waited {timeout_s:.0f} s in vain")
        time.sleep(every_s)


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).is_success
    except httpx.HTTPError:
        return False
