"""Flow control: the slower side makes the other one wait, and nothing is held without a bound."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.http.connection_state import LINGERING
from ostler.worker.websocket.connection import WebSocket
from tests.worker.conftest import Serve
from tests.worker.harness import Client, Server, until
from tests.worker.websocket.harness import (
    DEFLATE,
    PING,
    TEXT,
    accept,
    close,
    deflate,
    echo,
    frame,
    opened,
    text,
)


def fill(client: Client, data: bytes, enough: int) -> int:
    """Send `data` again and again until the server takes no more for a while, or `enough` bytes are sent."""
    client.socket.settimeout(0.3)
    sent = 0
    try:
        while sent < enough:
            client.socket.sendall(data)
            sent += len(data)
    except socket.timeout:  # noqa: UP041 - another class before 3.10
        pass
    finally:
        client.socket.settimeout(10)
    return sent


class Gate:
    """An app that accepts, and receives only once the test allows it."""

    def __init__(self) -> None:
        self.go = False
        self.sizes: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        while not self.go:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # in the app
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.receive":
                self.sizes.append(len(message["text"]))


ENOUGH = 64 << 20


def held(server: Server) -> list[int]:
    """How many messages each WebSocket of the server holds for its app."""
    held: list[int] = server.call(lambda: [len(each._queue) for each in sockets(server)])
    return held


def sockets(server: Server) -> list[WebSocket]:
    return [each for each in server.server_state.connections if isinstance(each, WebSocket)]


def test_an_app_that_does_not_receive_stops_the_client(serve: Serve) -> None:
    app = Gate()
    server = serve(app, ws_max_queue=4)
    peer = opened(server)
    message = frame(TEXT, b"x" * 10_000)
    sent = fill(peer.client, message, ENOUGH)

    assert sent < ENOUGH
    assert max(held(server)) < 4 + 4
    app.go = True
    server.until(lambda: len(app.sizes) >= sent // len(message))
    assert set(app.sizes) == {10_000}


def test_messages_that_inflate_are_held_by_their_size(serve: Serve) -> None:
    app = Gate()
    server = serve(app)
    peer = opened(server, "/", DEFLATE)
    message = frame(TEXT, deflate(b"x" * 1_000_000), rsv=4)  # a thousandth of that
    peer.send(message * 200)

    until(lambda: sum(held(server)) > 0)
    assert sum(held(server)) <= 20
    app.go = True
    server.until(lambda: len(app.sizes) == 200)


def test_tiny_messages_in_one_read_are_not_all_taken_at_once(serve: Serve) -> None:
    app = Gate()
    server = serve(app, ws_max_queue=1)
    peer = opened(server)
    peer.send(frame(TEXT, b"x") * 30_000)
    server.until(lambda: any(each.reading_paused for each in sockets(server)))
    assert max(held(server)) <= 16 * 1024 // 7 + 2
    app.go = True
    server.until(lambda: len(app.sizes) == 30_000)


def test_to_send_waits_for_a_client_that_does_not_read(serve: Serve) -> None:
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        for number in range(200):
            await send(text("x" * 100_000))
            sent.append(number)

    server = serve(app)
    peer = opened(server, receive_buffer=4096)
    before = -1
    while before != len(sent):  # until the app sends no more
        before = len(sent)
        peer.client.socket.settimeout(0.3)
        server.call(lambda: None)
        _pause()
    assert len(sent) < 150
    for _ in range(200):
        assert len(peer.read().data) == 100_000
    assert peer.read_close() == (1000, "")


def _pause() -> None:
    socket_pair = socket.socketpair()
    try:
        socket_pair[0].settimeout(0.3)
        socket_pair[0].recv(1)
    except socket.timeout:  # noqa: UP041
        pass
    finally:
        for each in socket_pair:
            each.close()


def test_a_sender_that_waits_is_told_that_the_client_is_gone(serve: Serve) -> None:
    raised: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        try:
            while True:
                await send(text("x" * 100_000))
        except OSError as error:
            raised.append(error)
            raise

    server = serve(app)
    peer = opened(server, receive_buffer=4096)
    server.until(lambda: any(each.write_paused for each in sockets(server)))
    peer.client.reset()
    server.until(lambda: raised and not server.server_state.requests)
    assert not server.errors.tracebacks


@pytest.mark.parametrize("size", [1, 100_000])
def test_an_app_that_only_sends_is_told_that_the_client_is_gone(serve: Serve, size: int) -> None:
    """A lost transport takes everything and never pauses: the event loop has to run nevertheless."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            await send(text("x" * size))
        raise TimeoutError

    server = serve(app)
    opened(server).client.reset()
    server.until(lambda: not server.server_state.requests)
    assert not server.errors.tracebacks


