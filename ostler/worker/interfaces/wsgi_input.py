"""`wsgi.input`: a request's body as a stream for a thread; a piece is fetched only when it is read."""

from __future__ import annotations

import asyncio
import io
import threading
from typing import TYPE_CHECKING, Any

from ostler.worker.asgi import ClientDisconnected, Message, Receive

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 64 * 1024
"""Bytes: the buffer of `wsgi.input` for small reads. Its pages take no memory before they are filled."""

UNKNOWN = -1
"""Length of a chunked body, which is known only at its end."""


class Body(io.RawIOBase):
    """The raw stream below `wsgi.input`: a thread that reads waits in it for the loop, piece by piece.

    Only one thread reads at a time: the io.BufferedReader around this object has a lock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive, length: int) -> None:
        """`receive` is called in `loop`; `length` is the body's size in bytes, or UNKNOWN."""
        super().__init__()
        self._loop = loop
        self._receive = receive
        self._left = length
        self._piece = memoryview(b"")
        self._asked = False
        """A piece is being fetched, or has been fetched and not taken yet."""
        self._fetched = threading.Lock()
        self._fetched.acquire()
        self._message: Message | None = None
        self._task: asyncio.Task[Message] | None = None
        self._stopped = False

    # -- in the loop

    def fetch(self) -> None:
        """Start to fetch a piece; also before the thread asks for it, if the client is sure to send it."""
        self._asked = True
        if self._stopped:
            self._fetched.release()
            return
        self._task = self._loop.create_task(self._receive_one())
        # Not in the coroutine itself: a task that is cancelled before its first step never runs it.
        self._task.add_done_callback(self._take)

    async def _receive_one(self) -> Message:
        return await self._receive()

    def _take(self, task: asyncio.Task[Message]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is None:
            self._message = task.result()
        self._fetched.release()

    def stop(self) -> None:
        """Fetch no more; a thread that waits for a piece gets an error."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    # -- in a thread

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` as far as one piece goes; 0 at the end of the body.

        Raises:
            ClientDisconnected: the client left before the end, or the request was cancelled.
        """
        piece = self._piece or self._next()
        with memoryview(buffer).cast("B") as view:
            size = min(len(view), len(piece))
            view[:size] = piece[:size]
        self._piece = piece[size:]
        return size

    def readall(self) -> bytes:
        """Return the rest of the body; io.RawIOBase.readall would read it in pieces of 8 KiB.

        Raises:
            ClientDisconnected: as `readinto`.
        """
        pieces: list[Any] = []
        piece = self._piece or self._next()
        while piece:
            pieces.append(piece)
            piece = self._next()
        self._piece = memoryview(b"")
        return b"".join(pieces)

    def _next(self) -> memoryview:
        """Wait for the next piece that is not empty, and return it; empty at the end of the body."""
        piece = b""
        while not piece and self._left:
            if not self._asked:
                self._ask()
            self._fetched.acquire()
            self._asked = False
            message, self._message = self._message, None
            if message is None or message["type"] != "http.request":
                raise ClientDisconnected("The client left before the end of its request.")
            piece = message.get("body", b"")
            if not message.get("more_body", False):
                self._left = 0
            elif self._left > 0:
                self._left -= len(piece)
        return memoryview(piece)

    def _ask(self) -> None:
        if self._stopped:
            raise ClientDisconnected("The request was given up.")
        try:
            self._asked = True
            self._loop.call_soon_threadsafe(self.fetch)
        except RuntimeError:  # the loop is closed: the process is at its end
            raise ClientDisconnected("The request was given up.") from None
