"""Finds a process's cgroups, of version 2 and version 1, and reads for how long they have throttled it."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator


def directories(controller: str, *, pid: int | str = "self", root: str = "/") -> Iterator[str]:
    """Yield the directories of the process's cgroup and of each cgroup above it (cgroups(7)).

    The limits of each of them apply. Some directories may not exist: in a container, the container's own
    cgroup is mounted as the root.

    Args:
        controller: such as "cpu".
        pid: of the process.
        root: the directory that contains /proc and /sys.
    """
    for line in read(os.path.join(root, f"proc/{pid}/cgroup")).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mount = "sys/fs/cgroup"
        elif controller in controllers.split(","):
            mount = f"sys/fs/cgroup/{controller}"
        else:
            continue
        yield from (os.path.join(root, f"{mount}{place}") for place in _upwards(path))


def _upwards(path: str) -> Iterator[str]:
    while path != "/":
        yield path
        path = posixpath.dirname(path) or "/"
    yield ""


def read(path: str) -> str:
    """Return the text of a file; an empty text if it cannot be read."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


class Throttling:
    """Reads for how long the CPU quotas of a process's cgroups have throttled it. Call `close()` at the end.

    The files stay open, because they are read once a second.
    """

    def __init__(self, pid: int | str = "self", *, root: str = "/") -> None:
        self._files: list[int] = []
        for directory in directories("cpu", pid=pid, root=root):
            with contextlib.suppress(OSError):
                self._files.append(os.open(f"{directory}/cpu.stat", os.O_RDONLY | os.O_CLOEXEC))

    def read(self) -> int:
        """Return nanoseconds, summed over cgroups and CPUs; with several CPUs more than the time that passed.

        `throttled_usec` in version 2, `throttled_time` in version 1 (Linux,
        Documentation/scheduler/sched-bwc.rst).
        """
        total = 0
        for file in self._files:
            with contextlib.suppress(OSError):  # ENODEV: the process was moved and its old cgroup removed
                for line in os.pread(file, 4096, 0).splitlines():
                    name, _, count = line.partition(b" ")
                    if name in (b"throttled_usec", b"throttled_time"):
                        total += int(count) * (1000 if name == b"throttled_usec" else 1)
        return total

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)
        self._files.clear()
