"""A client for bodies and messages of any size: each connection sends its request again after each answer.

    python -m benchmarks.client KIND PORT SECONDS CONNECTIONS SIZE

KIND is upload, chunked, websocket, streamed or file; SIZE is the number of bytes of the body or message. It
prints the number of right answers, the number of errors, and its own CPU seconds. An error is a wrong answer
or a connection that ends.

wrk reads 8 KiB at a time and cannot check an answer without calling Lua: for 1 MB it costs as much as a
server. This client reads what has arrived with one system call into a buffer that it keeps.

It never sleeps. A server that writes to a sleeping client has to wake it, which costs up to a fifth of a
streamed MB on a virtual machine. Whether the client sleeps depends on which of the two is faster just then,
so it would change from run to run.
"""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from dataclasses import dataclass

_CHUNK = 16 * 1024
_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_GET = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_POST = b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\n"
_MASK = b"\xa5\x3c\x96\x0f"
_SAMPLE = 64
"""Bytes at either end of an echo that are compared. The first echo of a connection is compared as a whole."""
_FRAMING = 64 * 1024
"""Room in a buffer for the head and the chunks' sizes, beside the body."""


@dataclass(frozen=True)
class Traffic:
    """What each connection sends, and how its answers are recognised."""

    request: bytes
    end: bytes
    """The last bytes of each answer; they are nowhere else in it."""
    least: int = 0
    """The least number of bytes of an answer."""
    echo: bytes = b""
    """The whole answer, if it is known; empty for HTTP, whose heads differ from server to server."""
    handshake: bytes = b""
    """Sent first, and answered with a head that is not counted."""


def payload(size: int) -> bytes:
    """Return `size` random bytes, the same in each run."""
    return random.Random(13).randbytes(size)


def traffic(kind: str, size: int) -> Traffic:
    """Return what connections of this KIND send and expect.

    Raises:
        ValueError: there is no such kind.
    """
    body = payload(size)
    count = b"\r\n\r\n%d" % size
    if kind == "upload":
        return Traffic(_POST + b"Content-Length: %d\r\n\r\n%b" % (size, body), count)
    if kind == "chunked":
        pieces = [body[at : at + _CHUNK] for at in range(0, size, _CHUNK)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return Traffic(_POST + b"Transfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks, count)
    if kind == "websocket":
        mask = (_MASK * (size // 4 + 1))[:size]
        masked = (int.from_bytes(body, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
        echo = _frame_head(size) + body
        request = _frame_head(size, masked=True) + _MASK + masked
        return Traffic(request, echo[-_SAMPLE:], len(echo), echo, _HANDSHAKE)
    if kind == "streamed":
        return Traffic(_GET, b"0\r\n\r\n", size)
    if kind == "file":
        return Traffic(_GET, body[-_SAMPLE:], size)
    raise ValueError(kind)


def _frame_head(size: int, masked: bool = False) -> bytes:
    """Return the head of an unfragmented binary message, without the mask (RFC 6455, section 5.2)."""
    bit = 0x80 if masked else 0
    if size < 126:
        return bytes((0x82, bit | size))
    if size < 1 << 16:
        return bytes((0x82, bit | 126)) + size.to_bytes(2, "big")
    return bytes((0x82, bit | 127)) + size.to_bytes(8, "big")


class Connection:
    """Sends a request, reads its answer, and sends the request again."""

    def __init__(self, port: int, traffic: Traffic, poll: select.epoll) -> None:
        self.traffic = traffic
        self.poll = poll
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if traffic.handshake:
            self._shake_hands()
        self.sock.setblocking(False)
        poll.register(self.sock, select.EPOLLIN)
        self.request = memoryview(traffic.request)
        self.answer = bytearray(len(traffic.echo) or traffic.least + _FRAMING)
        self.room = memoryview(self.answer)
        self.sent = self.received = 0
        self.writing = False
        self.count = self.errors = 0
        self.write()

    def _shake_hands(self) -> None:
        self.sock.sendall(self.traffic.handshake)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            if not byte:
                raise SystemExit("benchmarks.client: the connection was closed during the handshake")
            head += byte
        if not head.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"benchmarks.client: {head!r}")

    def ready(self, events: int) -> None:
        """Read what has arrived, and send the rest of the request if there is room for it."""
        if events & ~select.EPOLLOUT:
            self.read()
        if events & select.EPOLLOUT:
            self.write()

    def write(self) -> None:
        """Send the rest of the request, as far as the socket has room for it."""
        try:
            self.sent += self.sock.send(self.request[self.sent :])
        except BlockingIOError:
            pass
        except OSError:
            return self._fail()
        writing = self.sent < len(self.request)
        if writing is not self.writing:
            self.writing = writing
            self.poll.modify(self.sock, select.EPOLLIN | select.EPOLLOUT if writing else select.EPOLLIN)
        return None

    def read(self) -> None:
        """Read a part of the answer; after the last part, check the answer and send the request again."""
        try:
            count = self.sock.recv_into(self.room[self.received :])
        except OSError:
            count = 0
        if not count:  # the connection has ended, or the answer is longer than the buffer
            return self._fail()
        self.received += count
        if self.received < self.traffic.least or not self._ends():
            return None
        if self._is_right():
            self.count += 1
        else:
            self.errors += 1
        self.sent = self.received = 0
        return self.write()

    def _ends(self) -> bool:
        # A wrong echo has its length only.
        return bool(self.traffic.echo) or self.answer.endswith(self.traffic.end, 0, self.received)

    def _is_right(self) -> bool:
        echo = self.traffic.echo
        if not echo:
            return self.answer.startswith(b"HTTP/1.1 200 ")
        if not self.count:
            return self.answer == echo
        return self.answer.startswith(echo[:_SAMPLE]) and self.answer.endswith(self.traffic.end)

    def _fail(self) -> None:
        self.errors += 1
        if self.sock.fileno() >= 0:
            self.poll.unregister(self.sock)
            self.sock.close()


def run(port: int, seconds: float, connections: int, traffic: Traffic) -> tuple[int, int]:
    """Keep `connections` busy for `seconds`; return the numbers of right answers and of errors."""
    with select.epoll() as poll:
        made = [Connection(port, traffic, poll) for _ in range(connections)]
        found = {connection.sock.fileno(): connection for connection in made}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for number, events in poll.poll(0):
                found[number].ready(events)
        for connection in made:
            connection.sock.close()
    return sum(connection.count for connection in made), sum(connection.errors for connection in made)


if __name__ == "__main__":
    port, connections, size = (int(sys.argv[at]) for at in (2, 4, 5))
    answers, errors = run(port, float(sys.argv[3]), connections, traffic(sys.argv[1], size))
    print(answers, errors, time.process_time())
