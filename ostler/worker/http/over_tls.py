"""What a connection does differently over TLS, because of what asyncio's TLS transports cannot do.

They have no half-closed state, and of what is written they only know what is not encrypted yet.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios

HUSH = 0.5
"""Seconds without another byte after which a client that was refused is taken to have stopped sending."""


_SIOCOUTQNSD = 0x894B


def unsent(transport: asyncio.Transport, *, closing: bool) -> int:
    """Return the bytes still on their way; only whether they change from look to look means something.

    The transport below has a buffer that cannot be asked for, uvloop's at least. It is empty before the
    kernel's send queue is (tcp(7), unix(7)). On a connection that stays open what is sent and not yet
    acknowledged counts as sent; one that is going to be cut must have delivered it.
    """
    waiting = transport.get_write_buffer_size()
    question = termios.TIOCOUTQ if closing else _SIOCOUTQNSD
    try:
        answer = fcntl.ioctl(transport.get_extra_info("socket").fileno(), question, b"\0" * 4)
    except (OSError, AttributeError):
        return waiting
    queued: int = struct.unpack("i", answer)[0]
    return waiting + queued
