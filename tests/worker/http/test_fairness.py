"""One connection that sends as fast as it can leaves the others their turns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.http import connection
from ostler.worker.http.connection import FIRST_PIECE
from ostler.worker.http.flow_control import HIGH_WATER
from ostler.worker.http.parser import PIECE
from ostler.worker.http.request import RequestHead, read_head
from tests.worker.conftest import Serve
from tests.worker.harness import get, respond

MB = 1_000_000
LONGEST_READ = 256 * 1024
"""What an event loop reads at once."""


class Turns:
    """An app that receives uploads, and notes how much each turn of the loop brings."""

    def __init__(self) -> None:
        self.received = 0
        self.most = 0
        """The most bytes that the server has read in one turn."""
        self.watching = False
        self._before = 0

    def turn(self, loop: asyncio.AbstractEventLoop, read: object) -> None:
        assert callable(read)
        now = read()
        self.most = max(self.most, now - self._before)
        self._before = now
        if self.watching:
            loop.call_soon(self.turn, loop, read)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            self.received += len(message["body"])
            if not message["more_body"]:
                break
        await respond(send, b"%d" % self.received)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_takes_no_more_of_a_turn_than_one_read(serve: Serve, chunked: bool) -> None:
    app = Turns()
    server = serve(app)
    client = server.connect()
    total = 32 * MB
    app.watching = True
    server.call(lambda: app.turn(server.loop, lambda: server.received))
    if chunked:
        client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        client.send((b"%x\r\n" % MB + b"x" * MB + b"\r\n") * (total // MB) + b"0\r\n\r\n")
    else:
        client.send(get("/", f"Content-Length: {total}", method="POST") + bytes(total))
    assert client.answer().body == b"%d" % total
    app.watching = False
    # Reading pauses when more than HIGH_WATER is held, until the app has received it.
    assert PIECE < app.most <= HIGH_WATER + LONGEST_READ


def test_few_of_many_pipelined_requests_are_parsed_in_a_turn(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    between: list[int] = []

    def read_and_note(method: bytes, target: bytes, *others: Any) -> RequestHead:
        parsed.append(target)
        return read_head(method, target, *others)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        between.append(len(parsed))
        parsed.clear()
        await respond(send, b"x")

    monkeypatch.setattr(connection, "read_head", read_and_note)
    client = serve(app).connect()
    count = 20_000
    client.send(get() * count)
    for _ in range(count):
        client.answer()
    # Each request is served in a turn of its own. The first read may be a short one.
    assert len(between) == count
    assert max(between) <= PIECE / len(get()) + 1
    assert sorted(between)[-20] <= FIRST_PIECE / len(get()) + 1


def test_pipelined_requests_take_no_more_of_a_turn_than_one_read(serve: Serve) -> None:
    app = Turns()
    server = serve(app)
    client = server.connect()
    app.watching = True
    server.call(lambda: app.turn(server.loop, lambda: server.received))
    count = 20_000
    client.send(get() * count + get("/", "Connection: close"))
    while client.more():
        pass
    app.watching = False
    assert server.server_state.served == count + 1
    assert app.most <= HIGH_WATER + LONGEST_READ
