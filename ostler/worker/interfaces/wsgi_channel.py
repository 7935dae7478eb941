"""The way of a WSGI response from the thread that produces it to the loop's task that sends it."""

from __future__ import annotations

import asyncio
import threading
from typing import TypeAlias

from ostler.worker.asgi import ClientDisconnected

HIGH_WATER = 64 * 1024
"""Bytes that a thread may be ahead of what has been sent."""

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""Names and values of response header fields."""


class ResponseChannel:
    """Head and body of one response, from a thread to a task. `_lock` guards what both of them write.

    The thread calls `_put` and `_finish`, the task all other methods. A side that has to wait sleeps until
    the other side wakes it: the task on a future, the thread on a lock.
    """

    __slots__ = (
        "_ahead", "_chunks", "_done", "_ended", "_error", "_gone", "_head", "_lock", "_loop", "_room",
        "_waiter",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._waiter: asyncio.Future[None] | None = None
        """The task sleeps until this is done."""
        self._room: threading.Lock | None = None
        """The thread sleeps until this is released."""
        self._gone = False
        """Nothing more can be sent: the client is gone, or the request was cancelled."""
        self._head: tuple[int, Fields] | None = None
        """Status and fields that the task has not taken yet."""
        self._chunks: list[bytes] = []
        """What the task has not taken yet of the body."""
        self._ahead = 0
        """Bytes put that have not been sent."""
        self._ended = False
        """The response is complete with what is in `_chunks`."""
        self._done = False
        """The thread has finished with the application."""
        self._error: BaseException | None = None
        """What the application raised."""

    # -- in the loop

    async def _take(self, *, end_sent: bool) -> tuple[tuple[int, Fields] | None, list[bytes], bool, bool]:
        """Wait for something to send, or for the thread to finish.

        Returns:
            The head, or None; the chunks; whether the body ends with them; whether the thread has finished.
        """
        while True:
            with self._lock:
                head, self._head = self._head, None
                chunks, self._chunks = self._chunks, []
                ended, done = self._ended, self._done
                if head is not None or chunks or done or (ended and not end_sent):
                    return head, chunks, ended, done
                self._waiter = waiter = self._loop.create_future()
            await waiter

    async def _thread_done(self) -> None:
        while True:
            with self._lock:
                if self._done:
                    return
                self._waiter = waiter = self._loop.create_future()
            await waiter

    def _make_room(self, size: int) -> None:
        """Note that `size` bytes have been sent; wake the thread if it waits for that."""
        with self._lock:
            self._ahead -= size
            room, self._room = self._room, None
        if room is not None:
            room.release()

    def _give_up(self) -> None:
        """Let the thread know, at its next step, that nothing more can be sent."""
        with self._lock:
            self._gone = True
        self._make_room(0)

    # -- in the thread

    def _put(self, chunk: bytes, ended: bool) -> None:
        """Hand a chunk to the task; wait while too much is under way.

        Raises:
            ClientDisconnected: nothing more can be sent.
        """
        room = None
        with self._lock:
            if self._gone:
                raise ClientDisconnected("The client is gone.")
            if chunk:
                self._chunks.append(chunk)
                self._ahead += len(chunk)
            self._ended = ended
            if self._ahead > HIGH_WATER and not ended:
                self._room = room = threading.Lock()
                room.acquire()
            waiter, self._waiter = self._waiter, None
        self._wake(waiter)
        if room is not None:
            room.acquire()
            if self._gone:
                raise ClientDisconnected("The client is gone.")

    def _finish(self, error: BaseException | None) -> None:
        """Let the task know that the thread has finished with the application."""
        with self._lock:
            self._error = error
            self._done = True
            waiter, self._waiter = self._waiter, None
        self._wake(waiter)

    def _wake(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None:
            try:
                self._loop.call_soon_threadsafe(_settle, waiter)
            except RuntimeError:  # the loop is closed: the process has not waited for this thread
                self._gone = True


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
