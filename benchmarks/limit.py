"""The lower limit for any server in Python: uvloop, httptools, and a constant response.

    python -m benchmarks.limit PORT KIND

KIND is hello, echo, large, streamed or websocket. There is no ASGI, no task and no check.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from typing import Any

import httptools
import uvloop

from benchmarks.apps import HELLO, LARGE, PIECE, PIECES

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


_CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
_ANSWERS = {
    "hello": [_response(HELLO)],
    "large": [_response(LARGE)],
    "streamed": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *[_CHUNK] * PIECES, b"0\r\n\r\n"],
}


class Constant(asyncio.Protocol):
    """Parses requests with httptools, and writes the same bytes for each."""

    def __init__(self, answer: list[bytes]) -> None:
        self.answer = answer
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: Any) -> None:
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        for piece in self.answer:
            self.write(piece)


class Echo(Constant):
    """Parses requests with httptools, and writes their bodies back."""

    def __init__(self) -> None:
        super().__init__([])
        self.body: list[bytes] = []

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.write(_response(b"".join(self.body)))
        self.body.clear()


class WebSocketEcho(asyncio.Protocol):
    """Answers the handshake, then unmasks each small frame and writes it back."""

    def __init__(self) -> None:
        self.open = False

    def connection_made(self, transport: Any) -> None:
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        if self.open:
            size = data[1] & 0x7F
            mask, payload = data[2:6], data[6 : 6 + size]
            whole = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            self.write(bytes((data[0], size)) + whole.to_bytes(size, "big"))
            return
        key = next(
            line.split(b": ")[1]
            for line in data.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        self.open = True


def _factory(kind: str) -> Any:
    if kind == "websocket":
        return WebSocketEcho
    if kind == "echo":
        return Echo
    return lambda: Constant(_ANSWERS[kind])


async def main(port: int, kind: str) -> None:
    """Serve on 127.0.0.1:`port` until killed."""
    server = await asyncio.get_running_loop().create_server(_factory(kind), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
