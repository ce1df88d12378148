"""Where the parts of the local stack are, how they are, and where they keep their state."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True)
class StackAddresses:
    """Where everything is; the lines of `stack.env`.

    Attributes
    ----------
    kafka_broker
        Bootstrap servers, `host:port[,host:port]`.
    database_url
        `postgresql://user:password@host:port/database`.
    r_irt_base_url, r_irt_internal_token
        Calibration service, and the Bearer token of it and the models' services.
    r_glmm_base_url, ...
        The models' services; empty where they were not asked for.
    thetastream_url
        Base URL that the engine's lookup API is to listen on.
    """

    kafka_broker: str
    database_url: str
    r_irt_base_url: str
    r_irt_internal_token: str
    thetastream_url: str
    r_glmm_base_url: str = ""
    r_growth_base_url: str = ""
    r_forecast_base_url: str = ""
    r_survival_base_url: str = ""
    r_segments_base_url: str = ""

    def environment(self) -> dict[str, str]:
        """Return the addresses as environment variables; parts not started are left out."""
        return {name.upper(): value for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class PartStatus:
    """How one part is.

    Attributes
    ----------
    name
        One of `PARTS` or `R_PARTS`.
    state
        `running` answers; `unhealthy` has a process that does not answer; `stopped` has none;
        `external` is an address of your own that accepts connections, `unreachable` one that
        does not.
    address
        In the form of its setting, without its password; empty before the first start.
    pid
        Of the local process.
    detail
        What is wrong and where to look.
    """

    name: str
    state: Literal["running", "unhealthy", "stopped", "external", "unreachable"]
    address: str
    pid: int | None = None
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the part can be used."""
        return self.state in ("running", "external")


def default_state_dir(env: Mapping[str, str] | None = None) -> Path:
    """Return THETASTREAM_STATE_DIR, or `.local` in the working directory."""
    env = os.environ if env is None else env
    return Path(env.get("THETASTREAM_STATE_DIR", "").strip() or ".local")


def default_cache_dir(env: Mapping[str, str], state_dir: Path) -> Path:
    """Return THETASTREAM_CACHE_DIR, or `.local/cache` of the checkout (or of the state)."""
    if given := env.get("THETASTREAM_CACHE_DIR", "").strip():
        return Path(given)
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout / ".local" / "cache"
    return state_dir / "cache"


def read_stack_env(state_dir: Path) -> dict[str, str]:
    """Return what `stack.env` holds; empty when there is none."""
    try:
        lines = (state_dir / "stack.env").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def without_password(address: str) -> str:
    """Return an address fit for a screen.

    >>> without_password("postgresql://me:secret@db:5432/x")
    'postgresql://me:***@db:5432/x'
    >>> without_password("127.0.0.1:9092")
    '127.0.0.1:9092'
    """
    url = urlsplit(address)
    if not url.password:
        return address
    place = url.netloc.rpartition("@")[2]
    return urlunsplit(url._replace(netloc=f"{url.username or ''}:***@{place}"))


def accepts_connections(address: str) -> bool:
    """Tell whether something listens at an address (URL, or `host:port[,host:port]`)."""
    default_ports = {"postgresql": 5432, "postgres": 5432, "http": 80, "https": 443}
    for one in address.split(","):
        url = urlsplit(one if "://" in one else f"kafka://{one}")
        host, port = url.hostname, url.port or default_ports.get(url.scheme, 9092)
        with (
            suppress(OSError),
            socket.create_connection((host or "127.0.0.1", port), timeout=2.0),
        ):
            return True
    return False
