"""Reads the resident memory of a process."""

from __future__ import annotations

import contextlib
import os


def resident(pid: int | None = None) -> int | None:
    """Return the resident bytes of a process, by default of this one (proc_pid_statm(5)); None if unknown."""
    try:
        with open(f"/proc/{'self' if pid is None else pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # not Linux, or the process has ended
        pass
    # Imported here: most arbiters never need it, and stay smaller. A deploy may have removed the package
    # meanwhile; then only this figure is missing.
    with contextlib.suppress(ImportError):
        import psutil

        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
    return None
