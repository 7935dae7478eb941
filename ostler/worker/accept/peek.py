"""Reads ahead on a socket in a running event loop, and leaves what it has read in the socket."""

from __future__ import annotations

import asyncio
import socket


async def peek(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int, deadline: float) -> bytes:
    """Wait until the socket has something to read, and return up to `size` bytes of it without taking them.

    Args:
        loop: the running loop.
        sock: a socket that does not block, and that no transport reads.
        size: bytes at the most.
        deadline: when to give up, by the loop's clock.

    Returns:
        At least one byte; nothing where the peer has closed its side.

    Raises:
        TimeoutError: nothing came before the deadline.
        OSError: the peer has reset the connection.
    """
    while True:
        try:
            return sock.recv(size, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _readable(loop, sock, deadline)


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket, deadline: float) -> None:
    ready = loop.create_future()

    def arrived() -> None:
        if not ready.done():
            ready.set_result(None)

    def too_late() -> None:
        if not ready.done():
            ready.set_exception(TimeoutError("nothing came"))

    timer = loop.call_at(deadline, too_late)
    loop.add_reader(sock.fileno(), arrived)
    try:
        await ready
    finally:
        timer.cancel()
        loop.remove_reader(sock.fileno())
