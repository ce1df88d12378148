"""The recomputation shares no code with what it checks."""

from __future__ import annotations

import subprocess
import sys


def test_verify_imports_nothing_of_the_engine():
    code = "import stream.verify, sys; print(*(name for name in sys.modules if '.' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.split(".")[0] in ("stream", "schemas")}
    assert {name.split(".")[1] for name in ours} == {"errors", "verify"}
