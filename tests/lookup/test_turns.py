"""Short turns on the processor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_the_kernel_has_taken_the_turn_or_the_answer_says_that_it_has_not() -> None:
    if not Path("/proc/self/sched").exists():
        pytest.skip("this kernel does not tell how long a turn is")
    program = (
        "from stream.lookup.turns import take_short_turns; taken = take_short_turns();"
        "lines = [l for l in open('/proc/self/sched') if l.startswith('se.slice')];"
        "print(taken, *(l.split()[-1] for l in lines))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert told in (["True", "200000"], ["True"], ["False"], ["False", *told[1:]])
