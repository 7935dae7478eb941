"""Long pieces of a streamed body that follow one another at once: they leave in one write."""

from __future__ import annotations

import asyncio
from time import monotonic

TOGETHER = 0.001
"""Seconds after a write in which pieces are gathered; one that takes longer is written as it comes."""
_SHORT = 4 * 1024
"""A piece of fewer bytes is news, not freight: it is written at once."""
JOIN = 32 * 1024
"""The most bytes of a piece that are worth a copy, to be joined with what else is to be written."""
_ENOUGH = 64 * 1024
"""Bytes that are worth a write."""


class WriteBuffer:
    """What one response has gathered of its body.

    That leaves as soon as it is enough, with a short piece, with the last one, or when the event loop runs
    again. Each write wakes a client that waits for more; to wake it less often saves more than the calls do.
    """

    __slots__ = ("_due", "_loop", "_parts", "_since", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0
        self._since = monotonic()
        """When a piece was last written for its own sake."""
        self._due = False
        """The loop is asked to flush."""

    def add(self, head: bytes, data: bytes, tail: bytes, *, more: bool) -> None:
        """Take a piece, and what frames it."""
        size = len(data)
        parts = self._parts
        if size > JOIN:
            parts.append(head)
            self.flush()
            # Not writelines: with it, asyncio of early 3.12 and 3.13 never pauses (cpython#127655).
            self._transport.write(data)
            if tail:
                self._transport.write(tail)
            return
        parts += (head, data, tail)
        if more and size >= _SHORT:
            self._size += size
            if self._size < _ENOUGH:
                now = monotonic()
                if now - self._since < TOGETHER:
                    if not self._due:
                        self._due = True
                        self._loop.call_soon(self._flush_due)
                    return
                self._since = now
        self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        gathered = b"".join(self._parts)
        self.clear()
        if gathered:
            self._transport.write(gathered)

    def clear(self) -> None:
        """Forget what is gathered."""
        self._parts.clear()
        self._size = 0

    def _flush_due(self) -> None:
        self._due = False
        self.flush()
