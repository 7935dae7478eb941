"""Where a process's cgroups are, in version 2 and in version 1, and how long they have throttled it."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator


def directories(controller: str, *, pid: int | str = "self", root: str = "/") -> Iterator[str]:
    """Yield the directories of this controller's group, from the process's own upwards: each of them binds.

    Not all need be there: a container sees its own group as the root. `root` is where /proc and /sys are
    found (cgroups(7)).
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
    """Return what the file has; nothing where it cannot be read."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


class Throttling:
    """For how long the quotas of a process's groups have kept it from its CPUs. Call `close()` at the end.

    The files stay open: they are read once a second.
    """

    def __init__(self, pid: int | str = "self", *, root: str = "/") -> None:
        self._files: list[int] = []
        for directory in directories("cpu", pid=pid, root=root):
            with contextlib.suppress(OSError):
                self._files.append(os.open(f"{directory}/cpu.stat", os.O_RDONLY | os.O_CLOEXEC))

    def read(self) -> int:
        """Return nanoseconds, summed over groups and CPUs: more than has passed, where there are several.

        `throttled_usec` in version 2, `throttled_time` in version 1 (Linux,
        Documentation/scheduler/sched-bwc.rst).
        """
        total = 0
        for file in self._files:
            with contextlib.suppress(OSError):  # ENODEV: the group was removed, the process moved
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
