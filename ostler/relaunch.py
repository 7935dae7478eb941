"""The command line that this process was started with, to be carried out once more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """A command line, its directory and environment; `refusal` says why it cannot be carried out again."""

    arguments: tuple[str, ...]
    directory: str
    """The working directory, symbolic links kept: looked up anew each time."""
    environment: Mapping[str, str]
    refusal: str = ""

    def start(self, added: Mapping[str, str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
        """Start it, with `added` in its environment and `descriptors` inherited; its stderr is a pipe to us.

        Raises:
            OSError: the program or the directory is gone, or there is no process to be had.
        """

        def popen(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
            options: dict[str, Any] = {"pass_fds": descriptors, "stderr": subprocess.PIPE}
            environment = {**self.environment, **added}
            return subprocess.Popen(arguments, cwd=self.directory, env=environment, **options)

        try:
            return popen(self.arguments)
        except FileNotFoundError:
            if os.sep in self.arguments[0]:
                raise
            # The first argument is what the caller has made of it, and need not be in PATH.
            return popen([sys.executable, *self.arguments[1:]])


def this_command(directory: str, environment: Mapping[str, str]) -> Command:
    """Return how this process was started.

    A script that was started by its own name is started by it again, so that its first line can name another
    Python by then: a link to the release may have moved.
    """
    original = list(sys.orig_argv)
    file = getattr(sys.modules["__main__"], "__file__", None)
    # For one process alone: sockets are handed over otherwise, and the watchdog is for whoever serves.
    kept = {n: v for n, v in environment.items() if not n.startswith("LISTEN_") and n != "WATCHDOG_PID"}
    if file in (None, "<stdin>") and "-c" not in original:
        return Command((), directory, kept, "ostler was not started by a command line that can be repeated")
    if file is not None:
        for index, argument in enumerate(original[1:], 1):
            if os.path.abspath(argument) != os.path.abspath(file):
                continue
            if first_line(argument) == original[:index] and os.access(argument, os.X_OK):
                name = argument if os.sep in argument else os.path.join(os.curdir, argument)
                return Command((name, *original[index + 1 :]), directory, kept)
            break
    return Command(tuple(original), directory, kept)


def first_line(script: str) -> list[str]:
    """Return what runs a script according to its `#!` line, as words; [] if there is none."""
    try:
        with open(script, "rb") as file:
            line = file.readline(1024)
    except OSError:
        return []
    if not line.startswith(b"#!"):
        return []
    words = os.fsdecode(line[2:]).split()
    if words and os.path.basename(words[0]) == "env":
        del words[0]
        if words[:1] == ["-S"]:
            del words[0]
    return words
