"""gunicorn as its users start it, with one of ostler's worker classes."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gunicorn.config import Config

from tests.hosting.pages import SCRIPTS
from tests.live.harness import APP, Ostler, wait_until

WORKER = "ostler.gunicorn.Worker"
H11_WORKER = "ostler.gunicorn.H11Worker"

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Gunicorn(Ostler):
    """`gunicorn -k WORKER ARGS main:app` in `directory`; leaving it ends whatever is left, by pid."""

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
        # Its control socket (from 25.1 on) would lie in the home directory, for all instances of a user.
        alone = ["--no-control-socket"] if "control_socket" in Config().settings else []
        options = ("-k", worker, "-b", bind, *alone, *args, app)
        # The script: `-m gunicorn` does not survive its own SIGUSR2. What it leaves open is its own affair.
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
        """The workers that are alive."""
        return {process.pid for process in self.family()} - {self.pid}

    def wait_started(self, count: int) -> None:
        """Wait until `count` workers in all have started their application up since the start."""
        self.log.wait_for("Application startup complete", count=count)

    def wait_replaced(self, old: set[int], count: int) -> None:
        """Wait until none of the `old` workers is left, and `count` others are there."""
        wait_until(lambda: not old & self.pids() and len(self.pids()) == count, f"{old} are replaced")

    def wait_count(self, count: int) -> None:
        """Wait until there are so many workers."""
        wait_until(lambda: len(self.pids()) == count, f"there are {count} workers")

    def reload(self, count: int) -> None:
        """SIGHUP; wait until all workers are others."""
        old = self.pids()
        self.send(signal.SIGHUP)
        self.wait_replaced(old, count)


def version(text: str) -> str:
    """The application as another version; not as long as "one", or cached bytecode counts as fresh."""
    return APP.replace('VERSION = "one"', f'VERSION = "{text}"')


def lines(path: Path, pattern: str) -> list[str]:
    """The lines of a log file that match."""
    return [line for line in path.read_text().splitlines() if re.search(pattern, line)]
