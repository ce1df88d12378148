"""The local stack as one: start, find again, end; each part replaced by an address of your own."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from stream.errors import LocalStackError
from stream.local.addresses import (
    PartStatus,
    StackAddresses,
    accepts_connections,
    default_cache_dir,
    default_state_dir,
    read_stack_env,
    without_password,
)
from stream.local.calibrator import LocalCalibrator
from stream.local.interrupts import interruptible, uninterruptible
from stream.local.kafka import LocalKafka
from stream.local.postgres import LocalPostgres
from stream.local.processes import free_port, port_is_free, write_atomically
from stream.local.r_services import R_SERVICES, LocalRService, check_r
from stream.local.service import LocalService

__all__ = [
    "PARTS",
    "R_PARTS",
    "PartStatus",
    "Progress",
    "Stack",
    "StackAddresses",
    "default_state_dir",
    "down",
    "read_stack_env",
    "running_stack",
    "status",
    "up",
]

PARTS = ("kafka", "postgres", "calibrator")
"""The parts, in the order of their start."""

R_PARTS = ("kafka", "postgres", *(f"r-{name}" for name in R_SERVICES))
"""The parts where real R calibrates and fits the models."""

_VARIABLES = {
    "kafka": "KAFKA_BROKER",
    "postgres": "DATABASE_URL",
    "calibrator": "R_IRT_BASE_URL",
    **{f"r-{name}": f"R_{name.upper()}_BASE_URL" for name in R_SERVICES},
}

Progress = Callable[[str, str], None]
"""Called with a part's name and what happens to it, for a person to read."""


