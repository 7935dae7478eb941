"""Crash loops: every worker dies soon after it is ready, again and again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import psutil

from tests.live.clients import get
from tests.live.harness import APP, Ostler, app_version, elapsed, wait_until

SECONDS = float(os.environ.get("OSTLER_STORM", "10"))
"""How long the workers crash."""
WORKERS = 2

CRASHING = (
    APP
    + """
import threading

serving = app


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        threading.Timer(1.0, os._exit, (1,)).start()
    await serving(scope, receive, send)
"""
)


def spawns_at_most(seconds: float) -> int:
    """Return how many spawns of one slot the back-off allows: at once, after 0.5 s, 1 s, ... at most 30 s."""
    delay, at, count = 0.0, 0.0, 1
    while at < seconds:
        at += 1.0 + delay
        delay = min(2 * delay or 0.5, 30.0)
        count += 1
    return count


def test_in_a_crash_loop_spawns_and_cpu_time_are_bounded_and_mended_code_serves_again(
    project: Path,
) -> None:
    (project / "main.py").write_text(CRASHING)
    with Ostler(project, "main:app", "--port", "0", "--workers", str(WORKERS)) as ostler:
        ostler.wait_ready(WORKERS)
        before, start = cpu_seconds(ostler.pid), time.monotonic()
        ostler.run_for(SECONDS)
        used = (cpu_seconds(ostler.pid) - before) / elapsed(start)
        spawned = ostler.log.text.count("Started server process")
        assert ostler.poll() is None
        (project / "main.py").write_text(app_version("mended"))
        wait_until(lambda: is_mended(ostler.port), "it serves again", timeout=60)
        assert ostler.stop() == 0
    print(f"{spawned} spawns in {SECONDS:g} s, {used:.2%} of a CPU")
    assert spawned <= WORKERS * spawns_at_most(SECONDS)
    assert used < 0.1  # on an idle machine it is a tenth of that


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def is_mended(port: int) -> bool:
    try:
        return get(port).text.startswith("mended")
    except httpx.HTTPError:
        return False
