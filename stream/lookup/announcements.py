"""What an engine tells the process that answers lookups for it: which partitions it holds.

Messages over a pair of connected sockets, in order: a partition is held (with the file of its
segment), is let go, and, several times a second, whether the engine is ready. The pair ends with
the engine, however that ends; an engine that is not heard of for longer than its session lasts may
have lost its partitions to another.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson

from stream.lookup.abilities import AbilityReader

__all__ = ["Announced", "Announcements"]

logger = logging.getLogger(__name__)

_LONGEST_MESSAGE = 256


class Announcements:
    """The engine's side. Until it is connected, nobody is told anything."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def connect(self) -> socket.socket:
        """Make the pair of sockets and return the other end, for the other process."""
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        return other

    def close(self) -> None:
        """Tell nobody anything any more; the other process ends."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def hold(self, partition: int, segment: int) -> None:
        """Tell that a partition is held.

        Where a message cannot be left out and nobody has read for minutes, the pair is given up:
        the other process then ends, and with it the engine.

        Parameters
        ----------
        partition
            Its number.
        segment
            The file of its segment.
        """
        self._send({"hold": partition}, segment)

    def let_go(self, partition: int) -> None:
        """Tell that a partition is held no more."""
        self._send({"let_go": partition})

    def ready(self, ready: bool) -> None:
        """Tell whether every partition is loaded, and that the engine runs."""
        with suppress(BlockingIOError):  # There are older ones that nobody has read yet.
            self._send_now({"ready": ready})

    def _send(self, message: dict[str, Any], *files: int) -> None:
        try:
            self._send_now(message, *files)
        except BlockingIOError:
            logger.error("the process that answers lookups takes no messages; it is to end")
            self.close()

    def _send_now(self, message: dict[str, Any], *files: int) -> None:
        if self._socket is not None:
            with suppress(BrokenPipeError, ConnectionResetError):  # Its end is seen elsewhere.
                socket.send_fds(self._socket, [orjson.dumps(message)], files)


class Announced:
    """The other side: what is known of the engine.

    Parameters
    ----------
    connection
        The other end of `Announcements.connect`.
    session_s
        Seconds of silence after which the engine's memory is not to be trusted.
    on_end
        Called once when the engine has ended, or cannot be read.

    Attributes
    ----------
    partitions
        Readers of the partitions held, by number.
    """

    def __init__(
        self, connection: socket.socket, session_s: float, on_end: Callable[[], None]
    ) -> None:
        connection.setblocking(False)
        self.partitions: dict[int, AbilityReader] = {}
        self._connection = connection
        self._session_s = session_s
        self._on_end = on_end
        self._ready = False
        self._ended = False
        self._heard = time.monotonic()

    @property
    def silent(self) -> bool:
        """Whether the engine was not heard of for longer than its session lasts."""
        return time.monotonic() - self._heard > self._session_s

    @property
    def ready(self) -> bool:
        """Whether the engine has loaded all of its partitions."""
        return self._ready and not self.silent

    def close(self) -> None:
        """Hear no more of the engine."""
        self._connection.close()

    def take(self) -> None:
        """Take all messages that are there; waits for none."""
        while not self._ended:
            try:
                data, files, _, _ = socket.recv_fds(self._connection, _LONGEST_MESSAGE, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data, files = b"", []
            if not data:
                self._end()
                return
            self._heard = time.monotonic()
            message = orjson.loads(data)
            if "hold" in message:
                self._hold(message["hold"], files)
            elif "let_go" in message:
                self.partitions.pop(message["let_go"], None)
            else:
                self._ready = message["ready"]

    def _hold(self, partition: int, files: list[int]) -> None:
        try:
            (segment,) = files
            self.partitions[partition] = AbilityReader(segment)
        except (OSError, ValueError) as error:
            # Too many files are open; without this one the partition would be unknown for good.
            logger.error("partition %d cannot be read, lookups end: %s", partition, error)
            self._end()

    def _end(self) -> None:
        self.partitions.clear()
        self._ready, self._ended = False, True
        self._on_end()
