"""One role as a process: its app, its agents by plain import, its HTTP server."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import NoReturn

import faust
import uvloop

from stream.app import Role, ThetaApp, new_app
from stream.lookup.http import LOG_FORMAT
from stream.lookup.server import HttpServer, process_health
from stream.settings import Settings

__all__ = ["build", "run_role"]

_COLLECT_AFTER = (200_000, 10, 20)
"""Garbage collections: a poll brings thousands of records, none of which is in a cycle. With
Python's own 700 for the first figure the collector takes as long as the reading of records."""

_SWITCH_S = 0.0005
"""Seconds after which a thread that computes lets another have the interpreter. The event loop
gives it up with every call of compiled code, and waits so long to have it back: Python's own 5 ms
would be most of its time."""


class _Worker(faust.Worker):
    """Faust's worker, which stops in time: a broker that is gone for good holds nobody up."""

    app: ThetaApp

    async def stop(self) -> None:
        """Stop in good order, or else end after some seconds."""
        self.app.end_soon()
        await super().stop()


def build(role: Role, settings: Settings) -> ThetaApp:
    """Make the app of a role with all its agents and services. Does no I/O."""
    app = new_app(role, settings)
    # Imported here: a role needs its own room only.
    if role == "engine":
        from stream.engine.engine import register as register_engine
        from stream.lookup.announcements import Announcements
        from stream.lookup.process import LookupProcess, engine_health

        announcements = Announcements()
        engine = register_engine(app, announcements)
        server = HttpServer(app, engine_health(engine), behind=True)
        app.early_services.insert(0, LookupProcess(engine, server, announcements))
    elif role == "calibrator":
        from stream.calibration.agents import register as register_calibrator

        register_calibrator(app)
        server = HttpServer(app, process_health(app))
    else:
        from stream.sinks import register as register_sinks

        database = register_sinks(app)
        server = HttpServer(
            app,
            process_health(app, lambda: None if database.ready else "PostgreSQL or its tables"),
        )
    app.early_services.insert(0, server)
    return app


def run_role(role: Role, settings: Settings) -> NoReturn:
    """Run a role until it is told to stop or crashes; exits non-zero after a crash."""
    logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT)
    uvloop.install()
    gc.set_threshold(*_COLLECT_AFTER)
    sys.setswitchinterval(_SWITCH_S)
    # Faust makes its own directory below it, but not its parents.
    Path(settings.state_dir).mkdir(parents=True, exist_ok=True)
    app = build(role, settings)
    worker = _Worker(
        app,
        loglevel=settings.log_level,
        override_logging=False,
        redirect_stdouts=False,
        quiet=True,
    )
    worker.execute_from_commandline()
