"""When a worker calls another one to take a connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from math import inf

import pytest

from ostler.ipc.load_board import LoadBoard, SharedQueues
from ostler.settings.declarations import Settings
from ostler.system.pipes import PipeEnd, pipe
from ostler.worker.accept.acceptor import Acceptor
from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.balancing import MAX_CALLS, MIN_DIFFERENCE, Balancer
from ostler.worker.server_state import ServerState


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Is never called."""


class Connection:
    """A connection that the server counts."""

    last_request = 0
    idle_until = inf

    def give_way(self) -> bool:
        return False

    def check(self, settled: float) -> None: ...
    def leave(self) -> None: ...
    def on_drain(self) -> None: ...
    def limit_idle(self, latest: float) -> None: ...
    def cancel(self) -> None: ...
    def abort(self) -> None: ...


class Worker:
    """The first of two workers, as far as the other one can see it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        board: LoadBoard,
        call_reader: PipeEnd,
        call_writers: tuple[PipeEnd, PipeEnd],
    ) -> None:
        self.server_state = ServerState(Settings(), app, state={}, loop=loop)
        shared_queues = SharedQueues(0, ((), ()), board, call_reader, call_writers)
        self.balancer = Balancer(shared_queues, self.server_state, self._make_acceptor)
        self.balancer.start()

    def _make_acceptor(self, sock: socket.socket) -> Acceptor:
        raise AssertionError("there is no other queue")

    def open(self) -> Connection:
        connection = Connection()
        self.server_state.connections.add(connection)
        self.balancer.accepted()
        return connection

    def close(self, connection: Connection) -> None:
        self.server_state.left(connection)


@pytest.fixture
def two() -> Iterator[tuple[Worker, PipeEnd]]:
    """A worker, and the pipe on which the other worker is called."""
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
    """How often the other worker has been called since this was last read."""
    try:
        return len(os.read(end.fileno(), 4096))
    except BlockingIOError:
        return 0


def test_a_worker_with_more_connections_calls_one_with_fewer(two: tuple[Worker, PipeEnd]) -> None:
    worker, called = two
    for _ in range(MIN_DIFFERENCE - 1):
        worker.open()
        assert not worker.balancer.pass_on()
    worker.open()
    assert worker.balancer.pass_on()
    assert calls(called) == 1
    # The connection counts as accepted by the other worker, until that one counts for itself.
    assert not worker.balancer.pass_on()


def test_calls_between_two_ticks_are_bounded(two: tuple[Worker, PipeEnd]) -> None:
    worker, called = two
    for _ in range(10 * MAX_CALLS):
        worker.open()
    for _ in range(2):
        assert sum(worker.balancer.pass_on() for _ in range(2 * MAX_CALLS)) == MAX_CALLS
        assert calls(called) == MAX_CALLS
        worker.balancer.tick()


def test_where_connections_end_as_they_come_no_worker_is_called(two: tuple[Worker, PipeEnd]) -> None:
    worker, called = two
    for _ in range(10 * MAX_CALLS):
        worker.open()
    for connection in [worker.open() for _ in range(MAX_CALLS)]:
        worker.close(connection)
    assert not worker.balancer.pass_on()
    assert calls(called) == 0
    worker.balancer.tick()
    assert worker.balancer.pass_on()
