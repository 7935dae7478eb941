"""Runs a server on a core of its own, and reads its CPU time and memory from /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
_START = 20.0
"""Seconds that a server may take to accept its first connection."""


class Server:
    """A running server with all its processes."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def pids(self) -> list[int]:
        """Return the server's process and all its descendants; its process first."""
        return _tree(self.process.pid)

    def cpu(self) -> float:
        """Return the CPU seconds of all processes and threads; in nanoseconds exactly, unlike `utime`."""
        return sum(cpu(pid) for pid in self.pids())


def cpu(pid: int) -> float:
    """Return the CPU seconds that all threads of `pid` have used."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(task.read_text().split()[0])
    return total / 1e9


def switches(pid: int) -> int:
    """Return how often the threads of `pid` have gone to sleep, which is the number of wake-ups."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            total += sum(
                int(line.split()[1])
                for line in task.read_text().splitlines()
                if line.startswith("voluntary_ctxt_switches")
            )
    return total


def memory(pid: int, field: str = "Pss") -> int:
    """Return the bytes of resident memory of `pid`; `Pss` divides a shared page by its processes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def _tree(pid: int) -> list[int]:
    found = [pid]
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                found += _tree(int(child))
    return found


def free_port() -> int:
    """Return a port that was free just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, cores: set[int], **environ: str) -> Iterator[Server]:
    """Run `command` on `cores`, and yield it when it accepts connections; its output goes to a file."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env=_environment() | environ,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        try:
            _await_port(process, port, output)
            yield Server(process, port)
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    """Return this environment without Python's variables: unbuffered output makes some servers slow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPATH": str(ROOT)}


def _await_port(process: subprocess.Popen[bytes], port: int, output: object) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    output.seek(0)  # type: ignore[attr-defined]
    said = output.read()[-2000:].decode(errors="replace")  # type: ignore[attr-defined]
    raise RuntimeError(f"{process.args!r} does not listen on port {port}:\n{said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, and after ten seconds SIGKILL to the processes of the server that are left."""
    pids = _tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
