"""A sink that dies between the two tables that one record of ``theta-updates`` goes to."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from stream.settings import Settings
from stream.sinks.pool import SinkDatabase
from stream.sinks.theta import student_topic_theta
from stream.worker import run_role

_write = SinkDatabase._write


async def _die_before_second(self: SinkDatabase, table: Any, rows: Sequence[Any]) -> None:
    if table is student_topic_theta:
        os.kill(os.getpid(), signal.SIGKILL)
    await _write(self, table, rows)


if __name__ == "__main__":
    SinkDatabase._write = _die_before_second  # type: ignore[method-assign]
    run_role("sink", Settings.from_env())
