"""Threads for one kind of work alone: nobody else's executor takes them, or has to wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]


class Threads:
    """Does work in up to `limit` threads, in the order in which it came; a thread begins when none is idle.

    They are daemons, unlike those of concurrent.futures: a thread cannot be cancelled, and one that hangs
    must not keep a process from its end. With the last reference to this object the threads end, too.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._count = 0
        self._crew = _Crew()

    def __repr__(self) -> str:
        return f"<Threads {self._count} of {self._limit}, {max(0, -self._crew.idle)} waiting>"

    def submit(self, work: Work) -> None:
        """Have `work`, which must not raise, done as soon as there is a thread for it."""
        crew = self._crew
        with crew.lock:
            crew.idle -= 1
            begin = crew.idle < 0 and self._count < self._limit
            if begin:
                crew.idle += 1
                self._count += 1
        crew.queue.put(work)
        if begin:
            name = f"{self._name}-{self._count}"
            threading.Thread(target=crew.toil, name=name, daemon=True).start()

    def __del__(self) -> None:
        for _ in range(self._count):
            self._crew.queue.put(None)


class _Crew:
    """What the threads share. It does not know the `Threads` whose end is to end them."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[Work | None] = SimpleQueue()
        self.lock = threading.Lock()
        self.idle = 0
        """Threads that have nothing to do; below zero, the work that waits for one."""

    def toil(self) -> None:
        while (work := self.queue.get()) is not None:
            work()
            del work  # or it would live until the next one comes
            with self.lock:
                self.idle += 1
