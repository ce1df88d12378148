"""Ctrl-C and SIGTERM while processes are being started: both break off, and neither is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["interruptible", "raise_if_interrupted", "uninterruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_arrived: list[int] = []
"""Signals that came inside `interruptible`. Python drops an exception that a handler raises while
a finalizer or a callback of a weak reference runs (`import` has some), so the handler notes the
signal too, and loops that wait look at the note."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM break what runs off as Ctrl-C does, so that it can clean up."""
    outermost = signal.getsignal(signal.SIGTERM) is not _break_off
    with _handling(_break_off):
        try:
            yield
        finally:
            if outermost:
                _arrived.clear()


def raise_if_interrupted() -> None:
    """Break off now if a signal came whose exception was lost; for loops that wait."""
    if _arrived and threading.current_thread() is threading.main_thread():
        _raise_for(_arrived.pop())


def uninterruptible() -> AbstractContextManager[None]:
    """Hold a second Ctrl-C off while processes are being ended."""
    return _handling(signal.SIG_IGN)


@contextmanager
def _handling(
    handler: Callable[[int, FrameType | None], NoReturn] | signal.Handlers,
) -> Iterator[None]:
    """Handle both signals so for a while; in the main thread, the only one that can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in _SIGNALS}
    for one, known in before.items():
        # A shell that runs a command in the background has it ignore Ctrl-C.
        if known is not signal.SIG_IGN:
            signal.signal(one, handler)
    try:
        yield
    finally:
        for one, known in before.items():
            signal.signal(one, known)


def _break_off(number: int, _frame: FrameType | None) -> NoReturn:
    _arrived[:] = [number]
    _raise_for(number)


def _raise_for(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
