"""`ostler.Server.started`: awaitable, true once the server serves, with `wait()` for other threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator


class Startup:
    """Whether a server has started: false at first, true once it accepts connections, also after its end.

    `await server.started` waits in any event loop, `server.started.wait(timeout)` in a thread. Both return
    True when the server has started and False when it was stopped before that. If the start fails, both raise
    its exception.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._up = False
        self._failure: Exception | None = None
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        state = "not yet" if not self._settled.is_set() else "yes" if self._up else "never"
        return f"<Startup {state}>"

    def __bool__(self) -> bool:
        return self._up

    def __await__(self) -> Generator[None, None, bool]:
        return self._arrived().__await__()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the server has started, failed to start, or was stopped before it started.

        For a thread that runs no event loop.

        Args:
            timeout: seconds to wait at most; None waits for as long as it takes.

        Returns:
            Whether the server has started; False also if the time is over.

        Raises:
            OstlerError: the server could not start; see `Server.serve`.
            RuntimeError: an event loop runs in this thread, and would be blocked.
        """
        if not self._settled.is_set() and asyncio._get_running_loop() is not None:
            raise RuntimeError(
                "wait() would block the event loop of this thread: await server.started instead"
            )
        self._settled.wait(timeout)
        return self._outcome()

    def settle(self, *, up: bool, failure: Exception | None = None) -> None:
        """Store the result and wake everything that waits for it; only the first call has an effect."""
        with self._lock:
            if self._settled.is_set():
                return
            self._up, self._failure = up, failure
            self._settled.set()
            waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(_wake, future)

    async def _arrived(self) -> bool:
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._settled.is_set():
                return self._outcome()
            future = loop.create_future()
            self._waiting.append((loop, future))
        await future
        return self._outcome()

    def _outcome(self) -> bool:
        if self._failure is not None:
            raise self._failure
        return self._up


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
