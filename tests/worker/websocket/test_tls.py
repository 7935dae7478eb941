"""WebSockets over TLS: the upgrade takes over an open TLS transport, and closes it as TLS demands."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.harness import PATIENCE, Server
from tests.worker.websocket.harness import (
    DEFLATE,
    PING,
    PONG,
    TEXT,
    Recorder,
    WebSocketClient,
    accept,
    close,
    echo,
    frame,
    inflate,
    opened,
    text,
)
from tests.worker.websocket.test_flow import sockets


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Any]:
    authority = Authority(tmp_path)
    return {"trust": authority.client(), **authority.files}


def test_messages_go_both_ways_and_the_scope_says_wss(serve: Serve, tls: dict[str, Any]) -> None:
    app = Recorder()
    server = serve(app, **tls)
    peer = opened(server, behind=frame(TEXT, b"with the handshake"))
    peer.text("and after it")
    server.until(lambda: app.messages == ["with the handshake", "and after it"])
    assert app.scopes[0]["scheme"] == "wss"
    assert app.scopes[0]["extensions"]["tls"]["tls_version"] == 0x0304
    assert "websocket.http.response" in app.scopes[0]["extensions"]


def test_large_and_compressed_messages_are_echoed(serve: Serve, tls: dict[str, Any]) -> None:
    server = serve(echo, **tls)
    peer = opened(server, "/", DEFLATE)
    sent = "x" * 300_000
    peer.text(sent)
    assert inflate(peer.read().data).decode() == sent
    peer.send(frame(PING, b"alive"))
    answer = peer.read()
    assert (answer.opcode, answer.data) == (PONG, b"alive")


def test_it_is_closed_although_the_client_sends_no_close_notify(serve: Serve, tls: dict[str, Any]) -> None:
    server = serve(echo, **tls)
    peer = opened(server)
    peer.send(close(1000, b"done"))
    assert peer.read_close() == (1000, "done")
    assert peer.ended()
    server.advance(1)
    server.until(lambda: not server.server_state.connections)


def test_a_client_that_is_still_sending_learns_why_it_is_refused(serve: Serve, tls: dict[str, Any]) -> None:
    app = Recorder()
    server = serve(app, ws_max_size=1000, **tls)
    peer = opened(server)
    peer.send(frame(TEXT, b"x" * 500_000) + frame(TEXT, b"more" * 10_000))
    assert peer.read_close()[0] == 1009
    server.until(lambda: app.left is not None)
    assert app.left is not None
    assert app.left["code"] == 1009


def test_a_client_that_vanishes_is_an_abnormal_end(serve: Serve, tls: dict[str, Any]) -> None:
    app = Recorder()
    server = serve(app, **tls)
    opened(server).client.close()
    server.until(lambda: app.left is not None and not server.server_state.connections)
    assert app.left == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def send_and_leave(server: Server, peer: WebSocketClient, data: bytes) -> None:
    """Send so that the server reads the data and the end of TLS at once."""
    sent = threading.Event()
    server.loop.call_soon_threadsafe(sent.wait, PATIENCE)
    peer.send(data)
    peer.client.finish_sending()
    sent.set()


@pytest.mark.parametrize(("end", "code"), [(close(1001), 1001), (b"", 1006)])
def test_a_client_that_sends_much_and_leaves_loses_no_message(
    serve: Serve, tls: dict[str, Any], end: bytes, code: int
) -> None:
    app = Recorder()
    server = serve(app, **tls)
    peer = opened(server)
    send_and_leave(server, peer, frame(TEXT, b"x") * 1000 + end)
    server.until(lambda: app.left is not None)
    assert app.messages == ["x"] * 1000
    assert app.left == {"type": "websocket.disconnect", "code": code, "reason": ""}
    peer.client.close()
    server.until(lambda: not server.server_state.connections)


def test_an_app_that_sends_before_it_has_received_all_of_a_lost_client_ends_without_a_traceback(
    serve: Serve, tls: dict[str, Any]
) -> None:
    lost = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        await lost.wait()
        await send(text("too late"))

    server = serve(app, **tls)
    peer = opened(server)
    send_and_leave(server, peer, frame(TEXT, b"x") * 1000)
    peer.client.close()
    server.until(lambda: not server.server_state.connections)
    server.call(lost.set)
    server.until(lambda: not server.server_state.requests)
    assert not server.errors.tracebacks


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, and never receives."""
    await send(accept())
    await asyncio.Event().wait()


@pytest.mark.parametrize("turns", range(5))
def test_reading_is_not_resumed_on_a_transport_that_is_lost(
    serve: Serve, tls: dict[str, Any], turns: int
) -> None:
    server = serve(silent, ws_max_queue=1, **tls)
    peer = opened(server)
    peer.send(frame(TEXT, b"x") * 10)
    server.until(lambda: any(socket._socket_paused for socket in sockets(server)))
    (socket,) = sockets(server)

    async def lose_and_resume() -> None:
        socket.abort()
        for _ in range(turns):  # until its loss is reported, or has been
            await asyncio.sleep(0)
        socket._queue.clear()
        socket._unparsed = b""
        socket.resume_input()

    server.wait(lose_and_resume())
    server.until(lambda: not server.server_state.connections)
