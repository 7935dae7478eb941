"""The arbiter's event loop: descriptors to read, timers and signals, in one thread.

asyncio has all that and a hundred things more: with the ssl that it imports, it was a fifth of the arbiter's
memory and a third of the time until the first worker was spawned. The names are asyncio's.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

LONGEST = 24 * 3600.0
"""Seconds of one sleep at the most: the system calls count milliseconds in an int."""

_PIPE_SIZE = 65536


class HasFileno(Protocol):
    """A socket or a pipe's end."""

    def fileno(self) -> int:
        """Return its descriptor."""


class Timer:
    """A call that is due at a monotonic time, unless it is cancelled before."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Forget the call; one that was made already stays made."""
        self._call = None

    @property
    def over(self) -> bool:
        """Whether there is nothing to be called any more."""
        return self._call is None

    def take(self) -> Callable[[], object] | None:
        """Return what is to be called, for once; None if it was cancelled."""
        call, self._call = self._call, None
        return call


class EventLoop:
    """Sleeps until something happens, and calls whoever waits for it.

    `defect` is called with an exception that one of those raises, and with what was called; then it goes on.
    Only `call_soon_threadsafe` may be called from another thread.
    """

    def __init__(self) -> None:
        self.defect: Callable[[Callable[..., object], Exception], None] = _raise
        self._selector = selectors.DefaultSelector()
        self._soon: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()  # timers for the same instant keep their order, and are never compared
        self._handlers: dict[int, Callable[[], object]] = {}
        self._stopped = False
        self._closed = False
        self._wake_reader, self._wake_writer = os.pipe()
        for end in (self._wake_reader, self._wake_writer):
            os.set_blocking(end, False)
        self.add_reader(self._wake_reader, self._woken)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._selector.get_map())} descriptors"
        return f"<Loop {state}, {len(self._timers)} timers>"

    # --- what to wait for -------------------------------------------------------------------------

    def add_reader(self, file: int | HasFileno, callback: Callable[..., object], *arguments: Any) -> None:
        """Call back whenever there is something to read, or its end; nobody else is called back any more."""
        data = (callback, arguments)
        try:
            self._selector.register(file, selectors.EVENT_READ, data)
        except KeyError:
            self._selector.modify(file, selectors.EVENT_READ, data)

    def remove_reader(self, file: int | HasFileno) -> None:
        """Wait for nothing there any more; nobody waits: nothing. Before the descriptor is closed."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call back in the next round."""
        self._soon.append(callback)

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call back in the next round, from any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        if self._closed:
            raise RuntimeError("the arbiter's loop is closed")
        self._soon.append(lambda: callback(*arguments))
        self._wake()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call back in so many seconds."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._numbers), timer))
        return timer

    def add_signal_handler(self, number: signal.Signals, handler: Callable[[], object]) -> None:
        """Call `handler`, between other callbacks, once for each delivery of a signal. Main thread only."""
        # What the interpreter would say of a full pipe it says from within its C handler, behind a lock: with
        # the next signal of a flood in that same moment the process would wait for itself (`system.signals`).
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        self._handlers[number] = handler
        signal.signal(number, _nothing)  # only with a handler is the descriptor written to
        signal.siginterrupt(number, False)

    def remove_signal_handler(self, number: signal.Signals) -> None:
        """Take the handler off; the signal does nothing. Whoever wants its default back sets that."""
        self._handlers.pop(number, None)
        if not self._handlers:
            signal.set_wakeup_fd(-1)

    # --- life -------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Wait and call, until `stop()`."""
        self._stopped = False
        while not self._stopped:
            self._round()

    def stop(self) -> None:
        """Let `run_forever` return once this round's callbacks have been made."""
        self._stopped = True

    def close(self) -> None:
        """Let go of everything. Closed already: nothing."""
        if self._closed:
            return
        self._closed = True
        self._soon.clear()
        self._timers.clear()
        self._selector.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _round(self) -> None:
        """Sleep until something is to be done, and do it: what was asked, what can be read, what is due."""
        events = self._selector.select(self._patience())
        for _ in range(len(self._soon)):
            self._call(self._soon.popleft())
        for key, _ in events:
            # Not to whoever has been removed, or replaced, in this very round.
            now_there = self._selector.get_map().get(key.fd)
            if now_there is not None and now_there.data is key.data:
                callback, arguments = key.data
                self._call(callback, *arguments)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            call = heapq.heappop(self._timers)[2].take()
            if call is not None:
                self._call(call)

    def _patience(self) -> float | None:
        if self._soon:
            return 0
        while self._timers and self._timers[0][2].over:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0][0] - time.monotonic()), LONGEST)

    def _call(self, callback: Callable[..., object], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self.defect(callback, error)

    def _woken(self) -> None:
        """Read what the interpreter has written: a byte for each signal, its number; 0 is from a thread."""
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wake_reader, _PIPE_SIZE):
                if (handler := self._handlers.get(number)) is not None:
                    self._call(handler)

    def _wake(self) -> None:
        # Full: whoever sleeps there is woken anyway. Closed in between: nobody sleeps.
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"\0")


def _nothing(*_: object) -> None:
    pass


def _raise(callback: Callable[..., object], error: Exception) -> None:
    raise error
