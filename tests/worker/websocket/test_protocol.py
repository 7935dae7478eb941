"""What RFC 6455 demands of a server, frame by frame, as the Autobahn test suite checks it."""

from __future__ import annotations

import random
import struct

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from tests.worker.conftest import Serve
from tests.worker.harness import Client, hello
from tests.worker.websocket.harness import (
    BINARY,
    CLOSE,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    Recorder,
    close,
    deflate,
    echo,
    frame,
    inflate,
    opened,
    request,
)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1_000_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_of_any_size_come_back(serve: Serve, size: int, opcode: int) -> None:
    peer = opened(serve(echo))
    data = random.Random(size).randbytes(size) if opcode == BINARY else b"*" * size
    peer.send(frame(opcode, data))
    got = peer.read()
    assert (got.opcode, got.data) == (opcode, data)


def test_a_message_in_fragments_is_one_message(serve: Serve) -> None:
    peer = opened(serve(echo))
    peer.send(frame(TEXT, b"a", fin=False) + frame(0, b"", fin=False) * 3 + frame(0, b"b", fin=False))
    peer.send(frame(0, b"c"))
    assert peer.read_text() == "abc"
    peer.send(frame(BINARY, b"", fin=False) + frame(0, b"d"))
    assert peer.read().data == b"d"


def test_utf_8_may_be_split_across_fragments(serve: Serve) -> None:
    peer = opened(serve(echo))
    data = "κόσμε 😀".encode()
    peer.send(b"".join(frame(0 if at else TEXT, data[at : at + 1], fin=False) for at in range(len(data))))
    peer.send(frame(0))
    assert peer.read_text() == data.decode()


def test_frames_byte_by_byte(serve: Serve) -> None:
    peer = opened(serve(echo))
    for byte in frame(TEXT, b"x" * 130, fin=False) + frame(PING, b"p") + frame(0, b"y"):
        peer.send(bytes((byte,)))
    assert peer.read().opcode == PONG
    assert peer.read_text() == "x" * 130 + "y"


@pytest.mark.parametrize("payload", [b"", b"\0\xff", b"*" * 125])
def test_a_ping_is_answered_with_its_payload(serve: Serve, payload: bytes) -> None:
    peer = opened(serve(echo))
    peer.send(frame(PING, payload))
    got = peer.read()
    assert (got.opcode, got.data) == (PONG, payload)


def test_a_ping_between_fragments_is_answered_between_them(serve: Serve) -> None:
    peer = opened(serve(echo))
    peer.send(frame(TEXT, b"a", fin=False) + frame(PING, b"p"))
    assert peer.read().data == b"p"
    peer.send(frame(0, b"b"))
    assert peer.read_text() == "ab"


def test_unsolicited_pongs_are_ignored(serve: Serve) -> None:
    peer = opened(serve(echo))
    peer.send(frame(PONG, b"x") + frame(PONG) + frame(TEXT, b"y"))
    assert peer.read_text() == "y"


BROKEN = {
    "a reserved bit": frame(TEXT, b"x", rsv=4),
    "another reserved bit": frame(TEXT, b"x", rsv=2),
    "the third reserved bit": frame(BINARY, b"x", rsv=1),
    "a reserved bit in a ping": frame(PING, rsv=4),
    "an unknown opcode": frame(3, b"x"),
    "an unknown control opcode": frame(11),
    "no mask": frame(TEXT, b"x", masked=False),
    "a ping in fragments": frame(PING, b"x", fin=False),
    "a close in fragments": frame(CLOSE, b"", fin=False),
    "a ping too long": frame(PING, b"x" * 126),
    "a close too long": frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124),
    "a continuation of nothing": frame(0, b"x"),
    "a new message within another": frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
    "a close with one byte": frame(CLOSE, b"x"),
    **{
        f"a close with {code}": close(code)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_frame_is_a_1002(serve: Serve, what: str) -> None:
    app = Recorder()
    server = serve(app)
    peer = opened(server)
    peer.send(BROKEN[what] + b"whatever follows")

    code, reason = peer.read_close()
    assert code == 1002
    assert peer.ended()
    peer.client.close()
    server.until(lambda: app.left and not server.server_state.connections)
    assert app.left == {"type": "websocket.disconnect", "code": 1002, "reason": reason}
    assert not server.errors.tracebacks


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"\xce\xba\xed\xa0\x80"),
        frame(TEXT, b"a", fin=False) + frame(0, b"\xff"),
        frame(TEXT, "é".encode()[:1]),
        frame(CLOSE, struct.pack("!H", 1000) + b"\xff"),
    ],
)
def test_text_that_is_not_utf_8_is_a_1007(serve: Serve, data: bytes) -> None:
    app = Recorder()
    server = serve(app)
    peer = opened(server)
    peer.send(data)
    assert peer.read_close()[0] == 1007
    server.until(lambda: app.left)
    assert app.left
    assert app.left["code"] == 1007


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1013, 3000, 3999, 4000, 4999])
def test_a_close_is_answered_and_told_with_code_and_reason(serve: Serve, code: int) -> None:
    app = Recorder()
    server = serve(app)
    peer = opened(server)
    peer.send(frame(TEXT, b"last") + close(code, "adiós".encode()) + frame(TEXT, b"too late"))
    assert peer.read_close() == (code, "adiós")
    assert peer.ended()
    server.until(lambda: app.left and not server.server_state.connections)
    assert app.messages == ["last"]
    assert app.left == {"type": "websocket.disconnect", "code": code, "reason": "adiós"}


