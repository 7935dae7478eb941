"""multiprocessing's resource tracker: it runs only for an application that has something to be tracked."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from tests.live.clients import get
from tests.live.harness import serving, wait_until

SHARING = """
import multiprocessing
from multiprocessing.shared_memory import SharedMemory


async def sharing(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/share":
        memory = SharedMemory(scope["query_string"].decode(), create=True, size=16)
        memory.close()
    await app(scope, receive, send)
"""


def trackers(arbiter: int) -> list[int]:
    children = psutil.Process(arbiter).children()
    return [child.pid for child in children if "resource_tracker" in " ".join(child.cmdline())]


def test_a_fleet_that_has_nothing_to_be_tracked_has_no_tracker(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        assert get(ostler.port).status_code == 200
        assert {child.pid for child in psutil.Process(ostler.pid).children()} == set(ostler.workers())
        assert ostler.stop() == 0


def test_shared_memory_that_a_worker_leaves_behind_is_removed(project: Path) -> None:
    (project / "main.py").write_text((project / "main.py").read_text() + SHARING)
    name = f"ostler-{os.getpid()}"
    with serving(project, "--workers", "2", app="main:sharing") as ostler:
        assert get(ostler.port, f"/share?{name}").status_code == 200
        wait_until(lambda: len(trackers(ostler.pid)) == 1, "the tracker runs")
        assert Path("/dev/shm", name).exists()
        assert ostler.stop() == 0
    wait_until(lambda: not Path("/dev/shm", name).exists(), "the memory is removed")
