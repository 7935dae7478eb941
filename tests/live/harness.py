"""Start ostler as a real process for a test, read its output, find its workers, and end all its processes.

`serving(directory, ...)` is the usual way: it runs `ostler main:app` and yields once it is ready. `Ostler` is
the process itself, also for a start that is expected to fail. `Output` collects what a process writes.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import psutil
import pytest

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds until a wait fails. Generous: the deadline only ends a test that would fail anyway."""

PLAIN: list[str] = []
SUPERVISED = ["--workers", "2"]
both = pytest.mark.parametrize("mode", [PLAIN, SUPERVISED], ids=["plain", "supervised"])
"""Run the test twice: with a server in one process, and with an arbiter and two workers."""

APP = """
import asyncio
import os
import time

VERSION = "one"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    query = scope["query_string"].decode()
    if scope["path"] == "/slow":
        await asyncio.sleep(float(query))  # in the app
    elif scope["path"] == "/block":
        block_the_loop(float(query))
    elif scope["path"] == "/spin":
        spin_in_short_steps(float(query))
    body = f"{VERSION} {os.getpid()} {os.environ.get('OSTLER_SLOT', '-')}".encode()
    if scope["path"] == "/server":
        body = "{} {}".format(*scope["server"]).encode()
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


def block_the_loop(seconds):
    time.sleep(seconds)  # in the app


def spin_in_short_steps(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))
"""


def app_version(text: str) -> str:
    """Return the application `APP` with `text` as its version.

    When it replaces another version in the same second, `text` must have another length: otherwise Python's
    cached bytecode of the old file counts as fresh (PEP 552).
    """
    return APP.replace('VERSION = "one"', f'VERSION = "{text}"')


