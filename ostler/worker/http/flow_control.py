"""Flow control of one connection: reading stops while the app is slow, sending waits while the client is."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ostler.worker.http.connection_state import CLOSED, NEW, ConnectionState
from ostler.worker.server_state import ServerState

HIGH_WATER = 64 * 1024
"""Bytes of a body, or of whole messages, held for an app that does not receive them. Above it, the socket is
not read."""


def read_tls_socket(transport: Any, read: bool) -> None:
    """Let the socket under a TLS transport be read, or not.

    To pause the transport only stops the decryption. The socket is read on, and at the end of TCP both event
    loops close, whatever is still to be sent.
    """
    if hasattr(transport, "set_read_buffer_limits"):  # not in asyncio of Python 3.10, which pauses the socket
        if read:
            transport.set_read_buffer_limits()
        else:
            transport.set_read_buffer_limits(0, 0)  # what is buffered, be it nothing, is too much


class FlowControlMixin(asyncio.Protocol):
    """Pauses and resumes the transport's reading, and lets senders wait until the transport takes more."""

    __slots__ = (
        "_drain_waiters", "_state", "_transport", "_unparsed", "reading_paused", "server_state",
        "write_paused",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, server_state: ServerState) -> None:
        self.server_state = server_state
        self._state: ConnectionState = NEW
        self.reading_paused = False
        self._unparsed = b""
        """Bytes that were received before reading paused, and that must not be parsed yet."""
        self.write_paused = False
        self._drain_waiters: list[asyncio.Future[None]] | None = None

    # -- asyncio.Protocol

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        waiters, self._drain_waiters = self._drain_waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # -- called by the connection's cycle

    async def drain(self) -> None:
        """Wait until the transport takes more, or is lost."""
        while self.write_paused and self._state is not CLOSED:
            # One future for each caller: a shared one would be cancelled with the first of them.
            waiter: asyncio.Future[None] = self.server_state.loop.create_future()
            if self._drain_waiters is None:
                self._drain_waiters = []
            self._drain_waiters.append(waiter)
            await waiter

    def is_closing(self) -> bool:
        """Whether the transport drops what is sent, and the client's loss is not reported yet."""
        return self._state is not CLOSED and self._transport.is_closing()

    @property
    def closed(self) -> bool:
        """Whether the transport is lost, or another protocol's."""
        return self._state is CLOSED

    # -- for the classes that inherit this

    def _pause_reading(self) -> None:
        self.reading_paused = True
        self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self.reading_paused:
            self.reading_paused = False
            # A TLS transport that is lost raises AttributeError until its loss is reported. In Python 3.10,
            # asyncio's does not say that it is closing, either.
            if not self._transport.is_closing():
                with suppress(AttributeError):
                    self._transport.resume_reading()
