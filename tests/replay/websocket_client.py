"""A WebSocket client that sends frames as they are, and says every frame that comes back (RFC 6455, 5.2)."""

from __future__ import annotations

import contextlib
import struct
from io import BufferedReader
from typing import Any

from tests.replay.http_client import PATIENCE, Connect, read_response

OPCODES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    """Return a frame as a client sends it, masked with zeros."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    masked = 0x80 if mask else 0
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", first, masked | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    return head + (bytes(4) if mask else b"") + data


def text(data: str, *, fin: bool = True) -> bytes:
    """Return a text frame."""
    return frame(1, data.encode(), fin=fin)


def binary(data: bytes) -> bytes:
    """Return a binary frame."""
    return frame(2, data)


def close(code: int | None = 1000, reason: str = "") -> bytes:
    """Return a close frame."""
    return frame(8, b"" if code is None else struct.pack("!H", code) + reason.encode())


def converse(
    connect: Connect, pieces: tuple[bytes, ...], before_last: int = 0, *, hang_up: bool = False
) -> dict[str, Any]:
    """Open a WebSocket, send all frames, and return the handshake's answer and every frame until the end.

    The last piece is sent once so many frames have come, `before_last`. A close frame is answered, and then
    the server has to close the connection.
    """
    seen = _converse(connect, pieces, before_last, hang_up=hang_up)
    seen["codes"] = [frame[:2] if frame[0] == "close" else frame for frame in seen["frames"]]
    return seen


def _converse(
    connect: Connect, pieces: tuple[bytes, ...], before_last: int, *, hang_up: bool
) -> dict[str, Any]:
    with contextlib.closing(connect()) as sock, sock.makefile("rb") as stream:
        sock.settimeout(PATIENCE)
        sock.sendall(pieces[0])
        handshake = read_response(stream, "GET")
        if isinstance(handshake, dict):
            # The case of names and the order of different ones mean nothing (RFC 9110, 5.1 and 5.3).
            named = (line.partition(":") for line in handshake["headers"])
            handshake["headers"] = sorted(f"{name.lower()}:{value}" for name, _, value in named)
        seen: dict[str, Any] = {"handshake": handshake, "frames": [], "end": "closed"}
        if not isinstance(handshake, dict) or " 101" not in handshake["status"]:
            return seen
        sent_close = any(piece[0] & 15 == 8 for piece in pieces[1:])
        for number, piece in enumerate(pieces[1:], 2):
            while number == len(pieces) and len(seen["frames"]) < before_last:
                seen["frames"].append(_read_frame(stream))
            with contextlib.suppress(ConnectionError):
                sock.sendall(piece)
        if hang_up:
            return seen
        while True:
            try:
                received = _read_frame(stream)
            except ConnectionError:  # a reset: bytes that the server has not read lay there as it closed
                return seen
            except TimeoutError:
                seen["end"] = "silent"
                return seen
            if received is None:
                return seen
            seen["frames"].append(received)
            if received[0] == "close" and not sent_close:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(close(received[1]))
                sent_close = True


def _read_frame(stream: BufferedReader) -> list[Any] | None:
    head = stream.read(2)
    if len(head) < 2:
        return None
    size = head[1] & 127
    if size == 126:
        (size,) = struct.unpack("!H", stream.read(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", stream.read(8))
    data = stream.read(size)
    kind = OPCODES.get(head[0] & 15, str(head[0] & 15))
    marks = [
        mark for mark, bit in (("unfinished", not head[0] & 0x80), ("compressed", head[0] & 0x40)) if bit
    ]
    if kind == "close":
        code = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else None
        return [kind, code, data[2:].decode("utf-8", "replace")]
    if "compressed" in marks:
        return [kind, *marks]
    shown = data.decode("utf-8", "replace") if size < 200 else f"{size} bytes"
    return [kind, shown, *marks]
