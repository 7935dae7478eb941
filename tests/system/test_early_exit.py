"""The end of a process before it serves: exit hooks run once, and only in the process that owns them."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, os, sys
from ostler.system.early_exit import exit_with_hooks

atexit.register(print, "first")
atexit.register(lambda: 1 / 0)
atexit.register(print, "last")
try:
    exit_with_hooks(os.getpid() + int(sys.argv[1]))
except BaseException:
    print("swallowed")
"""


@pytest.mark.parametrize(("other", "printed"), [("0", ["last", "first"]), ("1", [])])
def test_hooks_run_in_the_process_that_owns_them(other: str, printed: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, other], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.split()) == (0, printed)
