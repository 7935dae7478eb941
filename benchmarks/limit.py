"""The lower limit for any server in Python: uvloop, httptools, and a constant response.

    python -m benchmarks.limit PORT KIND

KIND is hello, echo, upload, large, streamed, websocket or websocket-long. There is no ASGI, no task and no
check.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from typing import Any

import httptools
import uvloop
from websockets.speedups import apply_mask

from benchmarks.apps import HELLO, LARGE, PIECE, PIECES

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


_CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
_ANSWERS = {
    "hello": [_response(HELLO)],
    "large": [_response(LARGE)],
    "streamed": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + _CHUNK * PIECES + b"0\r\n\r\n"],
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


class Upload(Constant):
    """Counts the bytes of a body, and answers with the number.

    httptools copies each piece of a body, so that it gets only the head of a body with a Content-Length.
    """

    def __init__(self) -> None:
        super().__init__([])
        self.length = self.rest = self.size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-length":
            self.length = int(value)

    def data_received(self, data: bytes) -> None:
        if self.rest:
            self._count(len(data))
        elif data.startswith(b"POST "):
            self.length = self.size = 0
            self.parser = httptools.HttpRequestParser(self)
            head, end, body = data.partition(b"\r\n\r\n")
            self.parser.feed_data(head + end)
            self.rest = self.length
            if self.length:
                self._count(len(body))
            else:
                self.parser.feed_data(body)
        else:
            self.parser.feed_data(data)

    def _count(self, size: int) -> None:
        self.rest -= size
        if not self.rest:
            self.write(_response(b"%d" % self.length))

    def on_body(self, body: bytes) -> None:
        self.size += len(body)

    def on_message_complete(self) -> None:
        if not self.length:
            self.write(_response(b"%d" % self.size))


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
        self.write(_switch(data))
        self.open = True


class LongWebSocketEcho(asyncio.BufferedProtocol):
    """Answers the handshake, then reads each long frame into one buffer, and unmasks it once, in C."""

    def __init__(self) -> None:
        self.room = memoryview(bytearray(4 << 20))
        self.received = 0
        self.open = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.room[self.received :]

    def buffer_updated(self, count: int) -> None:
        self.received += count
        if not self.open:
            self.transport.write(_switch(bytes(self.room[: self.received])))
            self.open = True
            self.received = 0
            return
        if self.received < 14:  # the longest head with its mask (RFC 6455, section 5.2)
            return
        long = self.room[1] & 0x7F == 127
        start = 10 if long else 4
        size = int.from_bytes(self.room[2:start], "big")
        if self.received < start + 4 + size:
            return
        mask = bytes(self.room[start : start + 4])
        payload = apply_mask(self.room[start + 4 : start + 4 + size], mask)
        head = bytes((self.room[0], 127 if long else 126)) + self.room[2:start]
        self.transport.writelines([head, payload])
        self.received = 0


def _switch(request: bytes) -> bytes:
    """Return the response to a WebSocket handshake."""
    key = next(
        line.split(b": ")[1]
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


_PROTOCOLS: dict[str, Any] = {
    "echo": Echo,
    "upload": Upload,
    "websocket": WebSocketEcho,
    "websocket-long": LongWebSocketEcho,
}


def _factory(kind: str) -> Any:
    return _PROTOCOLS.get(kind) or (lambda: Constant(_ANSWERS[kind]))


async def main(port: int, kind: str) -> None:
    """Serve on 127.0.0.1:`port` until killed."""
    server = await asyncio.get_running_loop().create_server(_factory(kind), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
