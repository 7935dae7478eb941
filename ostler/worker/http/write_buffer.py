"""Buffers the pieces of a streamed response body that follow one another at once, for one write."""

from __future__ import annotations

import asyncio
from time import monotonic

from ostler.worker.gathered_write import WriteGathered

GATHER_TIME = 0.001
"""Seconds after a write in which pieces are gathered; a piece that comes later is written at once."""
_SHORT = 4 * 1024
"""A piece of fewer bytes is written at once: the client may be waiting for it."""
JOIN = 32 * 1024
"""Bytes of a piece up to which it is copied, to be joined with what else is to be written."""
_FULL = 64 * 1024
"""Gathered bytes at which they are written."""


class WriteBuffer:
    """Gathers the body of one response, and frames its chunks where the response is sent in chunks.

    What is gathered is written when it is enough, with a short piece, with the last piece, or when the event
    loop runs again. Each write wakes a client that waits for more: fewer wake-ups save more time than the
    system calls that are saved.
    """

    __slots__ = (
        "_chunked", "_flush_scheduled", "_framed", "_framing", "_loop", "_parts", "_size", "_transport",
        "_write_gathered", "_written_at",
    )  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        write_gathered: WriteGathered,
        *,
        chunked: bool,
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._write_gathered = write_gathered
        self._chunked = chunked
        self._framed = 0
        """The size of the last chunk: most have the same."""
        self._framing = b""
        """Its line (RFC 9112, section 7.1)."""
        self._parts: list[bytes] = []
        self._size = 0
        self._written_at = monotonic()
        """When a write was last caused by a long piece, in monotonic seconds."""
        self._flush_scheduled = False
        """The loop calls `_scheduled_flush` in its next turn."""

    def add(self, head: bytes, data: bytes, more: bool) -> None:
        """Take a piece of the body, and the response head before it if that is not written yet.

        `more` says that it is not the last piece.
        """
        size = len(data)
        parts = self._parts
        if head:
            parts.append(head)
        tail = b""
        if self._chunked:
            if size:
                if size != self._framed:
                    self._framed = size
                    self._framing = b"%x\r\n" % size
                parts.append(self._framing)
                tail = b"\r\n" if more else b"\r\n0\r\n\r\n"
            elif not more:
                tail = b"0\r\n\r\n"
        if size > JOIN:
            before = b"".join(parts)
            self.clear()
            self._write_gathered(self._transport, [part for part in (before, data, tail) if part])
            return
        parts += (data, tail)
        if more and size >= _SHORT:
            self._size += size
            if self._size < _FULL:
                now = monotonic()
                if now - self._written_at < GATHER_TIME:
                    if not self._flush_scheduled:
                        self._flush_scheduled = True
                        self._loop.call_soon(self._scheduled_flush)
                    return
                self._written_at = now
        self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        gathered = b"".join(self._parts)
        self.clear()
        if gathered:
            self._transport.write(gathered)

    def clear(self) -> None:
        """Drop what is gathered."""
        self._parts.clear()
        self._size = 0

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self.flush()
