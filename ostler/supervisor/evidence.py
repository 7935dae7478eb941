"""What the operating system knows of a process: why it is silent, and why it may have died.

Every figure is optional: where there is no such file, nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import signal

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in uninterruptible sleep",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "dead, not yet reaped",
}


def cpu_wait(pid: int) -> int | None:
    """Return the nanoseconds that the main thread of `pid` has waited for a CPU so far.

    The second field of /proc/PID/schedstat (Linux, Documentation/scheduler/sched-stats.rst); None where
    nobody counts that.
    """
    text = _read(f"/proc/{pid}/schedstat")
    try:
        return int(text.split()[1])
    except (IndexError, ValueError):
        return None


def describe(pid: int) -> str:
    """Return state, wait channel, CPU and waiting time and memory of `pid`, in words for the log."""
    facts = []
    state = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1]
    if state:
        facts.append(_STATES.get(state[0], f"in state {state[0]}"))
    channel = _read(f"/proc/{pid}/wchan").strip()
    if channel not in ("", "0"):
        facts.append(f"waiting in {channel}")
    schedstat = _read(f"/proc/{pid}/schedstat").split()
    if len(schedstat) == 3:
        running, waiting = (int(field) / 1e9 for field in schedstat[:2])
        facts.append(f"CPU used {running:.2f} s, CPU waited for {waiting:.2f} s")
    memory = _resident(pid)
    if memory is not None:
        facts.append(f"RSS {memory / 2**20:.0f} MiB")
    return ", ".join(facts)


def describe_exit(code: int) -> tuple[str, str | None]:
    """Return how a process ended, in words, and the name of the signal that ended it, if one did.

    Args:
        code: an exit status, or minus the number of the signal, as `Process.exitcode` has it.
    """
    if code >= 0:
        return f"exited with code {code}", None
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}", name


def oom_kills() -> int | None:
    """Return how many processes the kernel's OOM killer has ended so far, in this cgroup if it can."""
    for path in (*_cgroup_files(), "/proc/vmstat"):
        for line in _read(path).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.strip().isdigit():
                return int(count)
    return None


def _cgroup_files() -> list[str]:
    """Where this process's memory cgroup counts its kills: version 2, then version 1 (cgroups(7))."""
    files = []
    for line in _read("/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            files.append(f"/sys/fs/cgroup{path}/memory.events")
        elif "memory" in controllers.split(","):
            files.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    return files


def _resident(pid: int) -> int | None:
    pages = _read(f"/proc/{pid}/statm").split()[1:2]
    if pages:
        return int(pages[0]) * os.sysconf("SC_PAGE_SIZE")
    # Not Linux. Imported when it is needed: the arbiter is to stay small, and most never ask. A deploy may
    # have taken the package away meanwhile, which must not cost more than this figure.
    with contextlib.suppress(ImportError):
        import psutil

        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
    return None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
