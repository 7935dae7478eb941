"""Run ostler in a pseudo-terminal, as a developer does: the test types, and reads what is shown."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import termios
from collections.abc import Generator, Mapping
from pathlib import Path
from types import TracebackType

import psutil

from tests.live.harness import PATIENCE, Output, ProcessFamily, add_note, environment, wait_until


class Terminal:
    """`python -m ostler ARGS` as the foreground job of a new session, with a terminal of its own.

    Leaving the context kills every process that is left, by pid.
    """

    def __init__(self, directory: Path, *args: str, env: Mapping[str, str] | None = None) -> None:
        self._ours, theirs = os.openpty()
        self.modes = termios.tcgetattr(theirs)

        def lead() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._process = subprocess.Popen(
            [sys.executable, "-m", "ostler", *args],
            cwd=directory,
            env=environment({"TERM": "dumb", **(env or {})}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lead,
        )
        self._theirs = theirs
        self._output = Output(self._read())
        self._family = ProcessFamily(self._process)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        add_note(error, f"the terminal:\n{self.text}")
        self._family.kill()
        os.close(self._theirs)
        self._output.close()
        os.close(self._ours)

    def _read(self) -> Generator[str, None, None]:
        # In pieces and not in lines: a prompt has no line break.
        with contextlib.suppress(OSError):  # EIO: the other end is open in no process any more
            while data := os.read(self._ours, 65536):
                yield data.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        return self._output.text

    @property
    def port(self) -> int:
        return int(self.wait_for(r"running on http://\S+?:(\d+) ")[1])

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Return the `count`-th match of a regular expression, as soon as the terminal shows it."""
        return self._output.wait_for(pattern, count=count)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> int:
        """Press Ctrl+C, and return the exit code once no process of this run is left."""
        self.family()
        self.type("\x03")
        code = self._process.wait(PATIENCE)
        wait_until(lambda: not self.family(), "every process of this run is gone")
        return code

    def modes_now(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def family(self) -> list[psutil.Process]:
        """Return every process of this run that is alive, orphaned ones included if they were seen before."""
        return self._family.alive()
