"""The command line, ``thetastream``."""

from __future__ import annotations

from stream.cli.main import main

__all__ = ["main"]
