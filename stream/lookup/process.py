"""Lookups in a process of their own: a busy engine then keeps nobody waiting.

An engine's event loop folds, flushes and talks to Kafka, a millisecond at a time and only while it
has a processor and the interpreter. What answers lookups needs neither the loop nor the interpreter
of the engine, only its memory.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import Process

from mode import Service

from stream.engine.engine import Engine
from stream.errors import StreamError
from stream.lookup.announcements import Announcements
from stream.lookup.http import listen
from stream.lookup.server import Health, HttpServer, process_health

__all__ = ["LookupProcess", "engine_health"]

logger = logging.getLogger(__name__)

_STUCK_S = 300.0
"""Seconds that a change may wait for its commit before the process counts as stuck: longer than
a broker's restart, shorter than anybody's patience."""

_BEAT_S = 0.25
_ENDING_S = 3.0


def engine_health(engine: Engine) -> Health:
    """Alive while changes get committed, ready when every partition's state is loaded."""
    common = process_health(engine.app, lambda: None if engine.ready else "loading state")

    def alive() -> str | None:
        age = engine.oldest_change_s()
        stuck = age > _STUCK_S
        return f"the oldest change has waited {age:.0f} s" if stuck else common.alive()

    return Health(alive=alive, ready=common.ready)


class LookupProcess(Service):
    """Runs the process that answers lookups; the engine ends if that ends.

    Parameters
    ----------
    engine
        Whose learners are looked up.
    server
        The engine's own HTTP server, which answers all that is no lookup. Started before this.
    announcements
        The engine's.
    """

    def __init__(self, engine: Engine, server: HttpServer, announcements: Announcements) -> None:
        super().__init__(loop=engine.app.loop)
        self._engine = engine
        self._server = server
        self._announcements = announcements
        self._process: Process | None = None

    async def on_start(self) -> None:
        """Listen and start the process; what is asked before it runs waits."""
        listener = listen(self._engine.settings)
        connection = self._announcements.connect()
        files = listener.fileno(), connection.fileno()
        command = sys.executable, "-m", "stream.lookup", *map(str, (*files, self._server.port))
        # In a session of its own, so that Ctrl-C reaches the engine alone, which then ends it.
        self._process = await asyncio.create_subprocess_exec(
            *command, pass_fds=files, start_new_session=True
        )
        listener.close()
        connection.close()
        self.add_future(self._watch(self._process))
        self.add_future(self._beat())

    async def on_stop(self) -> None:
        """End the process."""
        self._announcements.close()
        if self._process is not None:
            try:
                async with asyncio.timeout(_ENDING_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def _watch(self, process: Process) -> None:
        code = await process.wait()
        if not (self.should_stop or self._engine.app.should_stop):
            self._engine.app.fail(
                StreamError(
                    f"The process that answers lookups ended with {code}; see the log above. "
                    "Nothing is lost; the engine ends and is to be started again."
                )
            )

    async def _beat(self) -> None:
        while not self.should_stop:
            self._announcements.ready(self._engine.ready)
            await asyncio.sleep(_BEAT_S)
        # After a crash: what is in memory may be another engine's by now.
        self._engine.forget()
