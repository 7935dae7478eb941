"""Run a process manager (supervisord, circusd) in the foreground, and drive it by its own command."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from tests.hosting.docs_examples import SCRIPTS
from tests.live.harness import PATIENCE, Output, ProcessFamily, add_note, environment, wait_until

# Warnings of the managers themselves are ignored. Below them, PYTHONWARNINGS makes warnings errors.
_IGNORE_WARNINGS = ("-W", "ignore")


class ProcessManager:
    """A process manager and the servers that it runs.

    Leaving the context ends the manager, and kills every process that is left, by pid.

    Args:
        daemon: The manager's program and its arguments, for the foreground.
        control: The program and the first arguments of the command that talks to it.
        directory: Where both run.
        env: Additional variables for both.
    """

    def __init__(
        self,
        daemon: Sequence[str],
        control: Sequence[str],
        directory: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._control = control
        self._directory = directory
        self._env = environment(env)
        self._process = subprocess.Popen(
            [sys.executable, *_IGNORE_WARNINGS, str(SCRIPTS / daemon[0]), *daemon[1:]],
            cwd=directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self.log = Output(self._process.stdout)
        self._family = ProcessFamily(self._process)

    def __enter__(self) -> ProcessManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        add_note(error, f"the manager's log:\n{self.log.text}")
        self.family()
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE if error is None else 3)
        self._family.kill()
        self.log.close()

    def control(self, *words: str) -> str:
        """Run the manager's own command with these words, and return what it prints; fail if it fails."""
        done = wait_until(lambda: self._run_control(words), f"the manager carries out {' '.join(words)}")
        assert done is not None
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _run_control(self, words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
        """Return None if the manager is busy; circus is, if only with its periodic check."""
        done = subprocess.run(
            [sys.executable, *_IGNORE_WARNINGS, str(SCRIPTS / self._control[0]), *self._control[1:], *words],
            cwd=self._directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        return None if "arbiter is already running" in done.stdout + done.stderr else done

    def family(self) -> list[psutil.Process]:
        """Return the manager and every process below it that is alive, orphaned ones included if seen."""
        return self._family.alive()

    def children_with(self, argument: str) -> set[int]:
        """Return the pids of the manager's own children that have `argument` on their command line."""
        self.family()
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children()
            return {child.pid for child in children if argument in _arguments(child)}
        return set()

    def workers(self) -> set[int]:
        """Return the pids of the workers of all arbiters below the manager."""
        return {process.pid for process in self.family() if re.match(r"ostler: worker \d", _title(process))}

    def wait_gone(self, pids: set[int]) -> None:
        """Wait until none of these processes is left."""
        wait_until(
            lambda: not pids & {process.pid for process in self.family()},
            f"{pids} and their children are gone",
        )

    def stop(self) -> int:
        """Send SIGTERM to the manager, and return its exit code once no process below it is left."""
        self.family()
        self._process.terminate()
        code = self._process.wait(2 * PATIENCE)
        wait_until(lambda: not self.family(), "every process below the manager is gone")
        return code


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return [argument for argument in process.cmdline() if argument]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def _title(process: psutil.Process) -> str:
    return " ".join(_arguments(process))
