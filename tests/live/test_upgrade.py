"""SIGUSR2: a new arbiter takes the place of the old one, the sockets kept, and no request is lost."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.live.harness import APP, PATIENCE, Ostler, wait_until
from tests.live.load import Load
from tests.live.manager import PROGRAM, Manager, Passing
from tests.live.test_roll import version

ARGUMENTS = ("main:app", "--port", "0", "--workers", "2")


class Upgraded:
    """Stands for the arbiters that have taken over; those that are left are ended by force."""

    def __init__(self, ostler: Ostler) -> None:
        self.ostler = ostler
        self.pids: list[int] = []

    def upgrade(self) -> int:
        """Send SIGUSR2 to whoever is the arbiter; returns the new one's pid once it has taken over."""
        os.kill(self.pids[-1] if self.pids else self.ostler.pid, signal.SIGUSR2)
        count = len(self.pids) + 1
        self.ostler.family()
        started = self.ostler.log.wait_for(r"started new arbiter process \[(\d+)\]", count=count)
        self.pids.append(int(started[1]))
        self.ostler._seen.add(psutil.Process(self.pids[-1]))
        self.ostler.log.wait_for(r"arbiter process \[\d+\] has taken over from", count=count)
        self.see()
        return self.pids[-1]

    def see(self) -> None:
        """Take note of every process, so that none is left behind by a test that fails."""
        self.ostler.family()
        for pid in self.pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                new = psutil.Process(pid)
                self.ostler._seen.update([new, *new.children(recursive=True)])

    def stop(self) -> None:
        """SIGTERM to the newest arbiter; every process is gone when this returns."""
        self.see()
        os.kill(self.pids[-1], signal.SIGTERM)
        wait_until(lambda: not self.ostler.family(), "every process of this run is gone")


@contextlib.contextmanager
def upgrading(directory: Path, *args: str, ready: int = 2, **popen: object) -> Iterator[Upgraded]:
    with Ostler(directory, *(args or ARGUMENTS), **popen) as ostler:  # type: ignore[arg-type]
        upgraded = Upgraded(ostler)
        try:
            ostler.wait_ready(ready)
            yield upgraded
        finally:
            upgraded.see()


def test_an_upgrade_costs_no_request_twice_in_a_row(project: Path) -> None:
    with upgrading(project) as run:
        ostler = run.ostler
        with Load(ostler.port) as load:
            for text in ("second", "the third"):
                (project / "main.py").write_text(version(text))
                before = run.pids[-1:] or [ostler.pid]
                run.upgrade()
                wait_until(lambda before=before: not psutil.pid_exists(before[0]) or gone(before[0]), "gone")  # type: ignore[misc]
                load.bodies.clear()
                load.wait_answers(200)
                assert set(load.bodies) == {text.split()[0]}
        assert ostler.wait() == 0
        run.stop()
    assert not load.failures
    assert load.answered > 400
    assert "Traceback" not in ostler.log.text
    assert "ERROR" not in ostler.log.text


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


BROKEN = {
    "an application that cannot be imported": (
        "main.py",
        "raise ImportError('half deployed')\n",
        "half deployed",
    ),
    "a setting that is wrong": (
        "pyproject.toml",
        "[tool.ostler]\nbacklog = 'much'\n",
        "backlog from pyproject.toml",
    ),
    "an installation without ostler": (
        "ostler.py",
        "raise SystemError('half installed')\n",
        "half installed",
    ),
    "no arbiter any more": (
        "pyproject.toml",
        "[tool.ostler]\nreload = true\n",
        "an upgrade takes an arbiter",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_new_arbiter_that_fails_costs_nothing_and_the_log_says_why(project: Path, what: str) -> None:
    name, text, reason = BROKEN[what]
    good = (project / name).read_text() if (project / name).exists() else None
    with upgrading(project) as run:
        ostler = run.ostler
        workers = set(ostler.workers())
        with Load(ostler.port) as load:
            (project / name).write_text(text)
            ostler.send(signal.SIGUSR2)
            ostler.log.wait_for(
                rf"Upgrade given up, this arbiter serves on: .*exited with code \d: .*{reason}"
            )
            load.wait_answers(100)
            wait_until(lambda: set(ostler.workers()) == workers, "only the old workers are left")
            (project / name).unlink() if good is None else (project / name).write_text(good)
            ostler.send(signal.SIGUSR2)
            ostler.log.wait_for(r"has taken over from")
            run.pids.append(int(ostler.log.wait_for(r"started new arbiter process \[(\d+)\]", count=2)[1]))
            assert ostler.wait() == 0
            load.wait_answers(100)
        run.stop()
    assert not load.failures
