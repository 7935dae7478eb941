"""Closing: which side begins it, with what code, and what each side learns of it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from ostler.worker.asgi import ClientDisconnected, Receive, Scope, Send
from ostler.worker.websocket.connection import WebSocket
from ostler.worker.websocket.cycle import WebSocketCycle
from tests.worker.conftest import Serve
from tests.worker.websocket.harness import CLOSE, TEXT, Recorder, accept, close, echo, frame, opened, text


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        ({}, (1000, "")),
        ({"code": 4001, "reason": "bye ☃"}, (4001, "bye ☃")),
        ({"code": 1011, "reason": None}, (1011, "")),
        ({"code": 1000, "reason": "☃" * 100}, (1000, "☃" * 41)),
    ],
)
def test_the_app_closes_with_code_and_reason(serve: Serve, message: Any, seen: Any) -> None:
    events: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        await receive()
        await send({"type": "websocket.close", **message})
        events.append(await receive())
        with pytest.raises(RuntimeError, match=r"after sending 'websocket.close'"):
            await send(text("late"))
        events.append("end")

    server = serve(app)
    peer = opened(server)
    assert peer.read_close() == seen
    peer.send(frame(TEXT, b"was on its way") + close(seen[0]))
    assert peer.ended()
    server.until(lambda: len(events) == 2 and not server.server_state.connections)
    assert events[0]["type"] == "websocket.disconnect"
    assert events[0]["code"] == seen[0]
    assert not server.errors.tracebacks


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000, "1000"])
def test_a_code_that_cannot_be_sent_is_the_apps_error(serve: Serve, code: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        await send({"type": "websocket.close", "code": code})

    server = serve(app)
    assert opened(server).read_close() == (1011, "")
    server.until(lambda: server.errors.tracebacks)


def test_an_error_after_accepting_is_a_1011_with_its_traceback(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        raise ValueError("mine")

    server = serve(app)
    assert opened(server).read_close() == (1011, "")
    assert [record.getMessage() for record in server.errors.tracebacks] == ["Exception in ASGI application\n"]


def test_to_return_is_to_close(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        await send(text("all"))

    server = serve(app)
    peer = opened(server)
    assert peer.read_text() == "all"
    assert peer.read_close() == (1000, "")
    peer.send(close(1000))
    assert peer.ended()
    assert len(server.errors.lines) == 1  # the handshake's


def test_a_client_that_does_not_answer_the_close_is_closed(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())

    server = serve(app)
    peer = opened(server)
    assert peer.read_close() == (1000, "")
    server.advance(3)
    assert peer.client.quiet()
    server.advance(2)
    assert peer.ended()


@pytest.mark.parametrize("how", ["reset", "close", "finish_sending"])
def test_a_connection_lost_without_a_close_is_a_1006(serve: Serve, how: str) -> None:
    app = Recorder()
    server = serve(app)
    peer = opened(server)
    peer.text("x")
    server.until(lambda: app.messages)
    getattr(peer.client, how)()
    server.until(lambda: app.left and not server.server_state.connections)
    assert app.left == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def test_to_send_after_the_disconnect_raises_an_oserror_which_is_no_error_of_the_app(serve: Serve) -> None:
    events: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        await receive()
        events.append(await receive())
        events.append(await receive())  # the disconnect, for every call
        with pytest.raises(OSError, match=r"gone"):
            await send({"type": "websocket.close"})
        try:
            await send(text("x"))
        except ClientDisconnected:
            events.append("raised")
            raise

    server = serve(app)
    opened(server).send(close(1001))
    server.until(lambda: len(events) == 3 and not server.server_state.requests)
    assert events[0] == events[1] == {"type": "websocket.disconnect", "code": 1001, "reason": ""}
    assert not server.errors.tracebacks


def test_messages_before_the_close_are_received_before_the_disconnect(serve: Serve) -> None:
    go: list[bool] = []
    got: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        while not go:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # in the app
        while not got or got[-1]["type"] != "websocket.disconnect":
            got.append(await receive())

    server = serve(app)
    peer = opened(server)
    peer.send(frame(TEXT, b"1") + frame(TEXT, b"2") + close(1000))
    assert peer.read().opcode == CLOSE
    go.append(True)
    server.until(lambda: got and got[-1]["type"] == "websocket.disconnect")
    assert [message.get("text", message.get("code")) for message in got] == [None, "1", "2", 1000]


# -- when the server stops


def test_a_drain_closes_with_1012_and_tells_the_app(serve: Serve) -> None:
    app = Recorder()
    server = serve(app)
    peer = opened(server)
    server.call(server.server_state.drain)
    assert peer.read_close() == (1012, "")
    server.until(lambda: app.left)
    assert app.left == {"type": "websocket.disconnect", "code": 1012, "reason": ""}
    peer.send(close(1012))
    assert peer.ended()
    server.until(lambda: not server.server_state.connections and not server.server_state.requests)


def test_a_handshake_during_a_drain_is_closed_with_1012_once_it_is_accepted(serve: Serve) -> None:
    app = Recorder()
    server = serve(app)
    client = server.connect()
    client.send(b"GET")
    server.until(lambda: server.received == 3)
    server.call(server.server_state.drain)
    client.send(
        b" / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
    )
    assert client.answer().status == 101
    assert client.take(4) == b"\x88\x02\x03\xf4"
    server.until(lambda: app.left)


def test_past_the_grace_an_app_that_stays_is_cancelled_and_counted(serve: Serve) -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    server = serve(app)
    peer = opened(server)
    server.call(server.server_state.drain)
    assert peer.read_close() == (1012, "")
    assert server.call(server.server_state.cancel) == 1
    server.until(lambda: ended and not server.server_state.requests)
    assert peer.ended()
    assert not server.errors.tracebacks


def test_to_stop_at_once_cuts(serve: Serve) -> None:
    app = Recorder()
    server = serve(app)
    opened(server)
    server.call(server.server_state.abort)
    server.until(lambda: not server.server_state.connections and not server.server_state.requests)


# -- pings


def test_pings_come_in_their_interval_and_an_answered_one_keeps_the_connection(serve: Serve) -> None:
    server = serve(echo, ws_ping_interval=20, ws_ping_timeout=20)
    peer = opened(server)
    for _ in range(3):
        server.advance(19)
        assert peer.client.quiet()
        server.advance(2)
        ping = peer.read()
        assert ping.opcode == 9
        peer.send(frame(10, ping.data) + frame(TEXT, b"x"))
        assert peer.read_text() == "x"


def test_silence_after_a_ping_is_a_1011(serve: Serve) -> None:
    app = Recorder()
    server = serve(app, ws_ping_interval=20, ws_ping_timeout=5)
    peer = opened(server)
    server.advance(21)
    assert peer.read().opcode == 9
    server.advance(4)
    assert peer.client.quiet()
    server.advance(2)
    assert peer.read_close() == (1011, "keepalive ping timeout")
    assert peer.ended()
    server.until(lambda: app.left)
    assert app.left == {"type": "websocket.disconnect", "code": 1006, "reason": "keepalive ping timeout"}


def test_a_busy_connection_that_answers_late_is_kept(serve: Serve) -> None:
    server = serve(echo, ws_ping_interval=20, ws_ping_timeout=5)
    peer = opened(server)
    server.advance(21)
    assert peer.read().opcode == 9
    peer.text("busy")
    assert peer.read_text() == "busy"
    server.advance(6)
    assert peer.read().opcode == 9  # one more ping
    server.advance(6)
    assert peer.read_close()[0] == 1011


def test_an_app_that_does_not_receive_costs_no_connection(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        await asyncio.Event().wait()

    server = serve(app, ws_max_queue=1, ws_ping_interval=20, ws_ping_timeout=5)
    peer = opened(server)
    peer.text("x")
    peer.text("y")
    server.until(
        lambda: any(getattr(each, "reading_paused", False) for each in server.server_state.connections)
    )
    for _ in range(5):
        server.advance(21)
    assert {peer.read().opcode for _ in range(5)} == {9}
    assert peer.client.quiet()


def test_the_state_of_a_websocket_is_shown_until_the_peer_has_closed(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        await receive()
        await receive()
        await send({"type": "websocket.close"})

    def shown() -> str:
        return server.call(lambda: repr(next(iter(server.server_state.connections), None)))

    server = serve(app)
    peer = opened(server)
    assert shown() == "<WebSocket active, 0 messages held>"
    peer.text("x")
    assert peer.read_close()[0] == 1000
    assert shown() == "<WebSocket closing/close_sent, 0 messages held>"
    peer.send(close(1000))
    server.until(lambda: not server.server_state.connections)


def test_pings_can_be_switched_off(serve: Serve) -> None:
    peer = opened(server := serve(echo, ws_ping_interval=0))
    server.advance(1000)
    server.advance(1000)
    peer.text("x")
    assert peer.read_text() == "x"


def test_a_closed_websocket_leaves_nothing_for_the_garbage_collector(serve: Serve) -> None:
    server = serve(echo)
    peer = opened(server)
    peer.text("x")
    assert peer.read_text() == "x"
    gc.collect()
    gc.disable()
    try:
        peer.send(close(1000))
        assert peer.read_close()[0] == 1000
        server.until(lambda: not server.server_state.connections and not server.server_state.requests)
        server.until(lambda: not any(type(each) in (WebSocket, WebSocketCycle) for each in gc.get_objects()))
    finally:
        gc.enable()
