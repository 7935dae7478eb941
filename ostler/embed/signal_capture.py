"""The signals of a process that is not ours: taken while a server runs in it, and given back afterwards."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Captured:
    """A context in which SIGINT and SIGTERM go to `order`; for the main thread, as all of Python's signals.

    After it `pass_on()` lets what came have the effect that it would have had without us. Several may be
    entered at once and left in any order, as servers in one loop are: all of them get each signal, and
    the last one passes it on.
    """

    def __init__(self, order: Callable[[int], None]) -> None:
        self._order = order
        self._previous: dict[int, Any] = {}
        self._caught: dict[int, None] = {}
        self._over = False

    def __enter__(self) -> Captured:
        for number in HANDLED:
            # None: installed by C code, which nothing here could give back.
            if signal.getsignal(number) is not None:
                self._previous[number] = signal.signal(number, self._heed)
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for number in self._previous:
            if signal.getsignal(number) == self._heed:
                signal.signal(number, self._beneath(number))

    def pass_on(self) -> None:
        """Raise what was caught once more, now that the handlers are those of before; the last one first."""
        for number in reversed(self._caught):
            other = _owner(signal.getsignal(number))
            if other is None or number not in other._caught:
                signal.raise_signal(number)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        # Somebody may have kept this handler, and put it back after we have gone.
        if not self._over:
            self._caught[number] = None
            self._order(number)
        beneath = self._beneath(number)
        if _owner(beneath) is not None or (self._over and callable(beneath)):
            beneath(number, frame)

    def _beneath(self, number: int) -> Any:
        """The handler of before, or of before that, where its owner has gone since."""
        return next(h for h in self._chain(number) if (owner := _owner(h)) is None or not owner._over)

    def _chain(self, number: int) -> Iterator[Any]:
        owner: Captured | None = self
        while owner is not None:
            handler = owner._previous[number]
            yield handler
            owner = _owner(handler)


def _owner(handler: Any) -> Captured | None:
    """Whose handler that is, when it is one of these."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Captured) else None
