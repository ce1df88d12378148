"""Servers that go away for a while."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from stream.local.service import LocalService


@contextmanager
def stopped(service: LocalService) -> Iterator[None]:
    """End a server as a crash would, and start it again afterwards."""
    service.start_timeout_s = 180.0
    service.kill()
    try:
        yield
    finally:
        service.start()


@contextmanager
def silent(service: LocalService) -> Iterator[None]:
    """Stop a server (SIGSTOP): it holds its connections and answers nothing."""
    process = service.process()
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
