"""The number of CPUs for `--workers auto`."""

import os
from pathlib import Path

import pytest

from ostler.system.cpus import usable_cpus


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


AVAILABLE = len(os.sched_getaffinity(0))


def test_without_a_quota_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(str(tmp_path)) == AVAILABLE
    assert usable_cpus() >= 1


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("100000 100000", 1),
        ("150000 100000", min(2, AVAILABLE)),
        ("20000 100000", 1),
        ("max 100000", AVAILABLE),
    ],
)
def test_a_quota_of_version_2_bounds_the_number(tmp_path: Path, quota: str, expected: int) -> None:
    files = {"proc/self/cgroup": "0::/app\n", "sys/fs/cgroup/app/cpu.max": quota}
    assert usable_cpus(write(tmp_path, files)) == expected


def test_the_quota_of_a_cgroup_above_counts_as_well(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/app\n",
        "sys/fs/cgroup/pod/app/cpu.max": "max 100000",
        "sys/fs/cgroup/pod/cpu.max": "100000 100000",
    }
    assert usable_cpus(write(tmp_path, files)) == 1


def test_a_quota_of_version_1_bounds_the_number(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "3:cpu,cpuacct:/app\n2:memory:/other\n",
        "sys/fs/cgroup/cpu/app/cpu.cfs_quota_us": "100000",
        "sys/fs/cgroup/cpu/app/cpu.cfs_period_us": "100000",
    }
    assert usable_cpus(write(tmp_path, files)) == 1


def test_minus_one_in_version_1_is_no_quota(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "3:cpu,cpuacct:/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert usable_cpus(write(tmp_path, files)) == AVAILABLE
