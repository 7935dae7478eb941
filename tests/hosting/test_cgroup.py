"""`--workers auto` in a real cgroup: what the kernel grants is what is counted."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hosting.needs import need_namespaces
from tests.live.harness import APP, Ostler, wait_until
from tests.live.test_serving import get

CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000

# Joins the group (cgroups(7): "0" is the process that writes it), and becomes ostler.
JOIN = """
import os, pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
os.execv(sys.executable, [sys.executable, "-m", "ostler", *sys.argv[2:]])
"""

# The same, seen as from inside a container: its own group is the root of what is mounted.
ENCLOSED = """
import os, pathlib, sys
group, root, *options = sys.argv[1:]
pathlib.Path(group, "cgroup.procs").write_text("0")
enter = ["unshare", "--cgroup", "--mount", "sh", "-ec", 'mount --bind "$1" "$2"; shift 2; exec "$@"', "sh"]
os.execvp(enter[0], [*enter, group, root, sys.executable, "-m", "ostler", *options])
"""


class Group:
    """A cgroup of its own with a quota of CPU time, below whichever version has the cpu controller here."""

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
        """Set the quota; None takes it away."""
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
        wait_until(lambda: not self.procs.read_text(), "nobody is in the group any more")
        self.path.rmdir()


def _controllers() -> list[str]:
    try:
        return (CGROUPS / "cgroup.controllers").read_text().split()
    except FileNotFoundError:
        return []


@pytest.fixture
def group() -> Iterator[Group]:
    need_namespaces()
    group = Group()
    yield group
    group.close()


@contextmanager
def started(directory: Path, group: Group, *, enclosed: bool) -> Iterator[Ostler]:
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


@pytest.mark.parametrize("enclosed", [False, True], ids=["from outside", "from inside"])
def test_a_quota_of_one_cpu_makes_one_worker_where_there_are_more(
    tmp_path: Path, group: Group, enclosed: bool
) -> None:
    cpus = len(os.sched_getaffinity(0))
    assert cpus > 1, "with one CPU there is nothing to see"
    group.grant(1)
    with started(tmp_path, group, enclosed=enclosed) as ostler:
        assert len(ostler.workers()) == 1
        assert str(ostler.pid) in group.procs.read_text().split()


def test_without_a_quota_in_the_group_every_cpu_counts(tmp_path: Path, group: Group) -> None:
    group.grant(None)
    with started(tmp_path, group, enclosed=False) as ostler:
        ostler.wait_ready(len(os.sched_getaffinity(0)))
        assert len(ostler.workers()) == len(os.sched_getaffinity(0))


def test_a_started_part_of_a_cpu_counts_as_a_whole_one(tmp_path: Path, group: Group) -> None:
    group.grant(1.5)
    with started(tmp_path, group, enclosed=False) as ostler:
        ostler.wait_ready(2)
        assert len(ostler.workers()) == 2


WORKING = (
    APP
    + """
import threading

serving = app


async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/work":
        work_in_one_go(float(scope["query_string"]))
    if scope["type"] == "http" and scope["path"] == "/hog":
        threading.Thread(target=work_in_one_go, args=(1000.0,), daemon=True).start()
    await serving(scope, receive, send)


def work_in_one_go(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))
"""
)


@contextmanager
def throttled(directory: Path, group: Group, cpus: float) -> Iterator[Ostler]:
    """Two workers in a group that gets little CPU time once they are ready."""
    (directory / "main.py").write_text(WORKING)
    group.grant(None)
    options = ["main:app", "--port", "0", "--workers", "2", "--timeout-worker-healthcheck", "3"]
    with Ostler(directory, *options, program=["-c", JOIN, str(group.path)]) as ostler:
        ostler.wait_ready(2)
        group.grant(cpus)
        yield ostler
        group.grant(None)
        assert ostler.stop() == 0


def test_a_worker_that_its_groups_quota_keeps_from_its_cpu_is_not_killed(
    tmp_path: Path, group: Group
) -> None:
    with throttled(tmp_path, group, 0.05) as ostler:
        workers = set(ostler.workers())
        # Half a second of work is ten seconds of silence, by the clock.
        start = time.monotonic()
        assert get(ostler.port, "/work?0.5").status_code == 200
        took = time.monotonic() - start
        print(f"half a second of work took {took:.1f} s")
        assert took > 5
        assert set(ostler.workers()) == workers
    assert "aborted" not in ostler.log.text


def test_a_blocked_worker_in_a_throttled_group_is_killed_all_the_same(tmp_path: Path, group: Group) -> None:
    with throttled(tmp_path, group, 0.3) as ostler:
        for _ in range(4):
            assert get(ostler.port, "/hog").status_code == 200  # throttled time grows on every CPU
        with socket.create_connection(("127.0.0.1", ostler.port)) as client:
            client.sendall(b"GET /block?100 HTTP/1.1\r\nHost: test\r\n\r\n")
            ostler.log.wait_for(r"Worker \d \(pid \d+\) \|   File .*main.py\", line \d+ in block_the_loop")
            ostler.log.wait_for(r"Worker \d \(pid \d+\) silent for .*: aborted")