def test_a_flood_of_pings_from_a_client_that_reads_nothing_is_stopped(serve: Serve) -> None:
    server = serve(echo)
    peer = opened(server, receive_buffer=4096)
    assert fill(peer.client, frame(PING, b"x" * 125) * 100, ENOUGH) < ENOUGH


def test_a_close_behind_messages_that_are_not_received_is_read_when_the_app_closes(serve: Serve) -> None:
    go: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        while not go:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # in the app
        await send({"type": "websocket.close"})

    server = serve(app, ws_max_queue=1)
    peer = opened(server)
    peer.send(frame(TEXT, b"x" * 1000) * 1000)
    server.until(lambda: any(each.reading_paused for each in sockets(server)))
    go.append(True)
    assert peer.read_close() == (1000, "")
    peer.send(close(1000))
    assert peer.ended()


def test_a_receive_that_is_cancelled_loses_no_message(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        await receive()
        while True:
            task = asyncio.ensure_future(receive())
            await asyncio.wait([task], timeout=0.0005)
            if not task.done():
                task.cancel()
                continue
            message = task.result()
            if message["type"] == "websocket.disconnect":
                return
            await send(text(message["text"]))

    peer = opened(serve(app))
    for number in range(200):
        peer.text(str(number))
    assert [int(peer.read_text()) for _ in range(200)] == list(range(200))


def test_two_callers_of_receive_share_the_messages(serve: Serve) -> None:
    got: list[str] = []

    async def take(receive: Receive) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            got.append(message["text"])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        await receive()
        await asyncio.gather(take(receive), take(receive))

    server = serve(app)
    peer = opened(server)
    for number in range(50):
        peer.text(str(number))
    peer.send(close(1000))
    server.until(lambda: not server.server_state.requests)
    assert sorted(map(int, got)) == list(range(50))


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    await send(accept())
    while True:
        await send({"type": "websocket.send", "bytes": b"x" * 100_000})


def test_a_client_that_reads_nothing_does_not_hold_a_drain(serve: Serve) -> None:
    server = serve(flood)
    opened(server, receive_buffer=4096)
    server.until(lambda: [each for each in sockets(server) if each.write_paused])
    server.call(server.server_state.drain)
    server.advance(3)
    assert server.call(lambda: len(sockets(server))) == 1
    server.advance(1)
    server.advance(6)  # where the kernels still moved some bytes when the drain began
    server.until(lambda: not server.server_state.connections and not server.server_state.requests)


def test_pings_after_our_close_are_not_answered_to_a_client_that_reads_nothing(serve: Serve) -> None:
    server = serve(flood)
    peer = opened(server, receive_buffer=4096)
    server.until(lambda: [each for each in sockets(server) if each.write_paused])
    server.call(server.server_state.drain)
    (waiting,) = server.call(lambda: [each._transport.get_write_buffer_size() for each in sockets(server)])
    peer.send(frame(PING, b"*" * 125) * 2000 + frame(3))
    # What is wrong at the end shows that all before it was read.
    server.until(lambda: [each for each in sockets(server) if each._closing_phase is LINGERING])
    (after,) = server.call(lambda: [each._transport.get_write_buffer_size() for each in sockets(server)])
    assert after < waiting + 32 * 1024  # 2000 pongs are 250 KiB


def test_a_client_that_sends_on_after_it_broke_the_protocol_is_cut_off(serve: Serve) -> None:
    server = serve(echo)
    peer = opened(server)
    peer.send(frame(3))
    with pytest.raises(OSError, match=r"reset|pipe"):
        peer.send(b"x" * ENOUGH)
    server.until(lambda: not server.server_state.connections and not server.server_state.requests)
