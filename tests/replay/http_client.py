"""A client that sends bytes as they are, and returns all that comes: status line, headers, body, the end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from io import BufferedReader
from typing import Any

PATIENCE = 15.0
"""Seconds until a read fails; only a test that would fail anyway waits for so long."""

Connect = Callable[[], socket.socket]
FOLLOW_UP = b"GET /ping HTTP/1.1\r\nHost: replay.example\r\n\r\n"


def exchange(connect: Connect, pieces: tuple[bytes, ...], answers: int = 1) -> dict[str, Any]:
    """Send `pieces`, and return `answers` responses, interim ones too, and whether it is kept open.

    Each piece but the first is sent once the server has answered the one before with anything, such as 100
    Continue.
    """
    with contextlib.closing(connect()) as sock, sock.makefile("rb") as stream:
        sock.settimeout(PATIENCE)
        responses: list[Any] = []
        for piece in pieces[:-1]:
            sock.sendall(piece)
            responses.append(read_response(stream, method(piece)))
        with contextlib.suppress(ConnectionError):
            sock.sendall(pieces[-1])
        while answers:
            response = read_response(stream, method(pieces[-1]))
            responses.append(response)
            if not isinstance(response, dict):
                break
            answers -= not response["status"].startswith("HTTP/1.1 1")
        return {"responses": responses, "then": _follow_up(sock, stream)}


def _follow_up(sock: socket.socket, stream: BufferedReader) -> str:
    """Return whether another request on the same connection is answered: open, or closed."""
    try:
        sock.sendall(FOLLOW_UP)
        answer = stream.readline()
    except ConnectionError:
        return "closed"
    except TimeoutError:
        return "open, and silent"
    if not answer:
        return "closed"
    return "open" if answer == b"HTTP/1.1 200 OK\r\n" else f"open: {answer!r}"


def method(request: bytes) -> str:
    """Return the method of a request."""
    return request.split(b" ", 1)[0].decode("latin-1")


def read_response(stream: BufferedReader, method: str) -> dict[str, Any] | str:
    """Return a response as JSON, or in a word why there is none."""
    try:
        return _read_response(stream, method)
    except ConnectionError:
        return "reset"
    except TimeoutError:
        return "silent"


def _read_response(stream: BufferedReader, method: str) -> dict[str, Any] | str:
    status = stream.readline().decode("latin-1").rstrip("\r\n")
    if not status:
        return "closed"
    headers = _read_headers(stream)
    seen: dict[str, Any] = {"status": status, "headers": headers}
    code = status.split(" ")[1] if " " in status else ""
    named = {name.lower(): value for name, _, value in (line.partition(": ") for line in headers)}
    if method == "HEAD" or code in ("204", "304") or code.startswith("1"):
        return seen
    if named.get("transfer-encoding", "").lower() == "chunked":
        seen["chunks"], trailers = _read_chunks(stream)
        if trailers:
            seen["trailers"] = trailers
    elif "content-length" in named:
        wanted = int(named["content-length"])
        data = stream.read(wanted)
        seen["body"] = data.decode("latin-1")
        if len(data) < wanted:
            seen["cut"] = True
    else:
        seen["body"] = stream.read().decode("latin-1")
    return seen


def _read_headers(stream: BufferedReader) -> list[str]:
    headers = []
    while (line := stream.readline().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        headers.append(f"{name}: {value.strip()}")  # blanks around a value are not part of it (RFC 9110, 5.5)
    return headers


def _read_chunks(stream: BufferedReader) -> tuple[list[str], list[str]]:
    chunks: list[str] = []
    while True:
        try:
            size = stream.readline()
        except ConnectionError:
            size = b""
        if not size:
            return [*chunks, "cut"], []
        count = int(size.split(b";")[0], 16)
        if count == 0:
            return chunks, _read_headers(stream)
        chunks.append(stream.read(count).decode("latin-1"))
        stream.readline()


def request(
    connect: Connect, target: str, method: str = "GET", *headers: str
) -> tuple[int, dict[str, str], str]:
    """Send a request on a new connection, and return status, headers and body."""
    lines = [f"{method} {target} HTTP/1.1", "Host: replay.example", "Connection: close", *headers, "", ""]
    with contextlib.closing(connect()) as sock, sock.makefile("rb") as stream:
        sock.settimeout(PATIENCE)
        sock.sendall("\r\n".join(lines).encode("latin-1"))
        response = _read_response(stream, method)
    if not isinstance(response, dict):
        raise ConnectionError(response)
    headers_seen = dict(line.split(": ", 1) for line in response["headers"] if ": " in line)
    text = response.get("body", "".join(response.get("chunks", [])))
    return int(response["status"].split(" ")[1]), headers_seen, text
