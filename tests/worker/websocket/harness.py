"""A WebSocket client that makes its own frames, to send what no library sends; and apps for it."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from ostler.worker.asgi import Message, Receive, Scope, Send
from tests.worker.harness import Answer, Client, Server

KEY = base64.b64encode(bytes(range(16)))
ACCEPT = "AAECAwQFBgcICQoLDA0ODw=="
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def request(
    path: str = "/", *headers: str, key: str = KEY.decode(), version: str = "13", method: str = "GET"
) -> bytes:
    """The bytes of a handshake."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: a.example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        f"Sec-WebSocket-Version: {version}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """The bytes of a frame."""
    head = bytes((fin << 7 | rsv << 4 | opcode,))
    bit = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes((bit | len(data),))
    elif len(data) < 65536:
        head += struct.pack("!BH", bit | 126, len(data))
    else:
        head += struct.pack("!BQ", bit | 127, len(data))
    if not masked:
        return head + data
    mask = b"\x01\x02\x03\x04"
    stretched = (mask * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(stretched, "big")
    return head + mask + number.to_bytes(len(data), "big")


def close(code: int, reason: bytes = b"") -> bytes:
    """The bytes of a close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


def deflate(data: bytes) -> bytes:
    """Compress a message as RFC 7692, section 7.2.1 says."""
    packer = zlib.compressobj(wbits=-12)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflate(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + b"\0\0\xff\xff")


@dataclass
class Frame:
    opcode: int
    data: bytes
    compressed: bool

    @property
    def code(self) -> int:
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.data[:2], "big") if self.data else 1005

    @property
    def reason(self) -> str:
        return self.data[2:].decode()


class WebSocketClient:
    """A client on an open WebSocket."""

    def __init__(self, client: Client, answer: Answer) -> None:
        self.client = client
        self.answer = answer

    def send(self, data: bytes) -> None:
        self.client.send(data)

    def text(self, text: str) -> None:
        self.send(frame(TEXT, text.encode()))

    def read(self) -> Frame:
        """Take one frame; the server's are unmasked and never fragmented."""
        first, second = self.client.take(2)
        assert first & 0xB0 == 0x80, f"first byte {first:08b}"
        assert not second & 0x80, "a server's frame is not masked"
        size = second
        if second == 126:
            size = int.from_bytes(self.client.take(2), "big")
        elif second == 127:
            size = int.from_bytes(self.client.take(8), "big")
        return Frame(first & 0x0F, self.client.take(size), bool(first & 0x40))

    def read_text(self) -> str:
        got = self.read()
        assert got.opcode == TEXT, got
        return got.data.decode()

    def read_close(self) -> tuple[int, str]:
        """Take a close frame, as the next frame."""
        got = self.read()
        return got.code, got.reason

    def ended(self) -> bool:
        return self.client.ended()


def opened(
    server: Server, path: str = "/", *headers: str, behind: bytes = b"", **options: Any
) -> WebSocketClient:
    """Open a WebSocket; `behind` is sent with the handshake."""
    client = server.connect(**options)
    client.send(request(path, *headers) + behind)
    answer = client.answer()
    assert answer.status == 101, answer
    return WebSocketClient(client, answer)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, and sends back what it receives until the client leaves."""
    assert scope["type"] == "websocket"
    assert (await receive()) == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Recorder:
    """An app that keeps what it receives, and accepts at once."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        while True:
            message = await receive()
            self.got.append(message)
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            elif message["type"] == "websocket.disconnect":
                return

    @property
    def left(self) -> Message | None:
        """The disconnect, if it has come."""
        return next((m for m in self.got if m["type"] == "websocket.disconnect"), None)

    @property
    def messages(self) -> list[str | bytes]:
        return [m.get("text", m.get("bytes")) for m in self.got if m["type"] == "websocket.receive"]


def accept(**fields: Any) -> Message:
    return {"type": "websocket.accept", **fields}


def text(data: str) -> Message:
    return {"type": "websocket.send", "text": data}
