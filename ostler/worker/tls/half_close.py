"""Lets a TLS client close its sending side and still get its answer, as a client without TLS may.

asyncio and uvloop close a TLS connection as soon as close_notify has arrived, whatever is still to be sent.
Both read through the context's `SSLObject`. The one here keeps close_notify from them: it says that nothing
has arrived yet, and lets the connection decide, by `eof_received`, as for a transport without TLS.

Reading is paused from then on, for nothing more can come. So the end of TCP, which most clients send right
after close_notify and at which both event loops close as well, is not acted on before the answer is written.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

WRITE_AHEAD = 1024 * 1024
"""Bytes of the answer that may be written after close_notify: what is written is sent when reading goes on."""


class HalfClosingSSLObject(ssl.SSLObject):
    """An SSLObject that reports close_notify to the connection, not to the event loop."""

    transport: asyncio.Transport | None = None
    """The transport of the connection; None until `watch`."""
    _loop: asyncio.AbstractEventLoop
    _reported = False

    def watch(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Report close_notify to the protocol of `transport` from here on."""
        self.transport = transport
        self._loop = loop

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the name in the base class
        """Read as the base class does, but raise SSLWantReadError at close_notify."""
        data = super().read(len, buffer)
        if data or not len or self.transport is None:
            return data
        if not self._reported:
            self._reported = True
            # What has arrived before it is passed on first: the event loop is still reading.
            self._loop.call_soon(self._report)
        raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "close_notify is reported to the connection")

    def _report(self) -> None:
        transport, self.transport = self.transport, None
        if transport is None or transport.is_closing():
            return
        protocol: Any = transport.get_protocol()
        if not protocol.eof_received():
            transport.close()
