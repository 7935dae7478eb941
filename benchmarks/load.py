"""Loads: wrk for HTTP, and a small client for WebSockets. Each returns the number of responses."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.processes import ROOT


@dataclass(frozen=True)
class Result:
    """The responses that a load has received."""

    requests: int
    seconds: float
    errors: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def wrk(
    url: str,
    seconds: float,
    cores: set[int],
    *,
    connections: int = 32,
    body: bytes | None = None,
    fresh: bool = False,
) -> Result:
    """Request `url` repeatedly on keep-alive connections; with `fresh`, each time on a new connection.

    Raises:
        RuntimeError: wrk is not installed, or could not run.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", url]
    if fresh:
        command += ["-H", "Connection: close"]
    if body is None:
        return _read(_run(command, cores))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\n"
            f"wrk.body = [==[{body.decode()}]==]\n"
        )
        script.flush()
        return _read(_run([*command, "-s", script.name], cores))


def _read(output: str) -> Result:
    counted = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", output)
    if counted is None:
        raise RuntimeError(f"wrk: {output}")
    seconds = float(counted[2]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[counted[3]]
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    errors = sum(map(int, socket_errors.groups())) if socket_errors else 0
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return Result(int(counted[1]), seconds, errors + (int(refused[1]) if refused else 0))


def websocket(port: int, seconds: float, cores: set[int], *, connections: int = 32, size: int = 64) -> Result:
    """Send one message of `size` bytes on each connection, and the next when its echo has arrived."""
    here = [sys.executable, "-m", "benchmarks.load", str(port), str(seconds), str(connections), str(size)]
    requests, errors = map(int, _run(here, cores).split())
    return Result(requests, seconds, errors)


def _run(command: Sequence[str], cores: set[int]) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    except FileNotFoundError:
        raise RuntimeError(f"{command[0]} is not installed (Debian: apt install {command[0]})") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{command[0]} failed: {error.stderr or error.stdout}") from None
    return done.stdout


class _EchoClient(asyncio.Protocol):
    """A WebSocket client that sends the same masked frame again when its echo is complete."""

    def __init__(self, size: int) -> None:
        self.frame = bytes((0x82, 0x80 | size)) + b"\1\2\3\4" + bytes(size)
        self.echo = bytes((0x82, size)) + bytes(b"\1\2\3\4"[i % 4] for i in range(size))
        self.received = b""
        self.count = 0
        self.errors = 0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self.transport.write(
            b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.open:
            if not self.received.endswith(b"\r\n\r\n"):
                return
            self.open = self.received.startswith(b"HTTP/1.1 101")
        elif len(self.received) < len(self.echo):
            return
        elif self.received == self.echo:
            self.count += 1
        else:
            self.errors += 1
        self.received = b""
        self.transport.write(self.frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.errors += 1


async def _echo(port: int, seconds: float, connections: int, size: int) -> None:
    loop = asyncio.get_running_loop()
    # The payload is zeros, so that its masked form is the mask: the client needs hardly any CPU time for
    # frames.
    pairs = [
        await loop.create_connection(lambda: _EchoClient(size), "127.0.0.1", port) for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    counts = [client.count for _, client in pairs]
    errors = [client.errors for _, client in pairs]
    for transport, _ in pairs:
        transport.abort()
    print(sum(counts), sum(errors))


if __name__ == "__main__":
    import uvloop

    uvloop.install()
    asyncio.run(_echo(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
