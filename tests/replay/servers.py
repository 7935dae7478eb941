"""Run a server as a process for behaviours: one that many share, or one that a behaviour has for itself."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from tests.live.harness import Output, ProcessFamily, wait_until
from tests.replay.http_client import PATIENCE, request
from tests.replay.normalisation import to_server

ROOT = Path(__file__).parent.parent.parent
NOT_PASSED_ON = re.compile(
    r"(UVICORN|OSTLER)_|WEB_CONCURRENCY$|FORWARDED_ALLOW_IPS$|PYTHON|PWD$|.*COLOR$|PORT$"
)


class Running:
    """A process that serves, or did; leaving the context kills what is left of it."""

    def __init__(
        self, server: str, directory: Path, args: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.server = server
        self._port = 1
        self._args = [arg.replace("DIR", str(directory)) for arg in args]
        self._process = subprocess.Popen(
            [sys.executable, *self._args],
            cwd=directory,
            env=_environment(
                {name: value.replace("DIR", str(directory)) for name, value in (env or {}).items()}
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.out = Output(self._process.stdout)
        self.errors = Output(self._process.stderr)
        self._family = ProcessFamily(self._process)

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._family.alive()
        self._family.kill()
        self.out.close()
        self.errors.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def workers(self) -> set[int]:
        """Return the pids of the children that serve."""
        found = set()
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "resource_tracker" not in " ".join(child.cmdline()):
                    found.add(child.pid)
        return found

    def connect(self) -> socket.socket:
        """Return a new connection, over TLS where the server has a certificate."""
        if uds := next((arg for arg in self._args if arg.endswith(".sock")), None):
            return _opened(socket.AF_UNIX, uds)
        if "::1" in self._args:
            return _opened(socket.AF_INET6, ("::1", self.port))
        sock = _opened(socket.AF_INET, ("127.0.0.1", self.port))
        if "--ssl-certfile" in self._args:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context.wrap_socket(sock)
        return sock

    @property
    def port(self) -> int:
        """The port that the log names, or that is listened on; 1, where nobody listens, if none is known."""
        if self._port == 1:
            text = self.errors.text + self.out.text
            if match := re.search(r"unning on \S*https?://\S+?:(\d+)(?![\d\]:])", text):
                self._port = int(match[1])
            elif "--log-level" in self._args or "--log-config" in self._args or "-m" not in self._args:
                self._port = _listens_on(self.pid)
        return self._port

    def request(
        self, target: str = "/", method: str = "GET", *headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Send a request on a new connection, and return status, headers and body."""
        return request(self.connect, target, method, *headers)

    def wait_ready(self) -> bool:
        """Wait until a request is answered; False if the process has ended instead."""

        def answered() -> bool:
            with contextlib.suppress(OSError):
                self.request("/ready")
                return True
            return not self.alive

        wait_until(answered, "it serves, or has ended")
        return self.alive

    def signal(self, name: str) -> None:
        """Send a signal, such as SIGTERM, to the process that was started."""
        self._process.send_signal(signal.Signals[name])

    def wait(self, timeout: float = 30.0) -> int | str:
        """Wait for the end, and return the exit code, or the name of the signal that ended it."""
        self._family.alive()
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return "does not end"
        self.out.wait_end()
        self.errors.wait_end()
        return code if code >= 0 else signal.Signals(-code).name


@contextlib.contextmanager
def directory_with(files: Mapping[str, str], server: str, args: Sequence[str] = ()) -> Iterator[Path]:
    """Make a directory with these files, and certificates if the flags name some; remove it afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="replay-"))
    try:
        if any(arg.startswith("--ssl-") for arg in args):
            from tests.certificates import Authority

            Authority(directory)
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(to_server(text.replace("DIR", str(directory)), server))
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _opened(family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    sock.settimeout(PATIENCE)
    return sock


def _listens_on(pid: int) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in psutil.Process(pid).net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN:
                return int(each.laddr.port)
    return 1


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not NOT_PASSED_ON.match(name)}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **extra}
