"""Workers that reach a limit under load are recycled one at a time, and no request fails."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

import psutil
import pytest

from tests.live.harness import APP, Ostler, serving, wait_until
from tests.live.load import Load

LEAKING = (
    APP
    + """
LEAK = []
serving = app


async def app(scope, receive, send):
    if scope["type"] == "http":
        LEAK.append(b"x" * 100_000)
    await serving(scope, receive, send)
"""
)


class ReadyCounts:
    """The least and the greatest number of READY workers, computed from the log lines in their order."""

    def __init__(self, log: str) -> None:
        self.ready = self.least = self.most = 0
        asked: set[str] = set()
        for line in log.splitlines():
            if found := re.search(r"(Worker \d+ \(pid (\d+)\)) is ready", line):
                self.ready += 1
                self.least = min(self.least, self.ready) if asked else self.ready
                self.most = max(self.most, self.ready)
            elif found := re.search(r"Worker \d+ \(pid (\d+)\) drains", line):
                assert found[1] in asked, f"drained without having asked: {line}"
                self.ready -= 1
                self.least = min(self.least, self.ready)
            elif found := re.search(r"Worker \d+ \(pid (\d+)\) asks for a successor", line):
                assert found[1] not in asked, f"asked twice: {line}"
                asked.add(found[1])
        self.asked = len(asked)


def test_workers_that_leak_are_recycled_without_a_lost_request_or_a_missing_worker(
    project: Path,
) -> None:
    (project / "main.py").write_text(LEAKING)
    base = resident_bytes(project)
    limit = f"{base // 2**20 + 40}M"
    with serving(project, "--workers", "3", "--limit-worker-rss", limit) as ostler:
        with Load(ostler.port, kept=4, fresh=2) as load:
            ostler.wait_ready(7, timeout=90)
        text = ostler.log.text
        assert ostler.stop() == 0
    assert not load.failures
    counts = ReadyCounts(text)
    assert counts.least >= 3
    assert counts.most <= 4
    assert counts.asked >= 4
    assert re.search(rf"asks for a successor: Memory limit of {limit} exceeded \(\d+ MiB resident\)", text)
    assert "is less than" not in text


def resident_bytes(project: Path) -> int:
    """Return the resident bytes of a worker that has served no request."""
    with serving(project, "--workers", "1") as ostler:
        [worker] = ostler.workers()
        return int(psutil.Process(worker).memory_info().rss)


def test_workers_of_the_same_age_are_recycled_one_at_a_time_also_with_rolls_and_scaling(
    project: Path,
) -> None:
    lifetime = ["--limit-worker-lifetime", "2", "--limit-worker-lifetime-jitter", "0.5"]
    with serving(project, "--workers", "3", *lifetime) as ostler:
        with Load(ostler.port) as load:
            ostler.wait_ready(9, timeout=60)
            text = ostler.log.text
            ostler.send(signal.SIGHUP)
            ostler.log.wait_for("Rolling restart to generation 2 complete", timeout=60)
            ostler.send(signal.SIGTTIN)
            ostler.log.wait_for("Scaled from 3 workers to 4")
            ostler.send(signal.SIGTTOU)
            ostler.log.wait_for("Scaled from 4 workers to 3")
            seen = ostler.log.text.count(") is ready")
            ostler.wait_ready(seen + 4, timeout=60)
        assert ostler.stop() == 0
    assert not load.failures
    counts = ReadyCounts(text)
    assert (counts.least, counts.most) == (3, 4)
    assert "asks for a successor: Lifetime limit of 2 s exceeded; it serves on until then" in text


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (("--limit-max-requests", "3"), "Maximum request limit of 3 exceeded"),
        (("--limit-worker-lifetime", "1"), "Lifetime limit of 1 s exceeded"),
        (("--limit-worker-rss", "60M"), "Memory limit of 60M exceeded"),
    ],
    ids=lambda value: value[0][2:] if isinstance(value, tuple) else "",
)
def test_a_plain_server_that_reaches_a_limit_finishes_its_requests_and_exits(
    project: Path, limit: tuple[str, str], message: str
) -> None:
    (project / "main.py").write_text(LEAKING)
    with Ostler(project, "main:app", "--port", "0", *limit) as ostler:
        asking = threading.Thread(target=request_until_it_stops, args=(ostler.port,))
        asking.start()
        assert ostler.wait() == 0
        asking.join()
    assert message in ostler.log.text
    assert "Terminating process." in ostler.log.text
    assert "Finished server process" in ostler.log.text


def request_until_it_stops(port: int) -> None:
    load = Load(port, kept=1, fresh=0)
    with load:
        wait_until(lambda: load.failures, "the server has stopped")


def test_a_memory_limit_below_the_size_of_a_new_worker_is_warned_of_and_recycles_nothing(
    project: Path,
) -> None:
    with serving(project, "--workers", "1", "--limit-worker-rss", "1M") as ostler:
        ostler.log.wait_for(r"limit_worker_rss of 1M is less than a worker has in use once it is ready")
        with Load(ostler.port) as load:
            load.wait_answers(2000)
        assert ostler.stop() == 0
    assert ostler.log.text.count(") is ready") == 1
