"""Reads /proc and cgroups of a worker: CPU waits, throttling, state, memory, OOM kills, exit status.

Every figure is optional: if a file is missing, the text says nothing of it.
"""

from __future__ import annotations

import signal

from ostler.supervisor.fleet.events import Inspected
from ostler.system.cgroups import Throttling, directories, read
from ostler.system.memory import resident

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in uninterruptible sleep",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "dead, not yet reaped",
}


def inspect(pid: int) -> Inspected:
    """Return what is known of a silent process: its CPU time, and a description for the log.

    The CPU time is from /proc/PID/schedstat: the nanoseconds that the main thread was on a CPU, and waited
    for one (Linux, Documentation/scheduler/sched-stats.rst). The time for which its cgroup was throttled is
    read only of a process that wants to run: one that sleeps or is stopped would not have run anyway.
    """
    ran, waited = cpu_time(pid)
    throttled = None
    if _state(pid) == "R":
        throttling = Throttling(pid)
        throttled = throttling.read()
        throttling.close()
    return Inspected(pid, waited, describe(pid), ran, throttled)


def cpu_time(pid: int) -> tuple[int, int] | tuple[None, None]:
    """Return the nanoseconds that the main thread was on a CPU, and waited for one; None if not counted."""
    fields = read(f"/proc/{pid}/schedstat").split()
    return (int(fields[0]), int(fields[1])) if len(fields) == 3 else (None, None)


def _state(pid: int) -> str:
    # The name before it may hold any character.
    return next(iter(read(f"/proc/{pid}/stat").rpartition(")")[2].split()), "")


def describe(pid: int) -> str:
    """Return state, wait channel, CPU and waiting time and memory of `pid`, in words for the log."""
    facts = []
    state = _state(pid)
    if state:
        facts.append(_STATES.get(state, f"in state {state}"))
    channel = read(f"/proc/{pid}/wchan").strip()
    if channel not in ("", "0"):
        facts.append(f"waiting in {channel}")
    ran, waited = cpu_time(pid)
    if ran is not None and waited is not None:
        facts.append(f"CPU used {ran / 1e9:.2f} s, CPU waited for {waited / 1e9:.2f} s")
    memory = resident(pid)
    if memory is not None:
        facts.append(f"RSS {memory / 2**20:.0f} MiB")
    return ", ".join(facts)


def describe_exit(code: int) -> tuple[str, str | None]:
    """Return how a process ended, in words, and the name of the signal that ended it, or None.

    Args:
        code: an exit status, or minus the number of the signal, as in `multiprocessing.Process.exitcode`.
    """
    if code >= 0:
        return f"exited with code {code}", None
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}", name


def oom_kills() -> int | None:
    """Return how many processes the kernel's OOM killer has ended: in this cgroup, or else on the machine."""
    # Only the process's own cgroup: kills in another one say nothing about our workers.
    own = next(directories("memory"), "")
    for path in (f"{own}/memory.events", f"{own}/memory.oom_control", "/proc/vmstat"):
        for line in read(path).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.strip().isdecimal():
                return int(count)
    return None
