"""HTTP clients for tests against a real server on 127.0.0.1: whole answers, raw sockets, and curl."""

from __future__ import annotations

import shutil
import socket
import subprocess

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.live.harness import PATIENCE, wait_until


def get(port: int, path: str = "/", timeout: float = 30) -> httpx.Response:
    """Send a GET request on a new connection, and return the response."""
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=timeout, trust_env=False)


def send_get(client: socket.socket, path: str = "/", *, close: bool = False) -> None:
    """Send a GET request on an open connection; with `close` it asks the server to close afterwards."""
    connection = "Connection: close\r\n" if close else ""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n{connection}\r\n".encode())


def open_get(port: int, path: str = "/", *, close: bool = False, timeout: float = PATIENCE) -> socket.socket:
    """Send a GET request on a new connection, and return the connection without reading the response."""
    client = socket.create_connection(("127.0.0.1", port), timeout)
    send_get(client, path, close=close)
    return client


def read_to_end(client: socket.socket) -> bytes:
    """Return all that the server sends until it closes the connection."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def slow_request(port: int, seconds: float) -> socket.socket:
    """Return a connection with a request in flight that a worker has accepted.

    The application of the tests sleeps for `seconds` before it answers.
    """
    client = open_get(port, f"/slow?{seconds}", timeout=60)
    address = client.getsockname()
    wait_until(lambda: _is_accepted(port, address), "the request's connection is accepted")
    return client


def _is_accepted(port: int, client: tuple[str, int]) -> bool:
    """Whether a process has accepted the connection: until then the kernel shows inode 0 for it (proc(5))."""
    remote = f"0100007F:{client[1]:04X}"
    local = f"0100007F:{port:04X}"
    with open("/proc/net/tcp") as table:
        for line in table:
            fields = line.split()
            if fields[1] == local and fields[2] == remote:
                return fields[9] != "0"
    return False


def curl(*args: str) -> str:
    """Run curl without a proxy, and return what it prints; fail if curl fails."""
    program = shutil.which("curl")
    assert program, "curl is needed: apt-get install curl"
    done = subprocess.run(
        [program, "--silent", "--show-error", "--noproxy", "*", "--max-time", "60", *args],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def received_close_code(client: ClientConnection) -> int | None:
    """Return the code with which the server closes a WebSocket; None if it sends no close frame.

    Fails if a message comes before the close.
    """
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(PATIENCE)
    return closed.value.rcvd.code if closed.value.rcvd else None