def test_a_close_without_a_code_is_a_1005(serve: Serve) -> None:
    app = Recorder()
    server = serve(app)
    peer = opened(server)
    peer.send(frame(CLOSE))
    assert peer.read_close()[0] == 1005
    assert peer.ended()
    server.until(lambda: app.left)
    assert app.left == {"type": "websocket.disconnect", "code": 1005, "reason": ""}


# -- sizes


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_above_the_limit_is_a_1009(serve: Serve, pieces: int, opcode: int) -> None:
    app = Recorder()
    server = serve(app, ws_max_size=3000)
    peer = opened(server)
    peer.send(frame(opcode, b"x" * 3000))
    for number in range(pieces):
        data = b"y" * (3001 // pieces + 1)
        peer.send(frame(0 if number else opcode, data, fin=number == pieces - 1))
    assert peer.read_close()[0] == 1009
    server.until(lambda: app.left)
    assert app.left
    assert app.left["code"] == 1009
    assert len(app.messages) == 1


def test_the_limit_holds_for_what_comes_out_of_the_decompression(serve: Serve) -> None:
    app = Recorder()
    server = serve(app, ws_max_size=100_000)
    peer = opened(server, "/", DEFLATE)
    peer.send(frame(TEXT, deflate(b"x" * 100_000), rsv=4))
    server.until(lambda: app.messages)
    bomb = deflate(b"\0" * (64 << 20))
    assert len(bomb) < 100_000
    peer.send(frame(BINARY, bomb, rsv=4))
    assert peer.read_close()[0] == 1009
    server.until(lambda: app.left)
    assert len(app.messages) == 1


# -- compression


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10; client_max_window_bits=12",
        "x-unknown; a=1, permessage-deflate",
    ],
)
def test_compressed_messages_come_back_compressed(serve: Serve, offer: str) -> None:
    peer = opened(serve(echo), "/", f"Sec-WebSocket-Extensions: {offer}")
    assert (peer.answer.get("sec-websocket-extensions") or "").startswith("permessage-deflate")
    data = b"the same again and again " * 50
    peer.send(frame(TEXT, deflate(data), rsv=4))
    got = peer.read()
    assert got.compressed
    assert inflate(got.data) == data
    assert len(got.data) < len(data)


def test_a_compressed_message_in_fragments_with_a_ping_between(serve: Serve) -> None:
    peer = opened(serve(echo), "/", DEFLATE)
    data = random.Random(1).randbytes(3000)
    packed = deflate(data)
    peer.send(frame(BINARY, packed[:1000], fin=False, rsv=4) + frame(PING, b"p"))
    assert peer.read().data == b"p"
    peer.send(frame(0, packed[1000:]) + frame(TEXT, b"uncompressed"))
    assert inflate(peer.read().data) == data
    assert peer.read().opcode == TEXT


def test_what_does_not_decompress_closes(serve: Serve) -> None:
    server = serve(echo)
    peer = opened(server, "/", DEFLATE)
    peer.send(frame(TEXT, b"\xff" * 20, rsv=4))
    assert peer.read_close()[0] in (1002, 1007)
    assert not server.errors.tracebacks


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; client_max_window_bits=99",
        "permessage-deflate; server_max_window_bits=x",
        "permessage-deflate; server_max_window_bits=8",
    ],
)
def test_an_offer_that_is_not_supported_is_ignored(serve: Serve, offer: str) -> None:
    server = serve(echo)
    peer = opened(server, "/", f"Sec-WebSocket-Extensions: {offer}")
    peer.text("x")
    assert peer.read().opcode == TEXT
    assert not server.errors.tracebacks


def test_without_the_setting_nothing_is_compressed(serve: Serve) -> None:
    peer = opened(serve(echo, ws_per_message_deflate=False), "/", DEFLATE)
    assert peer.answer.get("sec-websocket-extensions") is None


# -- garbage


def test_garbage_after_the_upgrade_is_never_a_traceback(serve: Serve) -> None:
    server = serve(echo)
    chance = random.Random(6455)
    clients: list[Client] = []
    for number in range(60):
        peer = opened(server, "/", *([DEFLATE] if number % 2 else []))
        if number % 3:
            good = bytearray(
                frame(chance.choice((0, 1, 2, 8, 9, 10)), chance.randbytes(chance.randrange(300)))
            )
            for _ in range(chance.randrange(4)):
                good[chance.randrange(len(good))] = chance.randrange(256)
            garbage = bytes(good)
        else:
            garbage = chance.randbytes(chance.randrange(1, 400))
        peer.send(garbage)
        peer.client.finish_sending()
        peer.client.rest()
        peer.client.close()
        clients.append(peer.client)
    server.until(lambda: not server.server_state.connections and not server.server_state.requests)
    assert not server.errors.tracebacks
    assert all("accepted" in line for line in server.errors.lines)


def test_garbage_in_the_handshake_is_never_a_traceback(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The rest of a mutated handshake may be a plain request.
        await (echo if scope["type"] == "websocket" else hello)(scope, receive, send)

    server = serve(app)
    chance = random.Random(13)
    for _ in range(60):
        data = bytearray(request("/", "Sec-WebSocket-Protocol: a", DEFLATE))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        client = server.connect()
        client.send(bytes(data) + frame(TEXT, b"x"))
        client.finish_sending()
        client.rest()
        client.close()
    server.until(lambda: not server.server_state.connections and not server.server_state.requests)
    assert all("exception" not in line.lower() for line in server.errors.lines)
