"""What a test needs of the machine: absent, it skips the test at home, and fails it in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def need(there: bool, what: str) -> None:
    """Go on only where `there`; `what` says what is needed, and how to get it."""
    if not there:
        if os.environ.get("CI"):
            pytest.fail(f"CI lacks what this test needs: {what}")
        pytest.skip(what)


def need_namespaces() -> None:
    """Go on only as root, with the programs that make namespaces."""
    need(os.geteuid() == 0, "root, for namespaces and mounts of its own")
    for program in ("unshare", "nsenter", "setpriv"):
        need(shutil.which(program) is not None, f"{program} (Debian: apt install util-linux)")
