"""When a worker calls another one to take a connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from ostler.ipc.load_board import LoadBoard, SharedQueues
from ostler.settings.declarations import Settings
from ostler.system.pipes import PipeEnd, pipe
from ostler.worker.accept.acceptor import Acceptor
from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.balancing import CALLS, EDGE, Balancer
from ostler.worker.server_state import ServerState


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Never asked."""


class Connection:
    """One that the service counts."""

    def check(self, settled: float) -> None: ...
    def leave(self) -> None: ...
    def on_drain(self) -> None: ...
    def cancel(self) -> None: ...
    def abort(self) -> None: ...


class Worker:
    """The first of two workers, as far as its neighbour is concerned."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        board: LoadBoard,
        calls: PipeEnd,
        callers: tuple[PipeEnd, PipeEnd],
    ) -> None:
        self.server_state = ServerState(Settings(), app, state={}, loop=loop)
        place = SharedQueues(0, ((), ()), board, calls, callers)
        self.balancer = Balancer(place, self.server_state, self._acceptor)
        self.balancer.start()

    def _acceptor(self, sock: socket.socket) -> Acceptor:
        raise AssertionError("there is no other queue")

    def come(self) -> Connection:
        connection = Connection()
        self.server_state.connections.add(connection)
        self.balancer.accepted()
        return connection

    def go(self, connection: Connection) -> None:
        self.server_state.left(connection)


@pytest.fixture
def two() -> Iterator[tuple[Worker, PipeEnd]]:
    """A worker, and where its neighbour reads who calls."""
    with contextlib.ExitStack() as stack:
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        board = LoadBoard(2)
        stack.callback(board.close)
        pairs = [pipe(), pipe()]
        for end in (*pairs[0], *pairs[1]):
            stack.callback(end.close)
        worker = Worker(loop, board, pairs[0][0], (pairs[0][1], pairs[1][1]))
        stack.callback(worker.balancer.close)
        os.set_blocking(pairs[1][0].fileno(), False)
        board.cells[1] = 0
        yield worker, pairs[1][0]


def calls(end: PipeEnd) -> int:
    """How often the neighbour has been called since it was last looked."""
    try:
        return len(os.read(end.fileno(), 4096))
    except BlockingIOError:
        return 0


def test_who_has_more_calls_who_has_less(two: tuple[Worker, PipeEnd]) -> None:
    worker, called = two
    for _ in range(EDGE - 1):
        worker.come()
        assert not worker.balancer.pass_on()
    worker.come()
    assert worker.balancer.pass_on()
    assert calls(called) == 1
    # The one that was called counts as taken, until the other counts for itself.
    assert not worker.balancer.pass_on()


def test_calls_between_two_ticks_are_bounded(two: tuple[Worker, PipeEnd]) -> None:
    worker, called = two
    for _ in range(10 * CALLS):
        worker.come()
    for _ in range(2):
        assert sum(worker.balancer.pass_on() for _ in range(2 * CALLS)) == CALLS
        assert calls(called) == CALLS
        worker.balancer.look()


def test_where_connections_leave_as_they_come_nobody_is_called(two: tuple[Worker, PipeEnd]) -> None:
    worker, called = two
    for _ in range(10 * CALLS):
        worker.come()
    for connection in [worker.come() for _ in range(CALLS)]:
        worker.go(connection)
    assert not worker.balancer.pass_on()
    assert calls(called) == 0
    worker.balancer.look()
    assert worker.balancer.pass_on()
