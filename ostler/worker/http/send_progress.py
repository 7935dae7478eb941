"""Whether what was written to a client arrives, as far as a deadline needs to know."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios

_SIOCOUTQNSD = 0x894B

_ACKNOWLEDGED = struct.Struct("=120xQ")
"""`tcpi_bytes_acked` in the kernel's `struct tcp_info` (linux/tcp.h), which only ever grows at its end."""


def progress(transport: asyncio.Transport, *, tls: bool, closing: bool) -> int:
    """Return 0 if nothing waits to be sent, else a number that changes whenever the peer takes some of it.

    What waits in a buffer of ours tells too little: the kernel asks for more only when a third of its own,
    which may hold megabytes, is free; and of what is written over TLS the transport knows only what is not
    encrypted yet. So TCP is asked for what was acknowledged.
    """
    waiting = transport.get_write_buffer_size()
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None:
        return waiting
    if tls:
        # Between the transport and the kernel lies a buffer that cannot be asked for, uvloop's at least;
        # it is empty before the kernel's is (tcp(7), unix(7)). On a connection that stays open, what is
        # sent and not yet acknowledged counts as sent; one that is going to be cut must have delivered it.
        waiting += _queued(sock, termios.TIOCOUTQ if closing else _SIOCOUTQNSD)
    if waiting and sys.platform == "linux" and sock.family != socket.AF_UNIX:
        return _acknowledged(sock) or waiting
    return waiting


def _queued(sock: socket.socket, question: int) -> int:
    try:
        answer = fcntl.ioctl(sock.fileno(), question, b"\0" * 4)
    except OSError:
        return 0
    queued: int = struct.unpack("i", answer)[0]
    return queued


def _acknowledged(sock: socket.socket) -> int:
    try:
        facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.size)
        acknowledged: int = _ACKNOWLEDGED.unpack(facts)[0]
    except (OSError, struct.error):  # gone; or a kernel before 4.1, which tells less
        return 0
    return acknowledged
