"""Run ostler in a pseudo-terminal, as a developer does: the test types, and reads what is shown."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
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

    With `nohup` SIGHUP is ignored as it starts. Leaving the context kills every process that is left, by pid.
    """

    def __init__(
        self, directory: Path, *args: str, env: Mapping[str, str] | None = None, nohup: bool = False
    ) -> None:
        self._ours, theirs = os.openpty()
        self._closing, self._close = os.pipe()
        self.modes = termios.tcgetattr(theirs)

        def lead() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)

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
        self.hang_up()

    def _read(self) -> Generator[str, None, None]:
        # In pieces and not in lines: a prompt has no line break.
        poll = select.poll()
        poll.register(self._ours, select.POLLIN)
        poll.register(self._closing, select.POLLIN)
        with contextlib.suppress(OSError):  # EIO: the other end is open in no process any more
            while not any(fd == self._closing for fd, _ in poll.poll()):
                yield os.read(self._ours, 65536).decode("utf-8", "replace")

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
        self.type("\x03")
        return self.wait()

    def hang_up(self) -> None:
        """Close the terminal, as its window is closed or ssh ends; a second call is a no-op."""
        if self._ours < 0:
            return
        os.close(self._close)  # while a thread reads from the terminal, the kernel would not close it
        self._output.close()
        os.close(self._closing)
        os.close(self._ours)
        self._ours = -1

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> int:
        """Return the exit code once no process of this run is left."""
        self.family()
        code = self._process.wait(PATIENCE)
        wait_until(lambda: not self.family(), "every process of this run is gone")
        return code

    def modes_now(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def family(self) -> list[psutil.Process]:
        """Return every process of this run that is alive, orphaned ones included if they were seen before."""
        return self._family.alive()
