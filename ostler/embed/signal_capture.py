"""Captures SIGINT and SIGTERM while an embedded server runs, then restores the program's handlers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

HANDLED = (signal.SIGINT, signal.SIGTERM)


class SignalCapture:
    """A context in which SIGINT and SIGTERM are passed to `on_signal`.

    After the context, `pass_on()` raises them again, so that the program reacts as it would without a server.
    Python sets signal handlers only in the main thread; so must the context be entered there.

    Several captures can be active at once, for several servers in one loop, and may exit in any order. Each
    of them gets every signal, and the last one to exit passes it on. Each remembers the handler that was
    installed before it; these form a chain that ends at the program's own handler.
    """

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        self._on_signal = on_signal
        self._previous: dict[int, Any] = {}
        self._caught: dict[int, None] = {}
        """The signals that came, in order: a dict, because a set has no order."""
        self._exited = False

    def __enter__(self) -> SignalCapture:
        for number in HANDLED:
            # None: C code has installed the handler, and Python could not restore it.
            if signal.getsignal(number) is not None:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._exited = True
        for number in self._previous:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, self._handler_below(number))

    def pass_on(self) -> None:
        """Raise each captured signal once more, the latest first; call it after the context.

        A signal that another active capture has caught as well is left for that one to pass on.
        """
        for number in reversed(self._caught):
            other = _capture_of(signal.getsignal(number))
            if other is None or number not in other._caught:
                signal.raise_signal(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The program may have kept this handler, and installed it again after the exit.
        if not self._exited:
            self._caught[number] = None
            self._on_signal(number)
        below = self._handler_below(number)
        if _capture_of(below) is not None or (self._exited and callable(below)):
            below(number, frame)

    def _handler_below(self, number: int) -> Any:
        """Return the next handler of the chain, without those of captures that have exited."""
        return next(
            h for h in self._chain(number) if (capture := _capture_of(h)) is None or not capture._exited
        )

    def _chain(self, number: int) -> Iterator[Any]:
        capture: SignalCapture | None = self
        while capture is not None:
            handler = capture._previous[number]
            yield handler
            capture = _capture_of(handler)


def _capture_of(handler: Any) -> SignalCapture | None:
    """Return the capture whose `_handle` this handler is; None for any other handler."""
    capture = getattr(handler, "__self__", None)
    return capture if isinstance(capture, SignalCapture) else None
