"""How much memory a process has in use."""

from __future__ import annotations

import contextlib
import os


def resident(pid: int | None = None) -> int | None:
    """Return the resident bytes of a process, by default this one (proc_pid_statm(5)); None if unknown."""
    try:
        with open(f"/proc/{'self' if pid is None else pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # not Linux, or gone
        pass
    # Imported when it is needed: the arbiter is to stay small, and most never ask. A deploy may have taken
    # the package away meanwhile, which must not cost more than this figure.
    with contextlib.suppress(ImportError):
        import psutil

        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
    return None
