"""The opening handshake: from a request to an open WebSocket, or to a response that refuses it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from ostler.worker.asgi import ClientDisconnected, Receive, Scope, Send
from ostler.worker.proxies.trusted import TrustedProxies
from tests.worker.conftest import Serve
from tests.worker.harness import get, hello, part, post, respond, start
from tests.worker.websocket.harness import (
    KEY,
    TEXT,
    Recorder,
    WebSocketClient,
    accept,
    echo,
    frame,
    opened,
    request,
    text,
)


def test_a_handshake_is_answered_and_messages_come_back(serve: Serve) -> None:
    server = serve(echo)
    peer = opened(server)

    proof = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    assert peer.answer.get("sec-websocket-accept") == proof
    assert peer.answer.get("upgrade") == "websocket"
    assert peer.answer.get("connection") == "Upgrade"
    assert peer.answer.get("sec-websocket-extensions") is None
    assert peer.answer.get("server") == "ostler"
    assert peer.answer.get("date")
    peer.text("grüße")
    assert peer.read_text() == "grüße"
    peer.send(frame(2, b"\0\xff"))
    assert peer.read().data == b"\0\xff"
    assert not server.errors.tracebacks


def test_the_scope_says_what_uvicorns_says(serve: Serve) -> None:
    app = Recorder()
    server = serve(app, state={"db": 1}, root_path="/api")
    peer = opened(server, "/ch%C3%A4t?room=1", "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c")
    host, port = peer.client.socket.getsockname()

    scope = app.scopes[0]
    headers = scope.pop("headers")
    assert (b"host", b"a.example") in headers
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/api/chät",
        "raw_path": b"/api/ch%C3%A4t",
        "query_string": b"room=1",
        "root_path": "/api",
        "client": (host, port),
        "server": server.address,
        "subprotocols": ["a", "b", "c"],
        "state": {"db": 1},
        "extensions": {"websocket.http.response": {}},
    }


def test_a_trusted_proxy_tells_client_and_scheme(serve: Serve) -> None:
    app = Recorder()
    server = serve(app, proxies=TrustedProxies("127.0.0.1"))
    opened(server, "/", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")

    assert (app.scopes[0]["client"], app.scopes[0]["scheme"]) == (("203.0.113.9", 0), "wss")
    assert server.errors.lines == ['203.0.113.9:0 - "WebSocket /" [accepted]']


def test_subprotocol_and_headers_of_the_app_are_in_the_response(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"server", b"mine"), (b"upgrade", b"x")]
        await send(accept(subprotocol="chat", headers=headers))
        await receive()
        await receive()

    answer = opened(serve(app), "/", "Sec-WebSocket-Protocol: chat").answer
    assert answer.get("sec-websocket-protocol") == "chat"
    assert [value for name, value in answer.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert (answer.get("server"), answer.get("upgrade")) == ("mine", "websocket")


@pytest.mark.parametrize(
    "fields",
    [
        {"subprotocol": "a\r\nb: c"},
        {"subprotocol": "ä b"},
        {"headers": [(b"a b", b"c")]},
        {"headers": [(b"a", b"b\r\nc: d")]},
        {"headers": [(b"a", b"b\x01c")]},
        {"headers": [(b"a", b"b\x7f")]},
    ],
)
def test_fields_that_would_break_the_response_are_the_apps_error(
    serve: Serve, fields: dict[str, Any]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept(**fields))

    server = serve(app)
    client = server.connect()
    assert client.ask(request()).status == 500
    assert client.ended()
    client.close()
    assert len(server.errors.tracebacks) == 1
    server.until(lambda: not server.server_state.connections)


@pytest.mark.parametrize("headers", [["Sec-WebSocket-Protocol: "], ["Upgrade: h2c"], ["Connection: close"]])
def test_odd_fields_beside_the_handshake_do_no_harm(serve: Serve, headers: list[str]) -> None:
    peer = opened(serve(echo), "/", *headers)
    peer.text("x")
    assert peer.read_text() == "x"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(key="short"), 400),
        (request(key="!" * 24), 400),
        (request(key=KEY.decode() + "\r\nSec-WebSocket-Key: " + KEY.decode()), 400),
        (request(method="POST"), 400),
        (request("/", "Content-Length: 3") + b"abc", 400),
        (request("/", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (request().replace(b"Sec-WebSocket-Version: 13\r\n", b""), 400),
        (request().replace(b"Host: a.example\r\n", b""), 400),
        (request(version="8"), 426),
    ],
)
def test_a_wrong_handshake_is_refused_before_the_app(serve: Serve, data: bytes, status: int) -> None:
    app = Recorder()
    server = serve(app)
    client = server.connect()
    answer = client.ask(data)

    assert answer.status == status
    if status == 426:
        assert answer.get("sec-websocket-version") == "13"
        assert answer.get("upgrade") == "websocket"
        assert answer.get("connection") == "close, upgrade"
    assert client.ended()
    assert not app.scopes
    assert not server.errors.tracebacks


@pytest.mark.parametrize(
    "data",
    [
        request().replace(b"websocket", b"h2c"),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"Connection: Upgrade", b"Connection: keep-alive"),
        request().replace(b"Upgrade: websocket\r\n", b""),
    ],
)
def test_a_request_that_does_not_ask_for_a_websocket_is_a_plain_request(serve: Serve, data: bytes) -> None:
    assert serve(hello).ask(data).body == b"hello"


def test_without_a_library_a_handshake_is_a_plain_request(serve: Serve) -> None:
    server = serve(hello, ws="none")
    client = server.connect()
    assert client.ask(request()).body == b"hello"
    assert client.ask(get()).body == b"hello"


def test_what_comes_with_the_handshake_waits_until_it_is_accepted(serve: Serve) -> None:
    go: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not go:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # in the app
        await echo(scope, receive, send)

    server = serve(app)
    client = server.connect()
    client.send(request() + frame(TEXT, b"one") + frame(TEXT, b"two")[:5])
    server.until(lambda: server.server_state.requests)
    client.send(frame(TEXT, b"two")[5:])
    big = b"x" * 300_000  # more than is held: the socket is not read
    client.send(frame(TEXT, big))
    go.append(True)
    peer = WebSocketClient(client, client.answer())
    assert [peer.read_text() for _ in range(3)] == ["one", "two", big.decode()]
    peer.text("three")
    assert peer.read_text() == "three"


def test_a_handshake_waits_for_the_answers_to_what_came_before(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(0.01)  # in the app
            await respond(send, b"plain")
        else:
            await echo(scope, receive, send)

    client = serve(app).connect()
    client.send(get() + post(body=b"b") + request() + frame(TEXT, b"x"))
    assert [client.answer().body for _ in range(2)] == [b"plain", b"plain"]
    peer = WebSocketClient(client, client.answer())
    assert peer.answer.status == 101
    assert peer.read_text() == "x"


def test_a_handshake_byte_by_byte(serve: Serve) -> None:
    client = serve(echo).connect()
    for byte in request() + frame(TEXT, b"abc"):
        client.send(bytes((byte,)))
    peer = WebSocketClient(client, client.answer())
    assert peer.read_text() == "abc"


def test_to_close_before_accepting_is_a_403(serve: Serve) -> None:
    events: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000, "reason": "no"})
        events.append(await receive())
        with pytest.raises(RuntimeError, match=r"after sending 'websocket.close'"):
            await send(accept())
        events.append("end")

    server = serve(app)
    client = server.connect()
    answer = client.ask(request("/a?b=c"))
    assert (answer.status, answer.keeps) == (403, False)
    assert client.ended()
    server.until(lambda: len(events) == 2)
    assert events[0] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    host, port = client.socket.getsockname()
    assert server.errors.lines == [f'{host}:{port} - "WebSocket /a?b=c" 403']
    assert server.server_state.served == 1


@pytest.mark.parametrize("length", [True, False])
def test_the_app_can_deny_with_a_response_of_its_own_in_pieces(serve: Serve, length: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"content-length", b"6")] if length else []
        await send(
            {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"1"), *headers]}
        )
        with pytest.raises(RuntimeError):
            await send(accept())
        await send({"type": "websocket.http.response.body", "body": b"not", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b" you"[:3]})

    server = serve(app)
    answer = server.ask(request())
    assert (answer.status, answer.get("x-why"), answer.body) == (401, "1", b"not yo")
    assert [line.partition(" - ")[2] for line in server.errors.lines] == ['"WebSocket /" 401']
    assert not server.access.lines


def test_an_error_before_accepting_is_a_500(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("mine")

    server = serve(app)
    assert server.ask(request()).status == 500
    assert [record.getMessage() for record in server.errors.tracebacks] == ["Exception in ASGI application\n"]


@pytest.mark.parametrize("format", [None, "common"], ids=["as it starts", "when it is complete"])
def test_a_denial_that_fails_before_its_body_has_one_line(serve: Serve, format: str | None) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        raise ValueError("mine")

    server = serve(app, access_log_format=format)
    assert server.ask(request()).status == 500
    server.until(lambda: not server.server_state.in_flight)
    lines = [line.partition(" - ")[2] for line in server.errors.lines if "WebSocket" in line]
    assert lines == ['"WebSocket /" 500']


def test_to_return_without_an_answer_is_a_500(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    server = serve(app)
    assert server.ask(request()).status == 500
    assert any("without starting response" in line for line in server.errors.lines)


def test_messages_of_http_are_refused_on_a_websocket(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match=r"Expected ASGI message 'websocket.accept'"):
            await send(start())
        with pytest.raises(RuntimeError, match=r"Expected ASGI message 'websocket.accept'"):
            await send(text("early"))
        await send(accept())
        with pytest.raises(RuntimeError, match=r"Expected ASGI message 'websocket.send'"):
            await send(part())
        await send(text("fine"))
        await receive()
        await receive()

    assert opened(serve(app)).read_text() == "fine"


@pytest.mark.parametrize("how", ["reset", "finish_sending"])
def test_an_app_is_told_when_its_client_leaves_before_it_is_accepted(serve: Serve, how: str) -> None:
    events: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        events.append(await receive())
        with pytest.raises(ClientDisconnected):
            await send(accept())
        events.append("end")

    server = serve(app)
    client = server.connect()
    client.send(request())
    server.until(lambda: server.server_state.requests)
    getattr(client, how)()
    server.until(lambda: len(events) == 2 and not server.server_state.connections)
    assert events[0] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert not server.errors.tracebacks


def test_above_the_limit_of_concurrency_a_handshake_is_a_503(serve: Serve) -> None:
    server = serve(echo, limit_concurrency=1)
    first = opened(server)
    answer = server.ask(request())
    assert answer.status == 503
    first.text("still here")
    assert first.read_text() == "still here"


def test_a_health_check_is_answered_whatever_it_asks_for(serve: Serve) -> None:
    app = Recorder()
    assert serve(app, health_path="/ok").ask(request("/ok")).body == b"ready\n"
    assert not app.scopes


def test_handshakes_count_as_requests(serve: Serve) -> None:
    server = serve(echo)
    opened(server)
    opened(server)
    assert server.server_state.served == 2


def test_without_the_access_log_no_handshake_is_logged(serve: Serve) -> None:
    server = serve(echo, access_log=False)
    opened(server)
    assert not server.errors.lines
