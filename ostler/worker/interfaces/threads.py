"""A pool of daemon threads for one kind of work, which shares no thread with other executors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]


class Threads:
    """Does work in up to `limit` threads, in the order in which it came; a thread starts when none is idle.

    They are daemons, unlike those of concurrent.futures: a thread cannot be cancelled, and one that hangs
    must not keep a process from its end. With the last reference to this object the threads end, too.
    """

    def __init__(self, limit: int, name: str) -> None:
        """`name` is what the threads' names begin with."""
        self._limit = limit
        self._name = name
        self._count = 0
        self._shared = _SharedByThreads()

    def __repr__(self) -> str:
        return f"<Threads {self._count} of {self._limit}, {max(0, -self._shared.idle)} waiting>"

    def submit(self, work: Work) -> None:
        """Have `work`, which must not raise, done as soon as there is a thread for it."""
        shared = self._shared
        with shared.lock:
            shared.idle -= 1
            starts = shared.idle < 0 and self._count < self._limit
            if starts:
                shared.idle += 1
                self._count += 1
        shared.queue.put(work)
        if starts:
            name = f"{self._name}-{self._count}"
            threading.Thread(target=shared.run, name=name, daemon=True).start()

    def __del__(self) -> None:
        for _ in range(self._count):
            self._shared.queue.put(None)


class _SharedByThreads:
    """The state of all threads. It has no reference to `Threads`, so that the end of that can end them."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[Work | None] = SimpleQueue()
        self.lock = threading.Lock()
        self.idle = 0
        """Threads that have nothing to do; below zero, pieces of work that wait for a thread."""

    def run(self) -> None:
        while (work := self.queue.get()) is not None:
            work()
            del work  # or it would live until the next one comes
            with self.lock:
                self.idle += 1
