"""Runs the table of WebSocket cases (`cases.py`): each against both libraries, handshakes on both parsers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from ostler.worker.asgi import Application, Receive, Scope, Send
from tests.conftest import PURE
from tests.worker.conftest import Serve
from tests.worker.harness import Client, Server, Way, hello
from tests.worker.websocket.cases import (
    APPS,
    CLOSES,
    COMPRESSED,
    FRAGMENTS,
    FRAMES,
    HANDSHAKES,
    LIMIT,
    LOST,
    OFFERS,
    SILENT,
    SIZES,
    UTF_8,
    AppCase,
    Frames,
    Handshake,
    Lost,
    Offer,
    Silent,
)
from tests.worker.websocket.harness import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    Recorder,
    WebSocketClient,
    accept,
    close,
    echo,
    frame,
    opened,
    request,
    text,
)

BYTE_BY_BYTE = 64
"""Cases up to so many bytes are sent a second time byte by byte."""


WAYS = (Way("httptools", "uvloop"), Way("h11", "asyncio"))


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Both parsers; the loop makes no difference to what a frame means."""
    way: Way = request.param
    return way


@pytest.fixture
def serve_frames(library: str) -> Iterator[Serve]:
    """Serve on one parser: once the WebSocket is open, HTTP's parser has no part in it."""
    way = WAYS[1] if PURE else WAYS[0]
    servers: list[Server] = []

    def start(app: Application, **options: Any) -> Server:
        servers.append(Server(way, app, **{"ws": library, "ws_max_size": LIMIT, **options}))
        return servers[-1]

    yield start
    for server in reversed(servers):
        server.close()