def wait_until(condition: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
    """Return the condition's first true result; fail when there is none in time."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        pause.wait(0.02)
    return result


def elapsed(since: float) -> float:
    """Return the seconds since `since`, a value of `time.monotonic()`."""
    return time.monotonic() - since


class Output:
    """Collect what a process writes, in a thread, so that the process never blocks on a full pipe.

    `pieces` yields the text as it arrives: the lines of a pipe, or what is read from a terminal.
    """

    def __init__(self, pieces: IO[str] | Generator[str, None, None]) -> None:
        self._pieces = pieces
        self._received: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for piece in self._pieces:
            with self._changed:
                self._received.append(piece)
                self._changed.notify_all()

    @property
    def text(self) -> str:
        with self._changed:
            return "".join(self._received)

    def wait_for(self, pattern: str, timeout: float = PATIENCE, count: int = 1) -> re.Match[str]:
        """Return the `count`-th match of a regular expression, as soon as it has been written."""
        found: list[re.Match[str]] = []

        def written() -> bool:
            found[:] = re.finditer(pattern, "".join(self._received), re.MULTILINE)
            return len(found) >= count

        with self._changed:
            if not self._changed.wait_for(written, timeout):
                written_so_far = "".join(self._received)
                raise AssertionError(f"{pattern!r} was not written within {timeout:g} s:\n{written_so_far}")
        return found[count - 1]

    def wait_end(self) -> None:
        """Wait until all is read; not for long, as a process that the test does not know may write on."""
        self._thread.join(5.0)

    def close(self) -> None:
        self._thread.join(PATIENCE)
        # While the thread reads it holds the stream's lock, and `close` would wait for that for ever.
        assert not self._thread.is_alive(), "a process that the test does not know still has the stream open"
        self._pieces.close()


class ProcessFamily:
    """A child process and its descendants, those included that were seen earlier and orphaned since."""

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self._process = process
        self._roots = [psutil.Process(process.pid)]
        self._seen: set[psutil.Process] = set()

    def add(self, pid: int) -> None:
        """Count another process and its descendants as part of the family."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._roots.append(psutil.Process(pid))

    def alive(self) -> list[psutil.Process]:
        """Return every process of the family that runs; zombies are left out."""
        for root in self._roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._seen.update([root, *root.children(recursive=True)])
        return [process for process in self._seen if _alive(process)]

    def kill(self) -> None:
        """Kill every process of the family, by pid, and wait until all have ended."""
        left = self.alive()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(PATIENCE)  # first, or psutil takes its exit code
        psutil.wait_procs(left, PATIENCE)


def add_note(error: BaseException | None, note: str) -> None:
    """Have pytest show `note` with the error of a test; `BaseException.add_note` exists only from 3.11 on."""
    if error is not None:
        error.__notes__ = [*getattr(error, "__notes__", ()), note]


class Ostler:
    """`python -m ostler ARGS` (or another `program`) in `directory`, which holds the application.

    Leaving the context kills every process that is left, by pid.
    """

    def __init__(
        self,
        directory: Path,
        *args: str,
        program: Sequence[str] = ("-m", "ostler"),
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *program, *args],
            cwd=directory,
            env=environment(env),
            stdin=popen.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.out = Output(self._process.stdout)
        self.log = Output(self._process.stderr)
        self._family = ProcessFamily(self._process)

    def __enter__(self) -> Ostler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        add_note(error, f"ostler's log:\n{self.log.text}")
        self._family.kill()
        self.out.close()
        self.log.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.log.wait_for(r"running on https?://\S+?:(\d+) ")[1])

    def family(self) -> list[psutil.Process]:
        """Return every process of this run that is alive, orphaned ones included if they were seen before."""
        return self._family.alive()

    def adopt(self, pid: int) -> None:
        """Count a process that this run has started, and that is no child any more, as part of it."""
        self._family.add(pid)

    def workers(self) -> dict[int, int]:
        """Return the slot of every living worker by its pid, read from the worker's process title."""
        found = {}
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                title = " ".join(process.cmdline())
                if match := re.match(r"ostler: worker (\d+) ", title):
                    found[process.pid] = int(match[1])
        return found

    def wait_ready(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until `count` workers have become ready since the start, replaced ones included."""
        self.log.wait_for(r"Worker \d+ \(pid \d+\) is ready", timeout, count)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until the process has ended, and return its exit code.

        If it leaves no other process of this run behind, its output is complete then.
        """
        self.family()
        code = self._process.wait(timeout)
        if not self.family():
            self.wait_gone()
        return code

    def wait_workers_gone(self, old: Set[int]) -> None:
        """Wait until none of the workers with the pids in `old` is left."""
        wait_until(lambda: not old & set(self.workers()), "the old workers are gone")

    def wait_worker_count(self, count: int) -> None:
        """Wait until exactly `count` workers live."""
        wait_until(lambda: len(self.workers()) == count, f"{count} workers live")

    def run_for(self, seconds: float) -> None:
        """Let the run go on for so many seconds, or until its process ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def wait_gone(self) -> None:
        """Wait until no process of this run is left, and its output is complete."""
        wait_until(lambda: not self.family(), "every process of this run is gone")
        self.out.wait_end()
        self.log.wait_end()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send SIGTERM or another signal, and return the exit code once no process of this run is left."""
        self.family()
        self.send(number)
        code = self.wait()
        self.wait_gone()
        return code


@contextlib.contextmanager
def serving(directory: Path, *options: str, app: str = "main:app", **more: Any) -> Iterator[Ostler]:
    """Run `ostler APP --port 0 OPTIONS` in `directory`, and yield once it is ready.

    With `--workers N` among the options that is when N workers are ready, otherwise when the server listens.
    `more` goes to `Ostler`.
    """
    with Ostler(directory, app, "--port", "0", *options, **more) as ostler:
        if "--workers" in options:
            ostler.wait_ready(int(options[options.index("--workers") + 1]))
        else:
            ostler.log.wait_for("running on")
        yield ostler


def environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """Return the caller's environment without the variables that configure ostler, and with `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OSTLER_") and name not in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "PWD")
    }
    return {**kept, "PYTHONWARNINGS": "error", **(extra or {})}


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that no process listens on at present."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@contextlib.contextmanager
def cpu_hogs(count: int) -> Iterator[None]:
    """Run `count` processes that each use a whole CPU while the context lasts."""
    started: Sequence[subprocess.Popen[bytes]] = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()
