"""How the engine's inner loops are compiled, and where the result is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba import config

from stream.domain import ability, memory, practice

__all__ = ["cache_directory", "compiled"]

F = TypeVar("F", bound=Callable[..., object])


def cache_directory() -> Path:
    """Return where this version's compiled code is kept: one directory a state of the source.

    Numba itself looks only at the file of the function that is called; what that function calls
    may have changed as well. Where NUMBA_CACHE_DIR says, or beside the source; where that cannot
    be written, in a copy among the temporary files.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in (
        *sorted(here.glob("*.py")),
        *(Path(str(module.__file__)) for module in (ability, memory, practice)),
    ):
        digest.update(path.read_bytes())
    given = os.environ.get("NUMBA_CACHE_DIR")
    made = (Path(given) if given else here / "__pycache__") / digest.hexdigest()[:16]
    if os.access(made.parent if made.parent.exists() else made.parent.parent, os.W_OK):
        return made
    # Numba wants to be able to write there, even if only to read.
    copy = Path(tempfile.gettempdir()) / "thetastream-compiled" / made.name
    if made.exists() and not copy.exists():
        shutil.copytree(made, copy)
    return copy


config.CACHE_DIR = str(cache_directory())  # type: ignore[attr-defined]


def compiled(function: F) -> F:
    """Compile a function when it is first called; later processes load the result from disk.

    It runs without the interpreter lock, and divides as NumPy does: by zero gives inf or nan. It
    makes no arrays of its own (`_nrt`), so that none is counted: handing the arrays of a partition
    from function to function took half of the time.
    """
    options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
    return cast("F", numba.njit(**options)(function))
