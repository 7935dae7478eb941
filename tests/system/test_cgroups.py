"""Where the cgroups of a process are, and for how long they have throttled it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.system.cgroups import Throttling, directories
from tests.system.test_cpus import write


def test_the_limits_of_a_process_are_in_its_cgroup_and_those_above(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/7/cgroup": "3:cpu,cpuacct:/pod/app\n2:memory:/m\n0::/a b\n"})
    assert [d[len(root) :] for d in directories("cpu", pid=7, root=root)] == [
        *("/sys/fs/cgroup/cpu/pod/app", "/sys/fs/cgroup/cpu/pod", "/sys/fs/cgroup/cpu"),
        *("/sys/fs/cgroup/a b", "/sys/fs/cgroup"),
    ]
    assert list(directories("cpu", pid=8, root=root)) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.stat": "usage_usec 9\nthrottled_usec 7\n"},
            7000,
        ),
        ({"proc/self/cgroup": "3:cpu:/a\n", "sys/fs/cgroup/cpu/a/cpu.stat": "throttled_time 7\n"}, 7),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.stat": "throttled_usec 1\n",
                "sys/fs/cgroup/a/b/cpu.stat": "throttled_usec 2\n",
            },
            3000,
        ),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.stat": "usage_usec 9\n"}, 0),
        ({}, 0),
    ],
    ids=["version 2", "version 1", "both levels", "without the controller", "no cgroups"],
)
def test_throttled_time_is_summed_in_nanoseconds(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    throttling = Throttling(root=write(tmp_path, files))
    assert throttling.read() == expected
    throttling.close()
    assert throttling.read() == 0


def test_on_this_machine_it_is_a_number() -> None:
    throttling = Throttling()
    assert throttling.read() >= 0
    throttling.close()