async def scripted(scope: Scope, receive: Receive, send: Send) -> None:
    """Does what the path says."""
    if scope["type"] == "http":
        await hello(scope, receive, send)
        return
    path, given = scope["path"], scope["query_string"].decode()
    if path == "/fail":
        raise ValueError("mine")
    if path == "/return":
        return
    if path == "/refuse":
        await send({"type": "websocket.close"})
        return
    if path == "/deny":
        await send({"type": "websocket.http.response.start", "status": int(given), "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    if path not in ("/error", "/again", "/close", "/late", "/done"):
        await echo(scope, receive, send)
        return
    await receive()
    await send(accept())
    if path == "/error":
        raise ValueError("mine")
    if path == "/again":
        await send(accept())
    if path in ("/close", "/late"):
        await send({"type": "websocket.close", "code": int(given or 4000)})
    if path == "/late":
        await send(text("late"))


class RecordingEcho:
    """Sends back what it receives, and keeps it as the frames that it is."""

    def __init__(self) -> None:
        self.got: list[tuple[int, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        while (message := await receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            self.got.append((TEXT, message["text"].encode()) if data is None else (BINARY, data))
            await send({**message, "type": "websocket.send"})


class Reader:
    """Reads frames, and inflates them as RFC 7692, section 7.2.2 says."""

    def __init__(self, peer: WebSocketClient) -> None:
        self._peer = peer
        self._agreed = peer.answer.get("sec-websocket-extensions") or ""
        self._inflater = zlib.decompressobj(wbits=-15)

    def read(self) -> tuple[int, Any]:
        got = self._peer.read()
        if got.compressed:
            assert self._agreed, got
            if "server_no_context_takeover" in self._agreed:
                self._inflater = zlib.decompressobj(wbits=-15)
            got = Frame(got.opcode, self._inflater.decompress(got.data + b"\0\0\xff\xff"), False)
        return got.opcode, got.code if got.opcode == CLOSE else got.data


def fields_of(case: Frames) -> list[str]:
    return [f"Sec-WebSocket-Extensions: {case.offer}"] if case.offer else []


def check_frames(serve: Serve, case: Frames, *, byte_by_byte: bool) -> None:
    app = RecordingEcho()
    server = serve(app)
    peer = opened(server, "/", *fields_of(case))
    if byte_by_byte:
        for byte in case.sent:
            peer.send(bytes((byte,)))
    else:
        peer.send(case.sent)
    reader = Reader(peer)
    messages = [(code, data) for code, data in case.back if code in (TEXT, BINARY)]
    if case.back and case.back[-1][0] == CLOSE:
        got = [reader.read()]
        while got[-1][0] != CLOSE:
            got.append(reader.read())
        control = [each for each in case.back if each not in messages]
        assert [each for each in got if each not in messages] == control
    else:
        # One after the other: an answer of the app may come behind a pong that was asked for later.
        assert sorted(reader.read() for _ in case.back) == sorted(case.back)
        peer.send(frame(PING, b"still here?") + close(1000))
        assert [reader.read() for _ in range(2)] == [(PONG, b"still here?"), (CLOSE, 1000)]
    assert peer.ended()
    peer.client.close()
    server.until(lambda: not server.server_state.connections and not server.server_state.requests)
    assert app.got == messages
    assert not server.errors.tracebacks


ALL_FRAMES = [*FRAMES, *FRAGMENTS, *UTF_8, *CLOSES, *SIZES, *COMPRESSED]


@pytest.mark.parametrize("case", ALL_FRAMES, ids=str)
def test_frames(serve_frames: Serve, case: Frames) -> None:
    check_frames(serve_frames, case, byte_by_byte=False)


@pytest.mark.parametrize(
    "case", [case for case in ALL_FRAMES if len(case.sent) <= BYTE_BY_BYTE and not case.whole], ids=str
)
def test_frames_byte_by_byte(serve_frames: Serve, case: Frames) -> None:
    check_frames(serve_frames, case, byte_by_byte=True)


@pytest.mark.parametrize("case", HANDSHAKES, ids=str)
def test_handshakes(way: Way, case: Handshake) -> None:
    server = Server(way, scripted, ws="websockets")
    try:
        client = server.connect()
        client.send(case.sent)
        answer = client.answer()
        allowed = (case.status,) if isinstance(case.status, int) else case.status
        assert answer.status in allowed
        for name, value in case.fields.items():
            assert answer.get(name) == value, name
        if answer.status == 101:
            peer = WebSocketClient(client, answer)
            peer.text("open")
            assert peer.read_text() == "open"
        assert not server.errors.tracebacks
    finally:
        server.close()


@pytest.mark.parametrize("case", OFFERS, ids=str)
def test_offers(serve_frames: Serve, case: Offer) -> None:
    server = serve_frames(echo)
    client = server.connect()
    client.send(request("/", f"Sec-WebSocket-Extensions: {case.value}"))
    answer = client.answer()
    assert answer.status == case.status
    agreed = answer.get("sec-websocket-extensions")
    if case.agreed is None:
        assert agreed is None
        return
    assert agreed is not None
    name, *given = (part.strip() for part in agreed.split(";"))
    assert name == "permessage-deflate"
    parameters = {key: value or None for key, _, value in (part.partition("=") for part in given)}
    for key, value in case.agreed.items():
        assert key in parameters
        assert value == "*" or parameters[key] == value, key
    if "client_max_window_bits" not in case.value:
        assert "client_max_window_bits" not in parameters  # RFC 7692, section 7.1.2.2


@pytest.mark.parametrize("case", APPS, ids=str)
def test_apps(serve_frames: Serve, case: AppCase) -> None:
    server = serve_frames(scripted)
    client = server.connect()
    client.send(request(case.path))
    answer = client.answer()
    assert answer.status == case.status
    if answer.status == 101:
        peer = WebSocketClient(client, answer)
        reader = Reader(peer)
        assert [reader.read() for _ in case.back] == case.back
        peer.send(case.then)
        assert [reader.read() for _ in case.rest] == case.rest
        assert peer.ended()
        client.close()
    server.until(lambda: not server.server_state.requests)


@pytest.mark.parametrize("case", SILENT, ids=str)
def test_a_silent_client_is_closed_within_five_seconds(serve_frames: Serve, case: Silent) -> None:
    server = serve_frames(scripted)
    peer = opened(server, case.path)
    peer.send(case.sent)
    if case.drain:
        server.call(server.server_state.drain)
    assert peer.read_close()[0] == case.code
    # `advance` moves the clock, and lets the deadlines that lie before it pass.
    server.advance(4)
    assert peer.ended()
    server.until(lambda: not server.server_state.connections and not server.server_state.requests)


@pytest.mark.parametrize("case", LOST, ids=str)
@pytest.mark.parametrize("how", ["reset", "close", "finish_sending"])
def test_a_client_that_leaves_without_a_close_is_a_1006(serve_frames: Serve, case: Lost, how: str) -> None:
    app = Recorder()
    server = serve_frames(app)
    peer = opened(server)
    peer.send(case.sent)
    leave: Any = getattr(Client, how)
    leave(peer.client)
    server.until(lambda: app.left and not server.server_state.connections)
    assert app.left == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def test_no_case_is_there_twice() -> None:
    rows = [*ALL_FRAMES, *HANDSHAKES, *OFFERS, *APPS, *SILENT, *LOST]
    names = [(type(row).__name__, str(row), getattr(row, "offer", "")) for row in rows]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert len(rows) > 400
