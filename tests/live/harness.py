"""Real processes for tests: ostler as its users start it, watched from outside."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import psutil

T = TypeVar("T")

# Generous: a deadline only ends a test that would fail anyway.
PATIENCE = 30.0

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


def wait_until(condition: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
    """Return the condition's first true result; fail when there is none in time."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        pause.wait(0.02)
    return result


class Output:
    """What a process writes to one of its streams, collected by a thread so that it never blocks."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()

    @property
    def text(self) -> str:
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, timeout: float = PATIENCE, count: int = 1) -> re.Match[str]:
        """Return the `count`-th match of a regular expression, as soon as it has been written."""
        found: list[re.Match[str]] = []

        def written() -> bool:
            found[:] = re.finditer(pattern, "".join(self._lines), re.MULTILINE)
            return len(found) >= count

        with self._changed:
            if not self._changed.wait_for(written, timeout):
                raise AssertionError(
                    f"{pattern!r} was not written within {timeout:g} s:\n{''.join(self._lines)}"
                )
        return found[count - 1]

    def close(self) -> None:
        self._thread.join(PATIENCE)
        # Its reader's lock would keep us waiting for ever.
        assert not self._thread.is_alive(), "somebody whom we do not know of still holds the stream"
        self._stream.close()


class Ostler:
    """`python -m ostler ARGS` (or another `program`) in `directory`, which holds the application.

    Leaving it ends whatever is left, by pid, worker by worker.
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
        self._seen: set[psutil.Process] = set()

    def __enter__(self) -> Ostler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.__notes__ = [*getattr(error, "__notes__", ()), f"ostler's log:\n{self.log.text}"]
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(PATIENCE)
        psutil.wait_procs(family, PATIENCE)
        self.out.close()
        self.log.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.log.wait_for(r"running on https?://\S+?:(\d+) ")[1])

    def family(self) -> list[psutil.Process]:
        """Every process of this run that is alive, those seen earlier and orphaned since included."""
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.pid)
            self._seen.update([main, *main.children(recursive=True)])
        return [process for process in self._seen if _alive(process)]

    def workers(self) -> dict[int, int]:
        """The slot of every living worker by its pid, from the titles that the workers give themselves."""
        found = {}
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                title = " ".join(process.cmdline())
                if match := re.match(r"ostler: worker (\d+) ", title):
                    found[process.pid] = int(match[1])
        return found

    def wait_ready(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until `count` workers in all have got ready since the start."""
        self.log.wait_for(r"Worker \d+ \(pid \d+\) is ready", timeout, count)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float = PATIENCE) -> int:
        return self._process.wait(timeout)

    def stop(self, timeout: float = PATIENCE) -> int:
        """SIGTERM; returns the exit code, once no process of this run is left."""
        self.family()
        self.send(signal.SIGTERM)
        code = self.wait(timeout)
        wait_until(lambda: not self.family(), "every process of this run is gone")
        return code


def environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's environment without what would configure ostler, and with `extra`."""
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


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that burn CPU while the context lasts."""
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
