"""`make test-pythons`: what it says where it cannot run. CI does not run the rest: it takes an hour."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "tools" / "test_pythons.sh"


def test_without_root_it_is_one_line() -> None:
    # Through a pipe: another user may not be able to read the file.
    done = subprocess.run(
        ["bash", "-s"],
        input=SCRIPT.read_text(),
        user=65534 if os.geteuid() == 0 else None,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "test-pythons: needs root, for the chroot: sudo make test-pythons\n"
