"""`--workers auto` and the healthcheck in a real cgroup with a quota of CPU time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hosting.needs import need_namespaces
from tests.live.clients import get, open_get
from tests.live.harness import APP, Ostler, elapsed, wait_until

CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000

# Joins the group (cgroups(7): "0" stands for the process that writes it), and executes ostler.
JOIN = """
import os, pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
os.execv(sys.executable, [sys.executable, "-m", "ostler", *sys.argv[2:]])
"""

# The same as in a container, where the own group is the root of the mounted hierarchy.
ENCLOSED = """
import os, pathlib, sys
group, root, *options = sys.argv[1:]
pathlib.Path(group, "cgroup.procs").write_text("0")
enter = ["unshare", "--cgroup", "--mount", "sh", "-ec", 'mount --bind "$1" "$2"; shift 2; exec "$@"', "sh"]
os.execvp(enter[0], [*enter, group, root, sys.executable, "-m", "ostler", *options])
"""


class CpuGroup:
    """A new cgroup with a quota of CPU time, in version 1 or 2, where the machine has the cpu controller."""

    def __init__(self) -> None:
        name = f"ostler-test-{os.getpid()}"
        if (CGROUPS / "cpu" / "cgroup.procs").exists():
            self.version, self.root = 1, CGROUPS / "cpu"
        elif "cpu" in _controllers():
            self.version, self.root = 2, CGROUPS
            (self.root / "cgroup.subtree_control").write_text("+cpu")
        else:
            pytest.fail("neither version of cgroups has the cpu controller at /sys/fs/cgroup")
        self.path = self.root / name
        self.path.mkdir()

    def grant(self, cpus: float | None) -> None:
        """Set the quota in CPUs; None removes it."""
        quota = None if cpus is None else int(cpus * PERIOD)
        if self.version == 2:
            (self.path / "cpu.max").write_text(f"{'max' if quota is None else quota} {PERIOD}")
        else:
            (self.path / "cpu.cfs_period_us").write_text(str(PERIOD))
            (self.path / "cpu.cfs_quota_us").write_text(str(-1 if quota is None else quota))

    @property
    def procs(self) -> Path:
        return self.path / "cgroup.procs"

    def close(self) -> None:
        wait_until(lambda: not self.procs.read_text(), "no process is in the group any more")
        self.path.rmdir()


def _controllers() -> list[str]:
    try:
        return (CGROUPS / "cgroup.controllers").read_text().split()
    except FileNotFoundError:
        return []


@pytest.fixture
def group() -> Iterator[CpuGroup]:
    need_namespaces()
    group = CpuGroup()
    yield group
    group.close()


@contextmanager
def serving_in_group(directory: Path, group: CpuGroup, *, enclosed: bool) -> Iterator[Ostler]:
    (directory / "main.py").write_text(APP)
    options = ["main:app", "--port", "0", "--workers", "auto"]
    if enclosed:
        program = ["-c", ENCLOSED, str(group.path), str(group.root)]
    else:
        program = ["-c", JOIN, str(group.path)]
    with Ostler(directory, *options, program=program) as ostler:
        ostler.wait_ready(1)
        assert get(ostler.port).status_code == 200
        yield ostler
        assert ostler.stop() == 0


@pytest.mark.parametrize("enclosed", [False, True], ids=["on the host", "in a container"])
def test_with_a_quota_of_one_cpu_auto_is_one_worker_on_a_machine_with_more(
    tmp_path: Path, group: CpuGroup, enclosed: bool
) -> None:
    cpus = len(os.sched_getaffinity(0))
    assert cpus > 1, "this test needs more than one CPU"
    group.grant(1)
    with serving_in_group(tmp_path, group, enclosed=enclosed) as ostler:
        assert len(ostler.workers()) == 1
        assert str(ostler.pid) in group.procs.read_text().split()


def test_without_a_quota_auto_is_one_worker_per_cpu(tmp_path: Path, group: CpuGroup) -> None:
    group.grant(None)
    with serving_in_group(tmp_path, group, enclosed=False) as ostler:
        ostler.wait_ready(len(os.sched_getaffinity(0)))
        assert len(ostler.workers()) == len(os.sched_getaffinity(0))


def test_a_quota_is_rounded_up_to_whole_cpus(tmp_path: Path, group: CpuGroup) -> None:
    group.grant(1.5)
    with serving_in_group(tmp_path, group, enclosed=False) as ostler:
        ostler.wait_ready(2)
        assert len(ostler.workers()) == 2


WORKING = (
    APP
    + """
import threading

serving = app


async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/work":
        use_cpu_seconds(float(scope["query_string"]))
    if scope["type"] == "http" and scope["path"] == "/hog":
        threading.Thread(target=use_cpu_seconds, args=(1000.0,), daemon=True).start()
    await serving(scope, receive, send)


def use_cpu_seconds(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))
"""
)


@contextmanager
def throttled(directory: Path, group: CpuGroup, cpus: float) -> Iterator[Ostler]:
    """Run two workers, and limit their group to `cpus` once they are ready."""
    (directory / "main.py").write_text(WORKING)
    group.grant(None)
    options = ["main:app", "--port", "0", "--workers", "2", "--timeout-worker-healthcheck", "3"]
    with Ostler(directory, *options, program=["-c", JOIN, str(group.path)]) as ostler:
        ostler.wait_ready(2)
        group.grant(cpus)
        yield ostler
        group.grant(None)
        assert ostler.stop() == 0


def test_a_worker_that_is_throttled_by_its_cgroup_is_not_killed(tmp_path: Path, group: CpuGroup) -> None:
    with throttled(tmp_path, group, 0.05) as ostler:
        workers = set(ostler.workers())
        # At 5 % of a CPU, half a second of work blocks the event loop for ten seconds.
        start = time.monotonic()
        assert get(ostler.port, "/work?0.5").status_code == 200
        took = elapsed(start)
        print(f"half a second of work took {took:.1f} s")
        assert took > 5
        assert set(ostler.workers()) == workers
    assert "aborted" not in ostler.log.text


def test_a_blocked_worker_in_a_throttled_cgroup_is_killed(tmp_path: Path, group: CpuGroup) -> None:
    with throttled(tmp_path, group, 0.3) as ostler:
        for _ in range(4):
            assert get(ostler.port, "/hog").status_code == 200  # throttled time grows on every CPU
        with open_get(ostler.port, "/block?100"):
            ostler.log.wait_for(r"Worker \d \(pid \d+\) \|   File .*main.py\", line \d+ in block_the_loop")
            ostler.log.wait_for(r"Worker \d \(pid \d+\) silent for .*: aborted")
