"""Flow control: the slower side sets the pace, and little is held for it."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.http.connection import Connection
from ostler.worker.http.cycle import Cycle
from ostler.worker.http.flow_control import HIGH_WATER
from ostler.worker.http.request import RequestHead
from tests.worker.conftest import Serve
from tests.worker.harness import PATIENCE, Client, Way, get, opened, part, read_body, respond, start

MB = 1_000_000
LITTLE = (40 if sys.implementation.name == "pypy" else 20) * MB
"""PyPy's garbage collector lets the heap grow before it runs: by 24 to 28 MB here."""
ROOT = Path(__file__).parents[3]


class Watched:
    """A server in another process, and the most memory that it had while it was watched."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.address = ("127.0.0.1", port)
        self._process = psutil.Process(process.pid)

    @property
    def size(self) -> int:
        size: int = self._process.memory_info().rss
        return size

    @contextmanager
    def growth(self) -> Iterator[list[int]]:
        """Measure by how many bytes the size exceeds what it was, at most."""
        before, peak, done = self.size, [0], threading.Event()

        def sample() -> None:
            while not done.wait(0.002):
                peak[0] = max(peak[0], self.size - before)

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            yield peak
        finally:
            done.set()
            sampler.join()


@pytest.fixture(params=["asgi", "wsgi"])
def watched(way: Way, request: pytest.FixtureRequest) -> Iterator[Watched]:
    command = [sys.executable, "-m", "tests.worker.http.big_server", way.http, way.loop, request.param]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Watched(process, int(process.stdout.readline()))
        finally:
            process.terminate()
            process.wait(PATIENCE)


def warmed(server: Watched) -> Client:
    """A client that has sent one request, so that the idle size is that of a warm server."""
    client = Client(server.address, receive_buffer=16 * 1024)
    assert client.ask(get("/down?1")).body == b"x"
    return client


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_100_mb_up_to_a_slow_app_take_no_memory(watched: Watched, chunked: bool) -> None:
    client = warmed(watched)
    total = 100 * MB
    with watched.growth() as growth:
        if chunked:
            client.send(get("/up", "Transfer-Encoding: chunked", method="POST"))
            for _ in range(total // MB):
                client.send(b"%x\r\n" % MB + b"x" * MB + b"\r\n")
            client.send(b"0\r\n\r\n")
        else:
            client.send(get("/up", f"Content-Length: {total}", method="POST"))
            for _ in range(total // MB):
                client.send(b"x" * MB)
        assert client.answer().body == b"%d" % total
    client.close()
    assert growth[0] < LITTLE


def test_100_mb_down_to_a_slow_client_take_no_memory(watched: Watched) -> None:
    client = warmed(watched)
    total = 100 * MB
    with watched.growth() as growth:
        client.send(get(f"/down?{total}"))
        client.until(b"\r\n\r\n")
        left = total - len(client.buffer)
        stall = threading.Event()
        for tenth in range(9, -1, -1):
            stall.wait(0.03)  # this client is slow: it does not wait for a condition
            while left > tenth * total // 10:
                left -= len(client.socket.recv(65536))
    client.close()
    assert left == 0
    assert growth[0] < LITTLE


def test_an_app_that_does_not_read_stops_the_socket(serve: Serve) -> None:
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await opened(go.is_set)
        await respond(send, b"%d" % len(await read_body(receive)))

    server = serve(app)
    client = server.connect()
    total = 10 * MB
    sender = threading.Thread(
        target=client.send, args=(get("/", f"Content-Length: {total}", method="POST") + b"x" * total,)
    )
    sender.start()
    server.until(lambda: any(c.reading_paused for c in server.server_state.connections))  # type: ignore[attr-defined]
    # The bytes of the last reads are kept; a loop reads at most 256 KiB at once.
    assert HIGH_WATER < server.received < HIGH_WATER + 2 * 256 * 1024
    go.set()
    assert client.answer().body == b"%d" % total
    sender.join()


def test_an_answer_to_a_client_that_left_during_its_upload_does_no_harm(serve: Serve) -> None:
    """The socket is not read, so its end is not seen; the client's kernel resets it when it is written."""
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await opened(go.is_set)
        await respond(send, b"too late")

    server = serve(app)
    client = server.connect()
    client.send(get("/", f"Content-Length: {10 * MB}", method="POST") + bytes(400_000))
    server.until(lambda: any(c.reading_paused for c in server.server_state.connections))  # type: ignore[attr-defined]
    client.close()
    go.set()
    server.until(lambda: not server.server_state.requests and not server.server_state.connections)
    assert server.errors.tracebacks == []


def test_a_client_that_does_not_read_stops_the_app(serve: Serve) -> None:
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(1000):
            await send(part(b"x" * 65_536, True))
            sent.append(65_536)
        await send(part())

    server = serve(app)
    client = server.connect(receive_buffer=4096)
    client.send(get())
    server.until(lambda: any(c.write_paused for c in server.server_state.connections))  # type: ignore[attr-defined]
    assert sum(sent) < 20 * MB
    assert len(client.answer().body) == 1000 * 65_536
    assert len(sent) == 1000


def test_an_app_that_waits_for_a_slow_client_is_told_when_it_leaves(serve: Serve) -> None:
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            while True:
                await send(part(b"x" * 65_536, True))
        except OSError as error:
            raised.append(error)

    server = serve(app)
    client = server.connect(receive_buffer=4096)
    client.send(get())
    server.until(lambda: any(c.write_paused for c in server.server_state.connections))  # type: ignore[attr-defined]
    client.reset()
    server.until(lambda: not server.server_state.in_flight)
    assert len(raised) == 1
    assert server.errors.lines == []


def test_a_connection_that_is_gone_leaves_nothing_for_the_garbage_collector(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.request":
            await respond(send, b"x")

    server = serve(app)
    sent = 0

    def arrived() -> bool:
        return server.received == sent

    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            for data in (get(), get("/", "Connection: close"), b"BAD\r\n\r\n"):
                client = server.connect()
                client.ask(data)
                client.close()
                sent += len(data)
            long = get("/", "Content-Length: 100000", method="POST") + b"x" * 40_000
            chunked = get("/", "Transfer-Encoding: chunked", method="POST") + b"9\r\n"
            for data in (b"GET / HT", long, chunked):
                client = server.connect()
                sent += len(data)
                client.send(data)
                server.until(arrived)
                client.close()
        server.until(lambda: not server.server_state.connections)
        left = [thing for thing in gc.get_objects() if isinstance(thing, (Connection, Cycle, RequestHead))]
        assert len(left) < 5, "the last one may still be referred to from a stack"
    finally:
        gc.enable()
