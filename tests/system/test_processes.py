"""When other processes were started, and what they have spawned: from /proc, and by psutil."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from ostler.system import processes
from ostler.system.processes import Process, descendants, started_at
from tests.worker.harness import until

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
child.communicate(b"\\n")
"""


@pytest.fixture(params=["/proc", "psutil"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the facts come from; the second as on a system without /proc."""
    if request.param == "psutil":
        monkeypatch.setattr(processes, "_stat", lambda pid: None)
    return str(request.param)


@pytest.fixture
def parent() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has a child, and the child's pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    with process:
        yield process, child
        if process.poll() is None:
            process.communicate("\n")


@pytest.mark.usefixtures("way")
def test_the_start_of_a_process_is_known_until_it_ends(parent: tuple[subprocess.Popen[str], int]) -> None:
    process, _ = parent
    started = started_at(process.pid)
    assert started is not None
    assert abs(started - time.time()) < 60
    process.kill()
    until(lambda: started_at(process.pid) is None)  # a zombie: it is not waited for
    process.wait()
    assert started_at(process.pid) is None


@pytest.mark.usefixtures("way")
def test_what_a_process_has_spawned_is_found_at_every_depth(
    parent: tuple[subprocess.Popen[str], int],
) -> None:
    process, child = parent
    family = {each.pid for each in descendants(os.getpid())}
    assert {process.pid, child} <= family
    assert [each.pid for each in descendants(process.pid)] == [child]
    assert descendants(child) == []


@pytest.mark.usefixtures("way")
def test_a_process_is_killed_but_not_one_that_has_its_pid_by_chance(
    parent: tuple[subprocess.Popen[str], int],
) -> None:
    process, child = parent
    [found] = descendants(process.pid)
    Process(child, found.start - 1).kill()
    assert psutil.Process(child).status() != psutil.STATUS_ZOMBIE
    found.kill()
    process.communicate("\n")  # it waits for its child
    assert not psutil.pid_exists(child)


def test_where_nothing_is_known_a_process_that_is_there_has_always_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under PyPy on macOS: the pid file of a process that may be ours is not overwritten."""
    monkeypatch.setattr(processes, "_stat", lambda pid: None)
    monkeypatch.setattr(processes, "_by_psutil", lambda pid: None)
    assert started_at(os.getpid()) == 0.0
    assert started_at(2**22 + 1) is None
    assert started_at(10**20) is None
    assert descendants(os.getpid()) == []
