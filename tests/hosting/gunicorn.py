"""Run a real gunicorn with one of ostler's worker classes."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gunicorn.config import Config

from tests.hosting.docs_examples import SCRIPTS
from tests.live.harness import Ostler, wait_until

WORKER = "ostler.gunicorn.Worker"
H11_WORKER = "ostler.gunicorn.H11Worker"

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Gunicorn(Ostler):
    """`gunicorn -k WORKER ARGS APP` in `directory`. Leaving the context kills every process left, by pid."""

    def __init__(
        self,
        directory: Path,
        *args: str,
        app: str = "main:app",
        worker: str = WORKER,
        bind: str = "127.0.0.1:0",
        env: Mapping[str, str] = _NOTHING,
        **popen: Any,
    ) -> None:
        # gunicorn's control socket (from 25.1 on) is in the home directory: all instances of a user share it.
        alone = ["--no-control-socket"] if "control_socket" in Config().settings else []
        options = ("-k", worker, "-b", bind, *alone, *args, app)
        # The script, because a gunicorn started by `-m gunicorn` does not survive its own SIGUSR2.
        # Warnings are ignored, because gunicorn leaves files open.
        program = (str(SCRIPTS / "gunicorn"),)
        super().__init__(
            directory, *options, program=program, env={"PYTHONWARNINGS": "ignore", **env}, **popen
        )

    def __enter__(self) -> Gunicorn:
        return self

    @property
    def port(self) -> int:
        return int(self.log.wait_for(r"Listening at: https?://127\.0\.0\.1:(\d+)")[1])

    def pids(self) -> set[int]:
        """Return the pids of the workers that are alive."""
        return {process.pid for process in self.family()} - {self.pid}

    def wait_started(self, count: int) -> None:
        """Wait until `count` workers have completed the application's startup, replaced workers included."""
        self.log.wait_for("Application startup complete", count=count)

    def wait_replaced(self, old: set[int], count: int) -> None:
        """Wait until none of the `old` workers is left, and `count` other ones run."""
        wait_until(lambda: not old & self.pids() and len(self.pids()) == count, f"{old} are replaced")

    def wait_count(self, count: int) -> None:
        """Wait until `count` workers run."""
        wait_until(lambda: len(self.pids()) == count, f"there are {count} workers")

    def reload(self, count: int) -> None:
        """Send SIGHUP, and wait until `count` new workers have replaced the old ones."""
        old = self.pids()
        self.send(signal.SIGHUP)
        self.wait_replaced(old, count)
