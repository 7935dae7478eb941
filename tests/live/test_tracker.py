"""multiprocessing's resource tracker: there for an application that has something to be tracked, else not."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from tests.live.harness import Ostler, wait_until
from tests.live.test_serving import get

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
    with Ostler(project, "main:app", "--port", "0", "--workers", "2") as ostler:
        ostler.wait_ready(2)
        assert get(ostler.port).status_code == 200
        assert {child.pid for child in psutil.Process(ostler.pid).children()} == set(ostler.workers())
        assert ostler.stop() == 0


def test_what_a_killed_worker_leaves_in_shared_memory_is_cleared_up(project: Path) -> None:
    (project / "main.py").write_text((project / "main.py").read_text() + SHARING)
    name = f"ostler-{os.getpid()}"
    with Ostler(project, "main:sharing", "--port", "0", "--workers", "2") as ostler:
        ostler.wait_ready(2)
        assert get(ostler.port, f"/share?{name}").status_code == 200
        wait_until(lambda: len(trackers(ostler.pid)) == 1, "the tracker")
        assert Path("/dev/shm", name).exists()
        assert ostler.stop() == 0
    wait_until(lambda: not Path("/dev/shm", name).exists(), "the memory to be cleared up")
