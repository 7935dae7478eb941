"""Ostler at a terminal, as a developer has it: a pseudo-terminal, whose other end the test types on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psutil

from tests.live.harness import PATIENCE, environment, wait_until


class Terminal:
    """`python -m ostler ARGS` as the foreground job of a session at a terminal of its own."""

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
        self._text = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._seen: set[psutil.Process] = set()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.__notes__ = [*getattr(error, "__notes__", ()), f"the terminal:\n{self.text}"]
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(PATIENCE)
        psutil.wait_procs(family, PATIENCE)
        os.close(self._theirs)
        self._reader.join(PATIENCE)
        os.close(self._ours)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has the other end open any more
            while data := os.read(self._ours, 65536):
                with self._changed:
                    self._text += data.decode("utf-8", "replace")
                    self._changed.notify_all()

    @property
    def text(self) -> str:
        with self._changed:
            return self._text

    @property
    def port(self) -> int:
        return int(self.wait_for(r"running on http://\S+?:(\d+) ")[1])

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Return the `count`-th match of what is shown, as soon as it is."""

        def matches() -> list[re.Match[str]]:
            return list(re.finditer(pattern, self._text, re.MULTILINE))

        with self._changed:
            if not self._changed.wait_for(lambda: len(matches()) >= count, PATIENCE):
                raise AssertionError(f"{pattern!r} was not shown within {PATIENCE:g} s:\n{self._text}")
            return matches()[count - 1]

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> int:
        """Press Ctrl+C, and return the exit code once everybody has gone."""
        self.family()
        self.type("\x03")
        code = self._process.wait(PATIENCE)
        wait_until(lambda: not self.family(), "every process of this run is gone")
        return code

    def modes_now(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def family(self) -> list[psutil.Process]:
        """Every process of this run that is alive, those orphaned since included."""
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._process.pid)
            self._seen.update([main, *main.children(recursive=True)])
        alive = []
        for process in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        return alive