class Stack:
    """The local stack of one state directory.

    Parameters
    ----------
    state_dir
        Where everything is kept; made when missing.
    env
        Where KAFKA_BROKER, DATABASE_URL, R_IRT_BASE_URL (with R_IRT_INTERNAL_TOKEN) and
        THETASTREAM_URL are looked up: a part whose address is set there is not started.
    cache_dir
        Where the broker's jars are; by default THETASTREAM_CACHE_DIR of `env`, else
        `.local/cache` of the checkout.
    parts
        Which parts to care for; by default those of the last start here, else `PARTS`.
    calibrator_command
        What to run in place of the embedded calibrator; gets `--port PORT`.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        env: Mapping[str, str] | None = None,
        cache_dir: Path | None = None,
        parts: Sequence[str] | None = None,
        calibrator_command: Sequence[str] | None = None,
    ) -> None:
        self.state_dir = state_dir.resolve()
        self.parts = tuple(parts) if parts else self._started_parts()
        env = os.environ if env is None else env
        self.kafka = LocalKafka(
            self.state_dir / "kafka", cache_dir or default_cache_dir(env, self.state_dir)
        )
        self.postgres = LocalPostgres(self.state_dir / "postgres")
        self._token = env.get("R_IRT_INTERNAL_TOKEN", "").strip()
        self.calibrator = LocalCalibrator(
            self.state_dir / "calibrator", calibrator_command, token=self._token
        )
        services: dict[str, LocalService] = {
            "kafka": self.kafka,
            "postgres": self.postgres,
            "calibrator": self.calibrator,
        }
        self._r_token_file = self.state_dir / "r" / "token"
        for name in R_SERVICES:
            services[f"r-{name}"] = LocalRService(
                *(name, self.state_dir / "r" / name, self._r_token_file), token=self._token
            )
        if unknown := set(self.parts) - set(services):
            raise LocalStackError(
                f"no such part of the local stack: {', '.join(sorted(unknown))}; "
                f"there are {', '.join(services)}"
            )
        self.services = {name: one for name, one in services.items() if name in self.parts}
        self._all_services = services
        self.external = {
            name: address
            for name in self.services
            if (address := env.get(_VARIABLES[name], "").strip())
            and not self._is_own(name, address)
        }
        self._lookup_url = env.get("THETASTREAM_URL", "").strip()

    @property
    def env_file(self) -> Path:
        """The file of the addresses, one KEY=VALUE a line; readable by its owner only."""
        return self.state_dir / "stack.env"

    @property
    def addresses(self) -> StackAddresses:
        """The addresses as they are now; of a part never started, an empty one."""
        tokens = [
            one.token
            for name, one in self.services.items()
            if isinstance(one, LocalCalibrator) and name not in self.external
        ]
        return StackAddresses(
            kafka_broker=self._address("kafka"),
            database_url=self._address("postgres"),
            r_irt_base_url=self._address("r-irt") or self._address("calibrator"),
            r_irt_internal_token=(tokens[0] if tokens else "") or self._token,
            thetastream_url=self._lookup_address(),
            **{
                f"r_{name}_base_url": self._address(f"r-{name}")
                for name in R_SERVICES
                if name != "irt"
            },
        )

    def up(self, progress: Progress = lambda _part, _what: None) -> StackAddresses:
        """Start what does not run yet and wait until all answer.

        Whatever breaks it off (an error, Ctrl-C, SIGTERM), what was started here is ended again,
        and what ran before goes on.

        Raises
        ------
        LocalStackError
            A part did not start; the message carries the end of its log.
        """
        with self._locked(progress), interruptible():
            local = {n: s for n, s in self.services.items() if n not in self.external}
            if any(isinstance(service, LocalRService) for service in local.values()):
                progress("r", "looking for R and its packages")
                check_r()
            self._remember_parts(progress)
            before = {name for name, service in local.items() if service.process() is not None}
            self._choose_lookup_port(keep=bool(before))
            try:
                for name, address in self.external.items():
                    progress(name, f"your own: {without_password(address)}")
                # First all processes, then all waits: they come up side by side.
                for name, service in local.items():
                    if name not in before:
                        progress(name, "starting")
                    service.launch()
                for name, service in local.items():
                    began = time.monotonic()
                    service.wait_ready()
                    waited = time.monotonic() - began
                    progress(
                        name,
                        "runs already" if name in before else f"answers (waited {waited:.1f} s)",
                    )
                addresses = self.addresses
                self._write_env_file(addresses)
            except BaseException:
                with uninterruptible():
                    for name in reversed([n for n in local if n not in before]):
                        progress(name, "ending again")
                        with suppress(LocalStackError):
                            local[name].stop()
                raise
            return addresses

    def down(self, progress: Progress = lambda _part, _what: None) -> list[str]:
        """End exactly the processes that were started here; external parts are left alone.

        Returns
        -------
        list of str
            The parts that were ended.
        """
        ended = []
        with self._locked(progress):
            for name in reversed(self.services):
                if self.services[name].stop():
                    progress(name, "ended")
                    ended.append(name)
        return ended

    def status(self) -> list[PartStatus]:
        """Look at each part, and ask it."""
        return [self._status_of(name) for name in self.services]

    def _started_parts(self) -> tuple[str, ...]:
        """Return the parts that were started in this directory."""
        try:
            return tuple((self.state_dir / "parts").read_text().split()) or PARTS
        except OSError:
            return PARTS

    def _remember_parts(self, progress: Progress) -> None:
        """Note what is started; R's calibrator and the embedded one take each other's place."""
        kept = []
        remembered = self.state_dir / "parts"
        for name in self._started_parts() if remembered.exists() else ():
            replaced = name.startswith("r-") if "calibrator" in self.parts else name == "calibrator"
            if name in self.services or name not in self._all_services:
                continue
            if not replaced:
                kept.append(name)
            elif self._all_services[name].stop():
                progress(name, "ended: another takes its place")
        write_atomically(remembered, " ".join((*kept, *self.parts)) + "\n")

    def _status_of(self, name: str) -> PartStatus:
        service = self.services[name]
        if name in self.external:
            address = self.external[name]
            reachable = accepts_connections(address)
            return PartStatus(
                name,
                "external" if reachable else "unreachable",
                without_password(address),
                detail="" if reachable else f"nothing accepts connections; see {_VARIABLES[name]}",
            )
        address = without_password(self._address(name))
        process = service.process()
        if process is None:
            # Without our own end to it there is a record of one that ran: a crash.
            crashed = service.record.exists()
            return PartStatus(
                name,
                "stopped",
                address,
                detail=f"ended by itself or was killed; see {service.log}" if crashed else "",
            )
        try:
            service.probe()
        except LocalStackError as err:
            return PartStatus(name, "unhealthy", address, process.pid, f"{err}; see {service.log}")
        return PartStatus(name, "running", address, process.pid)

    def _address(self, name: str) -> str:
        if name in self.external:
            return self.external[name]
        service = self.services.get(name)
        return service.address if service is not None and service.ports else ""

    def _is_own(self, name: str, address: str) -> bool:
        # Somebody has put our own stack.env into the environment: that is not external.
        service = self.services[name]
        return bool(service.ports) and service.address == address

    def _lookup_address(self) -> str:
        if self._lookup_url:
            return self._lookup_url
        try:
            return f"http://127.0.0.1:{int((self.state_dir / 'lookup-port').read_text())}"
        except (OSError, ValueError):
            return ""

    def _choose_lookup_port(self, *, keep: bool) -> None:
        remembered = urlsplit(self._lookup_address()).port
        # While the stack runs, the one who has the port is most likely our engine.
        if self._lookup_url or (remembered and (keep or port_is_free(remembered))):
            return
        taken = frozenset(
            port for service in self.services.values() for port in service.ports.values()
        )
        write_atomically(self.state_dir / "lookup-port", f"{free_port(taken=taken)}\n")

    def _write_env_file(self, addresses: StackAddresses) -> None:
        lines = (f"{name}={value}\n" for name, value in addresses.environment().items())
        write_atomically(self.env_file, "".join(lines), mode=0o600)

    @contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
            lock = (self.state_dir / "lock").open("w")
        except OSError as err:
            raise LocalStackError(
                f"the state directory {self.state_dir} cannot be used: {err}. "
                "Set THETASTREAM_STATE_DIR to one that can."
            ) from err
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("stack", "another command is at work on it; waiting for its end")
                # Released by the kernel when its holder ends, however that was.
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def up(state_dir: Path, *, env: Mapping[str, str] | None = None) -> StackAddresses:
    """Start the whole stack; see `Stack.up`."""
    return Stack(state_dir, env=env).up()


def down(state_dir: Path) -> list[str]:
    """End what was started in this state directory; see `Stack.down`."""
    return Stack(state_dir).down()


def status(state_dir: Path, *, env: Mapping[str, str] | None = None) -> list[PartStatus]:
    """Look at the whole stack; see `Stack.status`."""
    return Stack(state_dir, env=env).status()


@contextmanager
def running_stack(
    state_dir: Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
    parts: Sequence[str] | None = None,
    calibrator_command: Sequence[str] | None = None,
) -> Iterator[Stack]:
    """Run a stack for as long as the block lasts; the jars come from the shared cache.

    Parameters
    ----------
    state_dir
        Where it lives; None makes a directory and removes it afterwards.
    env
        As for `Stack`, but empty by default: a test does not touch an address of yours.
    parts, calibrator_command
        As for `Stack`.
    """
    with ExitStack() as cleanup:
        if state_dir is None:
            state_dir = Path(tempfile.mkdtemp(prefix="thetastream-"))
            # As root, PostgreSQL runs under another account, which has to get in.
            state_dir.chmod(0o711)
            cleanup.callback(shutil.rmtree, state_dir, ignore_errors=True)
        cache_dir = default_cache_dir(os.environ, state_dir)
        stack = Stack(
            state_dir,
            env=env or {},
            cache_dir=cache_dir,
            parts=parts,
            calibrator_command=calibrator_command,
        )
        cleanup.callback(stack.down)
        stack.up()
        yield stack
