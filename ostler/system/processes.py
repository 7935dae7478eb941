"""Finds out when other processes were started and what they have spawned: from /proc, or else by psutil.

psutil is installed only where there is no /proc. Where there is neither, as under PyPy on macOS, all that is
known of a process is whether it is there.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from ostler.records import record

if TYPE_CHECKING:
    import psutil

# proc_pid_stat(5), counted from the field behind the name.
_STATE, _PARENT, _START = 0, 1, 19


@record
class Process:
    """A process by its pid and its start: the pid alone may be another process's by now."""

    pid: int
    start: float
    """In clock ticks since the boot where there is /proc, else in seconds since the epoch."""

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        if _start(self.pid) == self.start:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)


def started_at(pid: int) -> float | None:
    """Return when a process was started, in seconds since the epoch; None if it has ended, or is a zombie.

    A process of which nothing is known but that it is there counts as started at 0.
    """
    start = _start(pid)
    if start is None or _stat(pid) is None:
        return start
    return _boot_time() + start / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[Process]:
    """Return the children of a process, their children, and so on; none if that is not known."""
    if _stat(pid) is None:
        return [Process(child, start) for child in _children_by_psutil(pid) if (start := _start(child))]
    children: dict[int, list[Process]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))) is not None:
            children.setdefault(int(stat[_PARENT]), []).append(Process(int(name), float(stat[_START])))
    spawned = children.get(pid, [])
    for each in spawned:  # the list grows meanwhile
        spawned += children.get(each.pid, [])
    return spawned


def _start(pid: int) -> float | None:
    """Return the start of a process as in `Process`; 0.0 if unknown, None if the process has ended."""
    if not _exists(pid):
        return None
    if (stat := _stat(pid)) is not None:
        return None if stat[_STATE] in "ZX" else float(stat[_START])
    # No /proc, or one that hides the processes of others (hidepid, proc(5)).
    process = _by_psutil(pid)
    if process is None:
        return 0.0
    import psutil

    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return 0.0


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The name in brackets may hold any character.
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def _by_psutil(pid: int) -> psutil.Process | None:
    try:
        import psutil  # where there is no /proc only: the arbiter stays small
    except ImportError:
        return None
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid)
    return None


def _children_by_psutil(pid: int) -> list[int]:
    if (process := _by_psutil(pid)) is None:
        return []
    import psutil

    try:
        return [child.pid for child in process.children(recursive=True)]
    except psutil.Error:
        return []


def _boot_time() -> float:
    with open("/proc/stat") as file:
        return next(float(line.split()[1]) for line in file if line.startswith("btime "))
