"""A role whose agent meets something that nobody thought of: ``poisoned.py engine|sink``."""

from __future__ import annotations

import sys
from typing import Any, cast

from stream.app import Role
from stream.engine.engine import Engine
from stream.settings import Settings
from stream.sinks.pool import SinkDatabase
from stream.worker import run_role


async def _fail(*_arguments: Any, **_options: Any) -> None:
    raise ArithmeticError("a poisoned record")


if __name__ == "__main__":
    Engine._fold_batch = _fail  # type: ignore[method-assign]
    SinkDatabase.write = _fail  # type: ignore[method-assign]
    run_role(cast("Role", sys.argv[1]), Settings.from_env())
