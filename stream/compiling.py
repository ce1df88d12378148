"""How inner loops are compiled, and where the result is kept."""

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
from numba.extending import register_jitable

from stream.domain import ability, practice

__all__ = ["cache_directory", "compiled"]

F = TypeVar("F", bound=Callable[..., object])

_SOURCES = (
    "schemas/attempt.py",
    "stream/compiling.py",
    "stream/follow.py",
    "stream/records.py",
    "stream/domain/ability.py",
    "stream/domain/memory.py",
    "stream/domain/practice.py",
    "stream/engine/day.py",
    "stream/engine/kernel/*.py",
    "stream/kafka/packed_reading.py",
    "stream/kafka/packed_records.py",
)
"""Files with code that is compiled, or with constants that go into it."""

# Formulas that compiled code calls as they stand, those they call themselves first.
for _formula in (
    ability._weigh,
    ability.match,
    ability.regress,
    ability.topic_ability,
    ability.predict_correct,
    ability.fold_drifted,
    practice.features,
    practice.plug_in,
    practice.next_form,
):
    register_jitable(_formula)


def cache_directory() -> Path:
    """Return where this version's compiled code is kept: one directory a state of the source.

    Numba itself looks only at the file of the function that is called; what that function calls
    may have changed as well. Where NUMBA_CACHE_DIR says, or beside the source; where that cannot
    be written, in a copy among the temporary files.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(here.parent.glob(pattern)):
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


def compiled(function: F, *, allocates: bool = False) -> F:
    """Compile a function when it is first called; later processes load the result from disk.

    It runs without the interpreter lock, and divides as NumPy does: by zero gives inf or nan.

    Parameters
    ----------
    function
        What is to be compiled.
    allocates
        It makes arrays of its own. Others leave out the counting of references (`_nrt`), which for
        small functions that hand a partition's arrays on takes half of the time.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": allocates}
    return cast("F", numba.njit(cache=True, **options)(function))
