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
    """Gathers the body of one response.

    What is gathered is written when it is enough, with a short piece, with the last piece, or when the event
    loop runs again. Each write wakes a client that waits for more: fewer wake-ups save more time than the
    system calls that are saved.
    """

    __slots__ = (
        "_flush_scheduled", "_loop", "_parts", "_size", "_transport", "_write_gathered", "_written_at",
    )  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        write_gathered: WriteGathered,
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._write_gathered = write_gathered
        self._parts: list[bytes] = []
        self._size = 0
        self._written_at = monotonic()
        """When a write was last caused by a long piece, in monotonic seconds."""
        self._flush_scheduled = False
        """The loop calls `_scheduled_flush` in its next turn."""

    def add(self, head: bytes, data: bytes, tail: bytes, *, more: bool) -> None:
        """Take a piece of the body, and what is to be written before and after it."""
        size = len(data)
        parts = self._parts
        if size > JOIN:
            before = b"".join((*parts, head))
            self.clear()
            self._write_gathered(self._transport, [part for part in (before, data, tail) if part])
            return
        parts += (head, data, tail)
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
