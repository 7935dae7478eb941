"""Crash storms: every worker dies soon after it is ready, again and again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import psutil

from tests.live.harness import APP, Ostler, wait_until
from tests.live.test_serving import get

SECONDS = float(os.environ.get("OSTLER_STORM", "10"))
"""How long it lasts."""
WORKERS = 2

STORM = (
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
    """How many spawns of one place the back-off allows: after half a second, then after twice that, ..."""
    delay, at, count = 0.5, 0.0, 1
    while at < seconds:
        at += 1.0 + delay
        delay = min(2 * delay, 30.0)
        count += 1
    return count


def test_a_crash_storm_is_bounded_costs_the_arbiter_nothing_and_ends_when_the_code_is_mended(
    project: Path,
) -> None:
    (project / "main.py").write_text(STORM)
    with Ostler(project, "main:app", "--port", "0", "--workers", str(WORKERS)) as ostler:
        ostler.wait_ready(WORKERS)
        before, start = cpu(ostler.pid), time.monotonic()
        wait_until(lambda: time.monotonic() - start > SECONDS, "the storm has lasted", timeout=SECONDS + 60)
        used = (cpu(ostler.pid) - before) / (time.monotonic() - start)
        spawned = ostler.log.text.count("Started server process")
        assert ostler.poll() is None
        (project / "main.py").write_text(APP.replace('VERSION = "one"', 'VERSION = "mended"'))
        wait_until(lambda: mended(ostler.port), "it serves again", timeout=60)
        assert ostler.stop() == 0
    print(f"{spawned} spawns in {SECONDS:g} s, {used:.2%} of a CPU")
    assert spawned <= WORKERS * spawns_at_most(SECONDS)
    assert used < 0.1  # a tenth of that on a machine of its own


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def mended(port: int) -> bool:
    try:
        return get(port).text.startswith("mended")
    except httpx.HTTPError:
        return False
