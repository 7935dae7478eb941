"""Upgrades of an arbiter in place (SIGUSR2) in tests: start ostler, upgrade it, follow the new arbiters."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.live.harness import Ostler

ARGUMENTS = ("main:app", "--port", "0", "--workers", "2")

WAITING = """
import pathlib, time
pathlib.Path("waiting").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.02)  # in the app
"""
"""Code of an application: its import waits for the file `go`."""


class Upgrades:
    """The arbiters that have taken over from `ostler`, one after the other."""

    def __init__(self, ostler: Ostler) -> None:
        self.ostler = ostler
        self.pids: list[int] = []
        """The pids of the arbiters after the first, in the order of their start."""

    @property
    def newest(self) -> int:
        """The pid of the arbiter that was started last."""
        return self.pids[-1] if self.pids else self.ostler.pid

    def upgrade(self) -> int:
        """Send SIGUSR2 to the newest arbiter, and return the new one's pid once it has taken over."""
        os.kill(self.newest, signal.SIGUSR2)
        count = len(self.pids) + 1
        self.ostler.family()
        pid = self.wait_started(count)
        self.ostler.log.wait_for(r"arbiter process \[\d+\] has taken over from", count=count)
        self.ostler.family()
        return pid

    def wait_started(self, count: int = 1) -> int:
        """Return the pid of the `count`-th new arbiter once it has started, and count it as the newest."""
        started = self.ostler.log.wait_for(r"started new arbiter process \[(\d+)\]", count=count)
        pid = int(started[1])
        self.pids.append(pid)
        self.ostler.adopt(pid)
        return pid

    def stop(self) -> None:
        """Send SIGTERM to the newest arbiter, and wait until no process of this run is left."""
        self.ostler.family()
        os.kill(self.newest, signal.SIGTERM)
        self.ostler.wait_gone()


@contextlib.contextmanager
def upgrading(directory: Path, *args: str, ready: int = 2, **more: Any) -> Iterator[Upgrades]:
    """Run `ostler ARGS`, by default with two workers, and yield once `ready` workers are ready.

    Leaving the context kills every process that is left, by pid. `more` goes to `Ostler`.
    """
    with Ostler(directory, *(args or ARGUMENTS), **more) as ostler:
        ostler.wait_ready(ready)
        yield Upgrades(ostler)
