"""A signal while something is being started breaks it off, also where Python drops exceptions."""

import os
import signal

import pytest

from stream.local.interrupts import interruptible, raise_if_interrupted, uninterruptible


@pytest.fixture(autouse=True)
def _heeded():
    """Heed Ctrl-C: a shell that runs the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class SignalledWhileFinalized:
    """Gets a signal inside its finalizer, from where no exception comes out."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        sum(range(1000))  # The handler runs between two of these instructions.


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_whose_exception_is_lost_breaks_off_at_the_next_look(number, raised):
    with interruptible():
        one = SignalledWhileFinalized(number)
        del one
        with pytest.raises(raised):
            raise_if_interrupted()
        raise_if_interrupted()  # Once is enough.


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_breaks_off_at_once_and_is_forgotten_with_the_block(number, raised):
    before = signal.getsignal(number)
    with pytest.raises(raised), interruptible():
        os.kill(os.getpid(), number)
    raise_if_interrupted()
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_cleaning_up_is_not_broken_off():
    with interruptible(), uninterruptible():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
