"""Balances connections between the workers of one arbiter, where each worker has listening queues of its own.

Each worker reads its own queues (one for each address), and holds the sockets of all other queues as well.
The kernel chooses a queue for each new connection, at random and without regard to how busy its worker is.
The workers correct that in two ways, and without the arbiter:

**A queue that is not read is emptied.** Its worker may be dead, stopped, blocked or not ready yet. `tick`
looks at all other queues with one epoll_wait(2), and again CHECK_INTERVAL later. A queue that is not empty is
looked at once more after RECHECK_DELAY; if it is still not empty, this worker accepts connections from it.
Several workers may do so at once: each connection is accepted by one of them.

**A busy worker calls a less busy one.** Each worker writes its number of connections to its cell of the load
board, in memory that all share. When a connection waits in its queue, `pass_on` looks for the worker with the
fewest connections. If that has fewer by MIN_DIFFERENCE, this worker writes the number of its queues to the
other's pipe, and leaves the connection in the queue for a moment (`Acceptor` sees to that, and then accepts
the connection itself if it is still there). The other worker accepts it (`_take_calls`).

What must never happen: that a connection has no place. It is always either in a queue or accepted, so
nothing is lost when a call is not answered, or when the worker that was called dies.

The board has no lock. A number there may be old by a moment, and two workers may call the same third one:
that costs a little balance and nothing else. Each worker writes its own cell anew with each connection and
tick. A cell of ABSENT says that no worker reads the queue: none is called there, and more connections are
accepted from it at one look.

An `Acceptor` knows the balancer only as `LoadSharing`: `accepted` and `pass_on`.
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

CHECK_INTERVAL = 0.5
"""Seconds between two looks at the other queues."""
RECHECK_DELAY = 0.1
"""Seconds after which queues are looked at again that were not empty: their workers may just be busy."""
MIN_DIFFERENCE = 2
"""How many connections more than the least busy worker a worker has when it calls that one."""
MAX_CALLS = 64
"""Calls between two ticks: enough to level out a difference that lasts. Each connection that ends takes one
of them away: where connections come and go by the thousand, there is nothing to level out, and calls would
cost a fifth of the throughput (measured)."""
_BATCH = 32
"""Connections accepted in a row from another queue; then the loop's other callbacks have their turn."""
_MAX_FROM_BUSY = 128
"""Connections accepted from another queue at one look if its worker may just be busy."""
_MAX_FROM_ABSENT = 1024
"""Connections accepted from another queue at one look if no worker reads it."""


class Balancer:
    """One worker's part in balancing. Call `start` once, `tick` about once a second, and `close` to drain."""

    def __init__(
        self,
        shared_queues: SharedQueues,
        server_state: ServerState,
        make_acceptor: Callable[[socket], Acceptor],
    ) -> None:
        """Touch neither the loop nor the board yet.

        Args:
            shared_queues: the other workers' queues, the board and the pipes of calls.
            server_state: whose connections are counted.
            make_acceptor: makes an acceptor of another queue's socket, which is not started.
        """
        self._own = shared_queues.own
        self._call_reader = shared_queues.call_reader.fileno()
        self._call_writers = [pipe.fileno() for pipe in shared_queues.call_writers]
        self._shared_queues = shared_queues  # closes its descriptors with the last reference to it
        self._server_state = server_state
        self._loop = server_state.loop
        self._cells = shared_queues.board.cells
        self._connections = 0
        self._calls_left = MAX_CALLS
        self._not_empty: set[int] = set()
        """The numbers of the queues that were not empty at the last look."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closed = False
        self._epoll = select.epoll()
        self._number_by_fd: dict[int, int] = {}
        self.acceptors: list[Acceptor] = []
        """Of all other queues. They are not started: each accepts a connection when the balancer tells it."""
        self._acceptors_by_number: list[list[Acceptor]] = []
        for number, sockets in enumerate(shared_queues.queues):
            self._acceptors_by_number.append([make_acceptor(sock) for sock in sockets])
            self.acceptors += self._acceptors_by_number[number]
            for sock in sockets:
                self._epoll.register(sock.fileno(), select.EPOLLIN)
                self._number_by_fd[sock.fileno()] = number
        for fd in (self._call_reader, *self._call_writers):
            os.set_blocking(fd, False)

    def start(self) -> None:
        """Begin to take calls, and write this worker's number of connections to the board."""
        self._server_state.on_left = self._left
        self._count()
        self._loop.add_reader(self._call_reader, self._take_calls)

    def close(self) -> None:
        """Take no calls and make none any more. The acceptors stay open: the drain closes them."""
        if self._closed:
            return
        self._closed = True
        self._server_state.on_left = None
        # If a successor has this slot already, it writes the cell anew with its next connection or tick.
        self._cells[self._own] = ABSENT
        for timer in self._timers.values():
            timer.cancel()
        self._loop.remove_reader(self._call_reader)
        self._epoll.close()

    def accepted(self) -> None:
        """Count one more connection."""
        self._connections += 1
        if not self._closed:
            self._cells[self._own] = self._connections

    def pass_on(self) -> bool:
        """Call the least busy worker, if it is so much less busy; True if it was called.

        The caller then leaves the next connection in its queue for a moment.
        """
        mine = self._connections
        if not self._calls_left or self._closed:
            return False
        cells = self._cells.tolist()  # one copy: the cells change meanwhile
        least = min(cells)
        if mine < least + MIN_DIFFERENCE:
            return False
        self._calls_left -= 1
        number = cells.index(least)
        self._cells[number] = least + 1  # so that not all workers call this one; it counts for itself soon
        try:
            os.write(self._call_writers[number], bytes((self._own,)))
        except (BlockingIOError, BrokenPipeError):
            return False
        return True

    def tick(self) -> None:
        """Look at the other queues now, and again before the next tick."""
        if self._closed:
            return
        self._calls_left = MAX_CALLS
        self._count()
        self._check_queues()
        self._call_later("check", CHECK_INTERVAL, self._check_queues)

    def _left(self) -> None:
        """A connection has ended."""
        if self._calls_left:
            self._calls_left -= 1
        self._count()

    def _count(self) -> None:
        self._connections = len(self._server_state.connections)
        self._cells[self._own] = self._connections

    def _call_later(self, name: str, delay: float, callback: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay, callback)

    def _check_queues(self) -> None:
        not_empty = {self._number_by_fd[fd] for fd, _ in self._epoll.poll(0)}
        still_not_empty, self._not_empty = not_empty & self._not_empty, not_empty
        if not_empty:
            self._call_later("recheck", RECHECK_DELAY, self._check_queues)
        for number in still_not_empty:
            absent = self._cells[number] == ABSENT
            self._empty(number, _MAX_FROM_ABSENT if absent else _MAX_FROM_BUSY)

    def _empty(self, number: int, most: int) -> None:
        """Accept what waits in a worker's queues, about `most` connections at the most."""
        if self._closed:
            return
        for acceptor in self._acceptors_by_number[number]:
            for _ in range(_BATCH):
                if not acceptor.accept():
                    break
            else:
                if most > _BATCH:
                    self._loop.call_soon(self._empty, number, most - _BATCH)

    def _take_calls(self) -> None:
        """For each call, accept a connection from the queues of the worker that called, if it is busier."""
        try:
            calls = os.read(self._call_reader, 64)
        except BlockingIOError:
            return
        for number in calls:
            if number < len(self._acceptors_by_number) and self._connections < self._cells[number] != ABSENT:
                for acceptor in self._acceptors_by_number[number]:
                    if acceptor.accept():
                        break
        # The workers that called have added what they expected this one to accept.
        self._cells[self._own] = self._connections
