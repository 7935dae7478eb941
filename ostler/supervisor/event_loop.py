"""The arbiter's event loop: descriptors to read, timers and signals, in one thread.

Not asyncio's: with the ssl module that asyncio imports, that was a fifth of the arbiter's memory and a third
of the time until the first worker was spawned. The names are asyncio's.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from ostler.ipc.contract import PIPE_SIZE

# Seconds of one sleep at the most: the system calls count milliseconds in an int.
_LONGEST_SLEEP = 24 * 3600.0


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
        """Forget the call, unless it has been made."""
        self._call = None

    @property
    def done(self) -> bool:
        """Whether the call has been made or cancelled."""
        return self._call is None

    def take(self) -> Callable[[], object] | None:
        """Return what is to be called, and forget it; None if the timer is done."""
        call, self._call = self._call, None
        return call


class EventLoop:
    """Sleeps until a descriptor can be read, a timer is due or a signal comes, and calls the callback for it.

    `exception_handler` is called with a callback and the exception that it raised; then the loop goes on.
    Only `call_soon_threadsafe` may be called from another thread.
    """

    def __init__(self) -> None:
        self.exception_handler: Callable[[Callable[..., object], Exception], None] = _raise
        self._selector = selectors.DefaultSelector()
        self._soon: deque[Callable[[], object]] = deque()
        # Sorted by time. There are a handful at the most: a heap, with its module, would be no faster.
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()  # timers for the same instant keep their order, and are never compared
        self._handlers: dict[int, Callable[[], object]] = {}
        self._stopped = False
        self._closed = False
        self._wake_reader, self._wake_writer = os.pipe()
        for end in (self._wake_reader, self._wake_writer):
            os.set_blocking(end, False)
        self.add_reader(self._wake_reader, self._read_wakeups)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._selector.get_map())} descriptors"
        return f"<EventLoop {state}, {len(self._timers)} timers>"

    # --- what to wait for -------------------------------------------------------------------------

    def add_reader(self, file: int | HasFileno, callback: Callable[..., object], *arguments: Any) -> None:
        """Call `callback` whenever `file` can be read or has ended. It replaces an earlier callback."""
        data = (callback, arguments)
        try:
            self._selector.register(file, selectors.EVENT_READ, data)
        except KeyError:
            self._selector.modify(file, selectors.EVENT_READ, data)

    def remove_reader(self, file: int | HasFileno) -> None:
        """Wait for `file` no more. Call this before its descriptor is closed. Without a reader: a no-op."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the next round."""
        self._soon.append(callback)

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call `callback` in the next round. This may be called from any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        if self._closed:
            raise RuntimeError("the arbiter's loop is closed")
        self._soon.append(lambda: callback(*arguments))
        self._wake()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` in `delay` seconds."""
        timer = Timer(callback)
        self._timers = [entry for entry in self._timers if not entry[2].done]
        self._timers.append((time.monotonic() + delay, next(self._numbers), timer))
        self._timers.sort()
        return timer

    def add_signal_handler(self, number: signal.Signals, handler: Callable[[], object]) -> None:
        """Call `handler`, between other callbacks, once for each delivery of a signal. Main thread only."""
        # No warning when the pipe is full: in a flood of signals it makes the process wait for itself
        # (`ostler.system.signals.forgive_full_wakeup`).
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        self._handlers[number] = handler
        signal.signal(number, _do_nothing)  # without a handler, nothing is written to the descriptor
        signal.siginterrupt(number, False)

    def remove_signal_handler(self, number: signal.Signals) -> None:
        """Remove the handler: the signal does nothing. The caller may set its default again."""
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
        """Close the descriptors and forget all callbacks; a second call is a no-op."""
        if self._closed:
            return
        self._closed = True
        self._soon.clear()
        self._timers.clear()
        self._selector.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _round(self) -> None:
        """Sleep until there is something to do; then call what `call_soon` asked for, readers, due timers."""
        events = self._selector.select(self._timeout())
        for _ in range(len(self._soon)):
            self._call(self._soon.popleft())
        for key, _ in events:
            # A callback of this round may have removed or replaced this reader.
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:
                callback, arguments = key.data
                self._call(callback, *arguments)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            call = self._timers.pop(0)[2].take()
            if call is not None:
                self._call(call)

    def _timeout(self) -> float | None:
        """Return how many seconds the loop may sleep; None: until a descriptor can be read."""
        if self._soon:
            return 0
        while self._timers and self._timers[0][2].done:
            del self._timers[0]
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0][0] - time.monotonic()), _LONGEST_SLEEP)

    def _call(self, callback: Callable[..., object], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is handled there
            self.exception_handler(callback, error)

    def _read_wakeups(self) -> None:
        """Read the interpreter's wake-ups: a byte for each signal, its number; 0 is from `_wake`."""
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wake_reader, PIPE_SIZE):
                if (handler := self._handlers.get(number)) is not None:
                    self._call(handler)

    def _wake(self) -> None:
        # A full pipe wakes the loop anyway. A pipe closed meanwhile belongs to a loop that has ended.
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"\0")


def _do_nothing(*_: object) -> None:
    pass


def _raise(callback: Callable[..., object], error: Exception) -> None:
    raise error
