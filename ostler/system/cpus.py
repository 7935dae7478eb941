"""Counts the CPUs that this process may use, for `--workers auto`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from ostler.settings.declarations import Settings
from ostler.system.cgroups import directories, read


def worker_count(settings: Settings) -> int | None:
    """Return how many workers the settings ask for; None for a server without an arbiter."""
    if settings.workers is None and settings.reload:
        return 1
    return usable_cpus() if settings.workers == "auto" else settings.workers


def usable_cpus(root: str = "/") -> int:
    """Return how many CPUs this process may use by its affinity and its cgroups' quotas; at least 1.

    A quota of one and a half CPUs counts as two. Sources: sched_getaffinity(2); cgroups(7), cpu.max in
    version 2 and cpu.cfs_quota_us in version 1.

    Args:
        root: the directory that contains /proc and /sys.
    """
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        available = os.cpu_count() or 1
    return max(1, min([available, *_quotas(root)]))


def _quotas(root: str) -> Iterator[int]:
    """Yield the quotas of this process's cgroup and of each cgroup above it: all of them apply."""
    for directory in directories("cpu", root=root):
        yield from _quota(*read(f"{directory}/cpu.max").split()[:2])
        yield from _quota(
            *read(f"{directory}/cpu.cfs_quota_us").split()[:1],
            *read(f"{directory}/cpu.cfs_period_us").split()[:1],
        )


def _quota(*fields: str) -> Iterator[int]:
    # "max" in version 2 and -1 in version 1 stand for no quota.
    if len(fields) == 2 and all(field.isdecimal() for field in fields) and int(fields[1]):
        yield math.ceil(int(fields[0]) / int(fields[1]))
