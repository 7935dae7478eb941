"""Writes several buffers with one system call and without joining them, where the event loop can do that."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence

WriteGathered = Callable[[asyncio.WriteTransport, Sequence[bytes]], None]
"""Writes buffers to a transport, in order. Flow control works as after `transport.write`."""


def write_gathered(loop: asyncio.AbstractEventLoop) -> WriteGathered:
    """Return the best way for the transports of `loop`."""
    kind = type(loop).__module__.partition(".")[0]
    if kind == "uvloop" or (kind == "asyncio" and _asyncio_gathers(sys.version_info)):
        return _writelines
    return _write_each


def _asyncio_gathers(version: tuple[int | str, ...]) -> bool:
    """Whether asyncio's writelines is one sendmsg(2), and pauses the protocol where it should.

    Before 3.12 it joins the buffers. After it, early 3.12 and 3.13 never pause (cpython#127655).
    """
    return version >= (3, 13, 2) or (3, 12, 9) <= version < (3, 13)


def _writelines(transport: asyncio.WriteTransport, buffers: Sequence[bytes]) -> None:
    transport.writelines(buffers)


def _write_each(transport: asyncio.WriteTransport, buffers: Sequence[bytes]) -> None:
    # asyncio logs a warning from the fifth write on that is lost (SENDS_PER_TURN).
    if not transport.is_closing():
        for buffer in buffers:
            transport.write(buffer)
