"""Lets a TLS client close its sending side and still get its answer, as a client without TLS may.

asyncio and uvloop close a TLS connection as soon as close_notify has arrived, whatever is still to be sent.
Both read through the `SSLObject` that the context makes. The one here keeps close_notify from them: it says
that nothing has arrived yet, and asks the connection what to do.

Nothing can come after close_notify but the end of TCP, which most clients send at once. At that, both event
loops drop what is written from then on. So the connection does not read on before its answer is written.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any


class HalfClosingSSLObject(ssl.SSLObject):
    """An SSLObject that reports close_notify to the connection and not to the event loop."""

    _transport: asyncio.Transport | None = None
    _loop: asyncio.AbstractEventLoop
    _reported = False

    def watch(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Report close_notify to the protocol of `transport` from here on.

        A protocol with a method `close_notify_received` says by that whether the connection stays open; for
        any other it is closed, after its `eof_received`.
        """
        self._transport = transport
        self._loop = loop

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """Read as the base class does, but raise SSLWantReadError at close_notify."""
        data = super().read(len, buffer)
        if data or self._transport is None:
            return data
        if not self._reported:
            self._reported = True
            self._pause_tcp(self._transport)
            # The event loop has not yet passed on what arrived before.
            self._loop.call_soon(self._report, self._transport)
        raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "close_notify was reported to the connection")

    def _pause_tcp(self, transport: Any) -> None:
        """Do not read the end of TCP, which may be there already, before the connection has its report.

        A limit of nothing pauses reading if it is on, and resumes it if it is paused. Both event loops look
        at it when it is set, and again when the read has ended that this is called in: three times in all.
        """
        if hasattr(transport, "set_read_buffer_limits"):  # not in asyncio of Python 3.10
            transport.set_read_buffer_limits(0, 0)
            transport.set_read_buffer_limits(0, 0)

    def _report(self, transport: Any) -> None:
        if transport.is_closing():
            return
        protocol = transport.get_protocol()
        if not hasattr(protocol, "close_notify_received"):
            protocol.eof_received()
            transport.close()
        elif not protocol.close_notify_received():
            transport.close()
