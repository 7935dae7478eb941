"""Skip a test when the machine lacks what it needs; in CI (variable `CI`), fail it."""

from __future__ import annotations

import os
import shutil

import pytest


def need(there: bool, what: str) -> None:
    """Skip or fail the test unless `there` is true; `what` says what is needed, and how to install it."""
    if not there:
        if os.environ.get("CI"):
            pytest.fail(f"CI lacks what this test needs: {what}")
        pytest.skip(what)


def need_namespaces() -> None:
    """Skip or fail the test unless it runs as root and has the programs that make namespaces."""
    need(os.geteuid() == 0, "root, for namespaces and mounts of its own")
    for program in ("unshare", "nsenter", "setpriv"):
        need(shutil.which(program) is not None, f"{program} (Debian: apt install util-linux)")
