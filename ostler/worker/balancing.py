"""How the workers of one arbiter share the work: each reads its own queue, and has an eye on the others'.

A queue that nobody reads, because its worker is dead, stopped, blocked or not ready, is emptied by whoever
looks first (`look`). A worker with more connections than another leaves the next one in its queue and calls
that other one (`pass_on`), which takes it (`_called`). So a connection always is in a queue or accepted:
whoever fails, nothing is lost on the way.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from socket import socket

from ostler.ipc.load_board import ABSENT, SharedQueues
from ostler.worker.accept.acceptor import Acceptor
from ostler.worker.server_state import ServerState

GLANCE = 0.5
"""Seconds between two looks at the others' queues."""
AGAIN = 0.1
"""Seconds after which a queue is looked at again that was not empty: its worker may just be busy."""
EDGE = 2
"""How many connections more than the least busy worker one has when it calls for help."""
CALLS = 64
"""Calls for help between two ticks: enough to level out what lasts. Each connection that leaves takes one of
them away: where they come and go by the thousand there is nothing to level out, and calls would cost a fifth
of the throughput (measured)."""
_BATCH = 32
"""Connections taken in a row from another's queue, and then what else is to be done has its turn."""
_SOME = 128
_MOST = 1024
"""How many are taken at one look: some where the queue's worker may just be busy, most where it has gone."""


class Balancer:
    """One worker's dealings with the others' queues.

    `open_` makes an acceptor of a socket. Call `look` about once a second; it sees to the rest.
    """

    def __init__(
        self, place: SharedQueues, server_state: ServerState, open_: Callable[[socket], Acceptor]
    ) -> None:
        self._place = place
        self._own = place.own
        self._server_state = server_state
        self._loop = server_state.loop
        self._cells = place.board.cells
        self._open = 0
        self._calls_left = CALLS
        self._waiting: set[int] = set()
        """Whose queues were not empty at the last look."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closed = False
        self._epoll = select.epoll()
        self._by_fd: dict[int, int] = {}
        self.acceptors: list[Acceptor] = []
        """Of all the other queues. They are not started: they take connections when they are told to."""
        self._queues: list[list[Acceptor]] = []
        for number, sockets in enumerate(place.queues):
            self._queues.append([open_(sock) for sock in sockets])
            self.acceptors += self._queues[number]
            for sock in sockets:
                self._epoll.register(sock.fileno(), select.EPOLLIN)
                self._by_fd[sock.fileno()] = number
        for pipe in (place.calls, *place.callers):
            os.set_blocking(pipe.fileno(), False)

    def start(self) -> None:
        """Begin to heed calls, and let the others see how busy this worker is."""
        self._server_state.on_left = self._left
        self._count()
        self._loop.add_reader(self._place.calls.fileno(), self._called)

    def close(self) -> None:
        """Heed nothing more. The acceptors are for whoever drains."""
        if self._closed:
            return
        self._closed = True
        self._server_state.on_left = None
        # Where a successor has this place already, it counts anew with its next connection or tick.
        self._cells[self._own] = ABSENT
        for timer in self._timers.values():
            timer.cancel()
        self._loop.remove_reader(self._place.calls.fileno())
        self._epoll.close()

    def accepted(self) -> None:
        """Count one more connection."""
        self._open += 1
        if not self._closed:
            self._cells[self._own] = self._open

    def pass_on(self) -> bool:
        """Call another worker, if one has so much less to do; True if so: leave it the next connection."""
        mine = self._open
        if not self._calls_left or self._closed:
            return False
        cells = self._cells.tolist()  # once: they change meanwhile
        least = min(cells)
        if mine < least + EDGE:
            return False
        self._calls_left -= 1
        number = cells.index(least)
        self._cells[number] = least + 1  # so that not all call the same one; it counts for itself soon
        try:
            os.write(self._place.callers[number].fileno(), bytes((self._own,)))
        except (BlockingIOError, BrokenPipeError):
            return False
        return True

    def look(self) -> None:
        """Look at the others' queues now and half a second later, with one system call each."""
        if self._closed:
            return
        self._calls_left = CALLS
        self._count()
        self._glance()
        self._later("glance", GLANCE, self._glance)

    def _left(self) -> None:
        if self._calls_left:
            self._calls_left -= 1
        self._count()

    def _count(self) -> None:
        self._open = len(self._server_state.connections)
        self._cells[self._own] = self._open

    def _later(self, name: str, delay: float, callback: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay, callback)

    def _glance(self) -> None:
        waiting = {self._by_fd[fd] for fd, _ in self._epoll.poll(0)}
        left, self._waiting = waiting & self._waiting, waiting
        if waiting:
            self._later("again", AGAIN, self._glance)
        for number in left:
            self._empty(number, _MOST if self._cells[number] == ABSENT else _SOME)

    def _empty(self, number: int, most: int) -> None:
        """Take what waits in a queue, about `most` at most."""
        if self._closed:
            return
        for acceptor in self._queues[number]:
            for _ in range(_BATCH):
                if not acceptor.accept():
                    break
            else:
                if most > _BATCH:
                    self._loop.call_soon(self._empty, number, most - _BATCH)

    def _called(self) -> None:
        try:
            calls = os.read(self._place.calls.fileno(), 64)
        except BlockingIOError:
            return
        for number in calls:
            if number < len(self._queues) and self._open < self._cells[number] != ABSENT:
                for acceptor in self._queues[number]:
                    if acceptor.accept():
                        break
        self._cells[self._own] = self._open  # whoever called has counted beforehand
