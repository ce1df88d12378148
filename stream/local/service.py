"""What the three local servers have in common: a port, a record, readiness, an exact end."""

from __future__ import annotations

import json
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from stream.errors import LocalStackError
from stream.local.interrupts import raise_if_interrupted
from stream.local.processes import (
    ProcessRecord,
    end_process,
    find_by_command,
    free_port,
    log_tail,
    port_is_free,
    spawn_detached,
    write_atomically,
)

_PORT_RETRIES = 3
"""Somebody may take a port between our choice and the server's start; so often we choose again."""

_POLL_S = 0.1


@dataclass(frozen=True)
class Command:
    """How to start a server.

    Attributes
    ----------
    argv
        Program (absolute) and arguments.
    marker
        One of the arguments that no other stack's server has, such as a path in its directory:
        the server is found by it when its record is lost.
    env
        Its whole environment; None inherits ours.
    program
        `argv[0]` as the running process shows it; differs where a wrapper replaces itself.
    """

    argv: tuple[str, ...]
    marker: str
    env: Mapping[str, str] | None = None
    program: str = ""


class LocalService(ABC):
    """A server of the local stack, with its state in one directory.

    Parameters
    ----------
    home
        The server's own directory; absolute after construction.
    """

    name: str
    start_timeout_s: float = 60.0
    stop_grace_s: float = 20.0
    stop_signal: int = signal.SIGTERM
    port_names: tuple[str, ...] = ("port",)

    def __init__(self, home: Path) -> None:
        # Resolved, so that one directory under two names is one server.
        self.home = home.resolve()

    @property
    @abstractmethod
    def address(self) -> str:
        """The server's address in the form of its setting."""

    @abstractmethod
    def prepare(self) -> None:
        """Bring the directory into a state to start from; harmless to repeat."""

    @abstractmethod
    def command(self) -> Command:
        """Return how to start the server with the present ports."""

    @abstractmethod
    def probe(self) -> None:
        """Ask the server something real.

        Raises
        ------
        LocalStackError
            It does not answer as it should (yet).
        """

    def finish(self) -> None:  # noqa: B027 - most servers need nothing here
        """Do what a first start still lacks once the server answers."""

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self.home / "server.log"

    @property
    def record(self) -> Path:
        """The record of the process that was started."""
        return self.home / "process.json"

    @property
    def ports(self) -> dict[str, int]:
        """The remembered ports by name; empty before the first start."""
        try:
            raw = json.loads((self.home / "ports.json").read_text())
            return {name: int(raw[name]) for name in self.port_names}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def process(self) -> psutil.Process | None:
        """Return the running server, or None."""
        record = ProcessRecord.load(self.record)
        if record is not None and record.home == str(self.home):
            process = record.process()
            if process is not None:
                return process
        if not self.ports:
            return None
        command = self.command()
        return find_by_command(command.program or command.argv[0], command.marker)

    def launch(self) -> bool:
        """Start the server unless it runs; does not wait until it answers.

        Returns
        -------
        bool
            True when it was started now.

        Raises
        ------
        LocalStackError
            Its directory cannot be used, or the program cannot be started.
        """
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            if self.process() is not None:
                return False
            self._choose_ports()
            self.prepare()
            self._spawn()
        except OSError as err:
            raise LocalStackError(
                f"the local {self.name} cannot use its directory {self.home}: {err}"
            ) from err
        return True

    def wait_ready(self) -> None:
        """Wait until the server answers.

        Raises
        ------
        LocalStackError
            It ended, or did not answer in time; the message carries the end of its log.
        """
        retries = _PORT_RETRIES
        deadline = time.monotonic() + self.start_timeout_s
        while True:
            raise_if_interrupted()
            try:
                self.probe()
            except LocalStackError as err:
                if self.process() is None:
                    if retries and any(not port_is_free(port) for port in self.ports.values()):
                        retries -= 1
                        self._choose_ports()
                        self.prepare()
                        self._spawn()
                        continue
                    raise self._failure("ended while starting") from err
                if time.monotonic() > deadline:
                    raise self._failure(
                        f"did not answer within {self.start_timeout_s:.0f} s ({err})"
                    ) from err
                time.sleep(_POLL_S)
            else:
                break
        self.finish()

    def start(self) -> bool:
        """Start the server unless it runs, and wait until it answers.

        Returns
        -------
        bool
            True when it was started now.
        """
        started = self.launch()
        self.wait_ready()
        return started

    def stop(self) -> bool:
        """End the server and everything it started; exactly these processes.

        Returns
        -------
        bool
            True when there was something to end.
        """
        process = self.process()
        if process is not None:
            end_process(process, grace_s=self.stop_grace_s, signal_number=self.stop_signal)
        self.record.unlink(missing_ok=True)
        return process is not None

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL), its record left behind."""
        process = self.process()
        if process is None:
            raise LocalStackError(f"the local {self.name} does not run, so it cannot be killed")
        end_process(process, grace_s=10.0, signal_number=signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server if it runs, start it again and wait until it answers."""
        self.stop()
        self.start()

    def _choose_ports(self) -> None:
        ports = self.ports
        for name in self.port_names:
            if name not in ports or not port_is_free(ports[name]):
                ports[name] = free_port(taken=frozenset(ports.values()))
        write_atomically(self.home / "ports.json", json.dumps(ports))

    def _spawn(self) -> None:
        command = self.command()
        spawn_detached(
            command.argv, log=self.log, record=self.record, cwd=self.home, env=command.env
        )

    def _failure(self, what: str) -> LocalStackError:
        return LocalStackError(
            f"the local {self.name} {what}. Its data in {self.home} is kept. "
            f"The end of {self.log}:\n{log_tail(self.log)}"
        )


def inherited_environment(drop_prefixes: tuple[str, ...]) -> dict[str, str]:
    """Return our environment without the variables that would change a server's behaviour."""
    return {name: value for name, value in os.environ.items() if not name.startswith(drop_prefixes)}
