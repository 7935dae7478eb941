"""The clients of `benchmarks.latency`, in a process of their own: they print latencies in milliseconds.

    python -m benchmarks.latency_load CLIENT PORT SECONDS [RATE]

Clients use sockets without an event loop, so that they add little to what they measure. Loads that run beside
a client are processes that have a lower priority than it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import select
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

BURST = 64
"""New clients at once."""
_TIMEOUT = 10.0
_ITEM = b"GET /items/7?note=x HTTP/1.1\r\nHost: bench\r\n\r\n"
_HELLO_RATE = 300.0
"""Small requests a second beside a load."""
_HELLO = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_UPLOAD = b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n"
_GIGABYTE = 1 << 30
_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_MESSAGE = b"\x82\xc0\1\2\3\4" + bytes(64)
"""A masked binary frame of 64 bytes (RFC 6455, section 5.2)."""


class Failed(Exception):
    """The server did not answer as it should."""


class Client:
    """One connection that asks and waits for the answer."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0
        self._received = b""

    def connect(self, port: int) -> Client:
        """Connect; the time counts from now."""
        self.began = time.monotonic()
        self.socket.connect(("127.0.0.1", port))
        return self

    def send(self, request: bytes) -> None:
        """Send a request."""
        self.socket.sendall(request)
        self._received = b""

    def read(self) -> bool:
        """Read once; return whether the answer is complete."""
        data = self.socket.recv(65536)
        if not data:
            raise Failed(f"the connection was closed after {self._received!r}")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return False
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise Failed(f"{head!r}")
        return len(body) >= int(length[1])

    def ask(self, request: bytes, began: float | None = None) -> float:
        """Send a request, wait for its answer, and return the milliseconds since now, or since `began`."""
        self.began = time.monotonic() if began is None else began
        self.send(request)
        while not self.read():
            pass
        return self.elapsed()

    def elapsed(self) -> float:
        """Return the milliseconds since `began`."""
        return (time.monotonic() - self.began) * 1e3


def burst(port: int, seconds: float, rate: float) -> Iterator[float]:
    """Open BURST connections at once; each sends one request."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            clients = [Client() for _ in range(BURST)]
            for client in clients:
                stack.callback(client.socket.close)
            for client in clients:
                client.connect(port).send(_ITEM)
            for client in clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
            while selector.get_map():
                ready = selector.select(_TIMEOUT)
                if not ready:
                    raise Failed("no answer in time")
                for key, _ in ready:
                    if key.data.read():
                        yield key.data.elapsed()
                        selector.unregister(key.fileobj)
        time.sleep(random.uniform(0.05, 0.1))


def one_by_one(port: int, seconds: float, rate: float) -> Iterator[float]:
    """Open a connection for each request."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client = Client()
        with client.socket:
            client.connect(port).send(_ITEM)
            while not client.read():
                pass
            yield client.elapsed()
        time.sleep(random.uniform(0.01, 0.03))


def kept(port: int, seconds: float, rate: float, request: bytes = _ITEM) -> Iterator[float]:
    """Send `rate` requests a second on 64 kept connections, whether or not the last ones are answered."""
    with contextlib.ExitStack() as stack:
        clients = {client.socket: client for client in (Client().connect(port) for _ in range(64))}
        for sock in clients:
            stack.callback(sock.close)
        idle = deque(clients.values())
        began = time.monotonic()
        count = 0
        while (now := time.monotonic()) < began + seconds:
            while idle and (due := began + count / rate) <= now:
                client = idle.popleft()
                client.began = due
                client.send(request)
                count += 1
            wait = max(0.0, began + count / rate - time.monotonic()) if idle else _TIMEOUT
            # Not epoll(7), which cannot wait for less than a millisecond.
            readable, _, _ = select.select(clients, (), (), wait)
            for sock in readable:
                if clients[sock].read():
                    yield clients[sock].elapsed()
                    idle.append(clients[sock])


def hello(port: int, seconds: float, rate: float) -> Iterator[float]:
    """Send small requests at a rate that is the same for every server, and small for each."""
    # Not on one connection: where an answer takes longer than the pause between two requests, each would
    # wait for all before it, and the latency would grow as long as it is measured.
    return kept(port, seconds, _HELLO_RATE, _HELLO)


def _slow(path: bytes) -> Callable[[int], None]:
    """Return a load that asks for `path` ten times a second."""

    def load(port: int) -> None:
        client = Client().connect(port)
        while True:
            client.ask(b"GET %b HTTP/1.1\r\nHost: bench\r\n\r\n" % path)
            time.sleep(0.1)

    return load


def _flood(block: bytes, *, first: bytes = b"", size: int = 0) -> Callable[[int], None]:
    """Return a load that sends `first` and then `block` without end, as fast as the server reads.

    It reads and drops the answers. With `size`, so many bytes follow `first`, which then comes again.
    """

    def load(port: int) -> None:
        sock = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
        sock.setblocking(False)
        waiting = memoryview(first or block)
        left = size
        while True:
            readable, writable, _ = select.select([sock], [sock], [])
            if readable and not sock.recv(1 << 20):
                raise Failed("the connection was closed")
            if writable:
                waiting = waiting[sock.send(waiting) :]
                if not waiting and size and not left:
                    waiting, left = memoryview(first), size
                elif not waiting:
                    waiting = memoryview(block)
                    left -= len(block)

    return load


LOADS: dict[str, Callable[[int], None]] = {
    "sleep": _slow(b"/sleep"),
    "compute": _slow(b"/compute"),
    "upload": _flood(bytes(1 << 18), first=_UPLOAD % _GIGABYTE, size=_GIGABYTE),
    "messages": _flood(_MESSAGE * 1000, first=_HANDSHAKE),
    "pipeline": _flood(_HELLO * 1000),
}
CLIENTS: dict[str, Callable[[int, float, float], Iterator[float]]] = {
    "burst": burst,
    "one-by-one": one_by_one,
    "kept": kept,
    **dict.fromkeys(LOADS, hello),
}


def _run_load(name: str, port: int) -> None:
    os.nice(10)
    LOADS[name](port)


def main(name: str, port: int, seconds: float, rate: float = 0.0) -> None:
    """Run a client beside the load of the same name, and print a JSON list."""
    load = multiprocessing.get_context("fork").Process(target=_run_load, args=(name, port), daemon=True)
    if name in LOADS:
        load.start()
        time.sleep(0.3)
    latencies = list(CLIENTS[name](port, seconds, rate))
    if name in LOADS:
        if not load.is_alive():
            raise Failed("the load beside it failed")
        load.kill()
        load.join()
    print(json.dumps([round(latency, 3) for latency in latencies]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:]))
