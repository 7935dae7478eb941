"""How many connections are accepted in one turn of the loop, and how many turns a new client waits."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import socket
from collections.abc import Iterator

import pytest

from ostler.settings.declarations import Settings
from ostler.worker.accept.acceptor import MAX_A_TURN, Acceptor, connector
from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.http.connection import Connection
from ostler.worker.protocols import http_protocol
from ostler.worker.server_state import FirstRequest, ServerState
from tests.worker.harness import PATIENCE, Way, get, hello, respond


class Turns:
    """Counts the turns of a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.number = 0

    def start(self) -> None:
        self.number += 1
        self._loop.call_soon(self.start)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as sock:
        yield sock


@contextlib.contextmanager
def clients(listener: socket.socket, count: int, request: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            opened.append(stack.enter_context(socket.create_connection(listener.getsockname(), PATIENCE)))
            opened[-1].sendall(request)
        yield opened


async def until(condition: asyncio.Event) -> None:
    await asyncio.wait_for(condition.wait(), PATIENCE)


async def end(server_state: ServerState) -> None:
    """Cut all connections, and wait until they are gone."""
    gone = asyncio.Event()
    server_state.on_change = gone.set
    server_state.abort()
    if server_state.connections:
        await until(gone)


def run(way: Way, main: object) -> None:
    with contextlib.closing(way.new_loop()) as loop:
        loop.run_until_complete(main)  # type: ignore[arg-type]


class Neighbours:
    """Other workers; each connection whose number is in `passes` is left to them for a moment."""

    def __init__(self, passes: tuple[int, ...] = ()) -> None:
        self.passes = passes
        self.asked = 0

    def accepted(self) -> None: ...

    def pass_on(self) -> bool:
        self.asked += 1
        return self.asked in self.passes


@pytest.mark.parametrize(
    ("sharing", "most"), [(1, MAX_A_TURN), (4, MAX_A_TURN // 4), (1000, 1)], ids=["alone", "four", "many"]
)
@pytest.mark.parametrize("neighbours", [False, True], ids=["plain", "balanced"])
def test_a_crowd_is_accepted_in_parts_one_a_turn(
    way: Way, listener: socket.socket, sharing: int, most: int, neighbours: bool
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        turns = Turns(loop)
        accepted: list[int] = []
        complete = asyncio.Event()
        count = 2 * most + 1

        async def connect(sock: socket.socket) -> FirstRequest:
            sock.close()
            accepted.append(turns.number)
            if len(accepted) == count:
                complete.set()
            return None

        acceptor = Acceptor(loop, listener, connect, sharing=sharing)
        if neighbours:
            acceptor.balancer = Neighbours()
        with clients(listener, count):
            turns.start()
            acceptor.start()
            await until(complete)
            acceptor.close()
        in_turns = collections.Counter(accepted)
        assert list(in_turns.values()) == [most, most, 1]

    run(way, main())


def test_no_other_worker_is_called_for_a_connection_that_is_not_there(
    way: Way, listener: socket.socket
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted = asyncio.Event()

        async def connect(sock: socket.socket) -> FirstRequest:
            sock.close()
            accepted.set()
            return None

        acceptor = Acceptor(loop, listener, connect)
        acceptor.balancer = neighbours = Neighbours()
        for number in range(1, 4):
            accepted.clear()
            with clients(listener, 1):
                if number == 1:
                    acceptor.start()
                await until(accepted)
            assert neighbours.asked == number
        acceptor.close()

    run(way, main())


def test_a_connection_left_to_another_worker_is_accepted_after_all(way: Way, listener: socket.socket) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted: list[int] = []
        complete = asyncio.Event()

        async def connect(sock: socket.socket) -> FirstRequest:
            sock.close()
            accepted.append(neighbours.asked)
            if len(accepted) == 4:
                complete.set()
            return None

        acceptor = Acceptor(loop, listener, connect)
        acceptor.balancer = neighbours = Neighbours(passes=(2,))
        with clients(listener, 4):
            acceptor.start()
            await until(complete)
        acceptor.close()
        # The second one waited, and was then accepted without another call; so were those after it in turn.
        assert accepted == [1, 2, 3, 4]

    run(way, main())


def test_the_first_request_begins_one_turn_after_its_connection_is_accepted(
    way: Way, listener: socket.socket
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        turns = Turns(loop)
        accepted: list[int] = []
        begun: list[int] = []
        complete = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            begun.append(turns.number)
            await respond(send, b"hello")
            if len(begun) == 3:
                complete.set()

        server_state = ServerState(Settings(http=way.http), app, state={}, loop=loop)  # type: ignore[arg-type]
        connect = connector(server_state, http_protocol(server_state.settings), None)

        async def noting(sock: socket.socket) -> FirstRequest:
            accepted.append(turns.number)
            return await connect(sock)

        acceptor = Acceptor(loop, listener, noting, create_task=server_state.create_task)
        with clients(listener, 3, get()) as opened:
            turns.start()
            acceptor.start()
            await until(complete)
            for client in opened:
                assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        acceptor.close()
        assert begun == [number + 1 for number in accepted]
        assert acceptor.pending == 0
        await end(server_state)

    run(way, main())


@pytest.mark.parametrize("kind", [ValueError, OSError])
def test_an_error_in_the_first_read_cuts_the_connection_and_is_logged(
    way: Way, listener: socket.socket, kind: type[Exception]
) -> None:
    error = kind("a fault")

    class Faulty(Connection):
        def data_received(self, data: bytes) -> None:
            raise error

    async def main() -> None:
        loop = asyncio.get_running_loop()
        logged: list[object] = []
        loop.set_exception_handler(lambda _, context: logged.append(context.get("exception")))
        server_state = ServerState(Settings(http=way.http), hello, state={}, loop=loop)  # type: ignore[arg-type]
        make_connection = http_protocol(server_state.settings)

        make_faulty = functools.partial(Faulty, **make_connection.keywords)  # type: ignore[attr-defined]
        acceptor = Acceptor(loop, listener, connector(server_state, make_faulty, None))
        with clients(listener, 1, get()) as opened:
            acceptor.start()
            opened[0].setblocking(False)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(loop.sock_recv(opened[0], 1000), PATIENCE) == b""
        acceptor.close()
        assert logged == [error]
        assert not server_state.connections
        await end(server_state)

    run(way, main())


def test_a_first_request_that_runs_long_is_no_connection_that_still_has_to_be_made(
    way: Way, listener: socket.socket
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun, release = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            await release.wait()
            await respond(send, b"hello")

        server_state = ServerState(Settings(http=way.http), app, state={}, loop=loop)  # type: ignore[arg-type]
        connect = connector(server_state, http_protocol(server_state.settings), None)
        acceptor = Acceptor(loop, listener, connect, create_task=server_state.create_task)
        with clients(listener, 1, get("/", "Connection: close")) as opened:
            acceptor.start()
            await until(begun)
            assert acceptor.pending == 0
            await acceptor.settled()
            acceptor.abort()  # of what has no protocol yet: not of this request
            await asyncio.sleep(0)
            assert server_state.in_flight == 1
            release.set()
            opened[0].setblocking(False)
            assert (await loop.sock_recv(opened[0], 1000)).startswith(b"HTTP/1.1 200 ")
        acceptor.close()
        await end(server_state)

    run(way, main())


def test_settled_gives_up_a_connection_that_is_not_made_in_time(
    way: Way, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostler.worker.accept.acceptor._CONNECT_GRACE", 0.05)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted = asyncio.Event()
        given_up = []

        async def connect(sock: socket.socket) -> FirstRequest:
            accepted.set()
            with sock:
                try:
                    await loop.create_future()
                finally:
                    given_up.append(sock)
            return None

        acceptor = Acceptor(loop, listener, connect)
        with clients(listener, 1):
            acceptor.start()
            await until(accepted)
            assert acceptor.pending == 1
            await acceptor.settled()
            assert acceptor.pending == 0
            assert given_up
        acceptor.close()

    run(way, main())
