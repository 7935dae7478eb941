"""A process manager in the foreground, driven by its own command, with ostlers below it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from tests.hosting.pages import SCRIPTS
from tests.live.harness import PATIENCE, Output, environment, wait_until

# What the managers leave open or still use is theirs; below them, PYTHONWARNINGS makes warnings errors.
_LENIENT = ("-W", "ignore")


class Manager:
    """`daemon` in the foreground, and `control`, the command that talks to it.

    Leaving it ends whatever is left, by pid.
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
            [sys.executable, *_LENIENT, str(SCRIPTS / daemon[0]), *daemon[1:]],
            cwd=directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self.log = Output(self._process.stdout)
        self._seen: set[psutil.Process] = set()

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.__notes__ = [*getattr(error, "__notes__", ()), f"the manager's log:\n{self.log.text}"]
        family = self.family()
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE if error is None else 3)
        family += [process for process in self.family() if process not in family]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(PATIENCE)
        psutil.wait_procs(family, PATIENCE)
        self.log.close()

    def order(self, *words: str) -> str:
        """Give an order through the manager's own command, and return what it says; fail where it fails."""
        done = wait_until(lambda: self._order(words), f"{' '.join(words)} is heeded")
        assert done is not None
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _order(self, words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
        """None where the manager (circus) is busy with something else, if only its periodic check."""
        done = subprocess.run(
            [sys.executable, *_LENIENT, str(SCRIPTS / self._control[0]), *self._control[1:], *words],
            cwd=self._directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        return None if "arbiter is already running" in done.stdout + done.stderr else done

    def family(self) -> list[psutil.Process]:
        """The manager and every process below it, those seen earlier and orphaned since included."""
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._process.pid)
            self._seen.update([main, *main.children(recursive=True)])
        return [process for process in self._seen if _alive(process)]

    def ostlers(self, mark: str) -> set[int]:
        """The pids of what the manager itself has started as `ostler ...`, `mark` among its arguments."""
        self.family()
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children()
            return {child.pid for child in children if mark in _arguments(child)}
        return set()

    def workers(self) -> set[int]:
        """The pids of all workers of an arbiter."""
        return {process.pid for process in self.family() if re.match(r"ostler: worker \d", _title(process))}

    def wait_gone(self, pids: set[int]) -> None:
        """Wait until none of these processes is left."""
        wait_until(
            lambda: not pids & {process.pid for process in self.family()},
            f"{pids} and their children are gone",
        )

    def stop(self) -> int:
        """SIGTERM to the manager; returns its exit code once no process below it is left."""
        self.family()
        self._process.terminate()
        code = self._process.wait(2 * PATIENCE)
        wait_until(lambda: not self.family(), "every process below the manager is gone")
        return code


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return [argument for argument in process.cmdline() if argument]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def _title(process: psutil.Process) -> str:
    return " ".join(_arguments(process))
