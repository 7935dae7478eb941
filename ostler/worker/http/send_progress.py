"""Measures whether a client still receives what was sent, for the deadlines of slow clients."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios

_SIOCOUTQNSD = 0x894B
"""Asks for the bytes that are not sent yet (linux/sockios.h); TIOCOUTQ includes unacknowledged ones."""

_ACKNOWLEDGED = struct.Struct("=120xQ")
"""`tcpi_bytes_acked` in the kernel's `struct tcp_info` (linux/tcp.h), which only ever grows at its end."""


def progress(transport: asyncio.Transport, *, tls: bool, closing: bool) -> int:
    """Return 0 if nothing waits to be sent, else a number that changes whenever the client takes some of it.

    The size of the transport's buffer is not enough: the kernel takes more from it only when a third of its
    own buffer, which may hold megabytes, is free; and over TLS the transport counts only what is not
    encrypted yet. So TCP is asked how many bytes were acknowledged.

    Args:
        transport: the connection's transport.
        tls: whether it is a TLS transport.
        closing: whether the connection is closing: then what is sent but not acknowledged counts as waiting.
    """
    waiting = transport.get_write_buffer_size()
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None:
        return waiting
    if tls:
        # Between the transport and the kernel there is another buffer, whose size uvloop does not expose; it
        # is empty before the kernel's is (tcp(7), unix(7)). On a connection that stays open, what is sent and
        # not yet acknowledged counts as sent; before a connection is closed, it has to be acknowledged.
        waiting += _queued(sock, termios.TIOCOUTQ if closing else _SIOCOUTQNSD)
    if waiting and sys.platform == "linux" and sock.family != socket.AF_UNIX:
        return _acknowledged(sock) or waiting
    return waiting


def _queued(sock: socket.socket, request: int) -> int:
    try:
        answer = fcntl.ioctl(sock.fileno(), request, b"\0" * 4)
    except OSError:
        return 0
    queued: int = struct.unpack("i", answer)[0]
    return queued


def _acknowledged(sock: socket.socket) -> int:
    try:
        facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.size)
        acknowledged: int = _ACKNOWLEDGED.unpack(facts)[0]
    except (OSError, struct.error):  # closed; or a kernel before 4.1, without the field
        return 0
    return acknowledged
