"""Starts another arbiter by the command line that this one was started with (SIGUSR2)."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from ostler.records import record


@record
class Command:
    """A command line, its directory and environment."""

    arguments: tuple[str, ...]
    directory: str
    """The working directory, symbolic links kept: looked up anew each time."""
    environment: Mapping[str, str]
    refusal: str = ""
    """Why it cannot be carried out again; empty where it can."""

    def start(self, added: Mapping[str, str], descriptors: Sequence[int]) -> tuple[int, int]:
        """Start it; return its pid and the read end of a pipe that is its stderr.

        The process is an orphan from the start, and so becomes a child of the service manager. If it were the
        old arbiter's child when MAINPID names it, systemd would take it for an alien, and at a stop kill it
        without waiting for its end. So a process forked in between starts it, and ends.

        Args:
            added: variables to add to its environment.
            descriptors: those that it inherits, by the same numbers.

        Raises:
            OSError: the program or the directory is gone, or there is no process to be had.
        """
        stderr, stderr_writer = os.pipe()
        answer, answer_writer = os.pipe()
        # The process in between would write a signal of its own into our wake-up pipe.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with warnings.catch_warnings():
                # Since Python 3.12, of a fork beside other threads: the child needs none of them.
                warnings.simplefilter("ignore", DeprecationWarning)
                between = os.fork()
            if not between:
                self._start_from_between(added, descriptors, stderr_writer, answer_writer, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(stderr_writer)
            os.close(answer_writer)
        with open(answer, "rb") as file:
            words = file.read()
        os.waitpid(between, 0)
        number, _, name = words.partition(b" ")
        if words and not name:
            return int(number), stderr
        os.close(stderr)
        code = int(number or errno.EAGAIN)
        raise OSError(code, os.strerror(code), os.fsdecode(name))

    def _start_from_between(
        self,
        added: Mapping[str, str],
        descriptors: Sequence[int],
        stderr: int,
        answer: int,
        mask: Iterable[int],
    ) -> NoReturn:
        """In the process in between: start the command, and write its pid, or an errno and a file name."""
        try:
            signal.set_wakeup_fd(-1)
            environment = {**self.environment, **added}

            def popen(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    arguments,
                    cwd=self.directory,
                    env=environment,
                    pass_fds=descriptors,
                    stderr=stderr,
                    preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
                )

            try:
                process = popen(self.arguments)
            except FileNotFoundError:
                if os.sep in self.arguments[0]:
                    raise
                # The first argument is chosen by the program that started us, and need not be in PATH.
                process = popen([sys.executable, *self.arguments[1:]])
            os.write(answer, b"%d" % process.pid)
        except OSError as error:
            os.write(answer, b"%d " % (error.errno or 0) + os.fsencode(error.filename or self.arguments[0]))
        finally:
            os._exit(0)


def this_command(directory: str, environment: Mapping[str, str]) -> Command:
    """Return how this process was started.

    A script that was started by its own name is started by that name again. Its first line may then name
    another Python, as the link to the release may have moved.

    Args:
        directory: the working directory, symbolic links kept.
        environment: the one that this process was started with.
    """
    original = list(sys.orig_argv)
    file = getattr(sys.modules["__main__"], "__file__", None)
    # These variables name one process: sockets are handed over in another way, and the watchdog goes with the
    # place.
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
    """Return the words of a script's `#!` line, without `env` and its -S; [] if it has none."""
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
