"""--limit-connections: what is closed to make room, what is refused, and what counts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ostler.settings.declarations import Settings
from ostler.worker import server as real
from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.connection_limit import SURPLUS
from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.harness import PATIENCE, Client, Server, TlsClient, Way, get, hello, opened, respond
from tests.worker.test_server import Watcher
from tests.worker.websocket import harness as websocket

LIMIT = "Exceeded connection limit."


def idle_clients(server: Server, count: int) -> list[Client]:
    """Return clients that are idle after a request, the longest idle first."""
    clients = []
    for number in range(count):
        client = server.connect()
        assert client.ask(get()).status == 200
        if number % 3 == 0:  # so that some become idle between the same two ticks, and others do not
            server.advance(1.0)
        clients.append(client)
    return clients


def count(server: Server) -> int:
    return len(server.server_state.connections)


def test_a_new_connection_takes_the_place_of_the_one_that_was_idle_the_longest(serve: Serve) -> None:
    server = serve(hello, limit_connections=8, timeout_keep_alive=600)
    first, *others = idle_clients(server, 8)
    assert first.ask(get()).status == 200  # so it is now the one that was idle for the shortest time

    for gone in (*others, first):
        assert server.connect().ask(get()).status == 200
        assert gone.ended()

    server.until(lambda: count(server) == 8)
    assert server.errors.lines == []


def test_a_connection_with_a_request_in_progress_or_half_a_head_is_not_closed(serve: Serve) -> None:
    release = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await opened(release.is_set)
        await respond(send, b"done")

    server = serve(app, limit_connections=3, timeout_keep_alive=600, timeout_request_header=600)
    half, busy, idle = idle_clients(server, 3)
    half.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
    busy.send(get("/slow"))
    server.until(lambda: server.server_state.in_flight == 1)

    assert server.connect().ask(get("/", "Connection: close")).status == 200
    assert idle.ended()
    server.until(lambda: count(server) == 2)
    filling = server.connect()
    assert filling.ask(get()).status == 200
    filling.send(get("/slow"))
    server.until(lambda: server.server_state.in_flight == 2)
    refused = server.connect()
    answer = refused.ask(get())
    assert (answer.status, answer.body, answer.keeps) == (503, b"Service Unavailable", False)
    assert refused.ended()
    assert server.errors.lines == [LIMIT]

    half.send(b"\r\n")
    assert half.answer().status == 200
    release.set()
    assert [client.answer().status for client in (busy, filling)] == [200, 200]


def test_a_surplus_connection_is_served_if_there_is_room_by_its_first_request(serve: Serve) -> None:
    server = serve(hello, limit_connections=2, timeout_keep_alive=600)
    silent = [server.connect() for _ in range(2)]
    server.until(lambda: count(server) == 2)
    surplus = server.connect()
    server.until(lambda: count(server) == 3)
    assert silent[0].ask(get()).status == 200  # it came before the surplus one

    assert surplus.ask(get()).status == 200
    assert silent[0].ended()  # it had become idle
    assert silent[1].ask(get()).status == 200
    assert server.errors.lines == []


def test_websockets_count_and_are_never_closed_to_make_room(serve: Serve) -> None:
    server = serve(websocket.echo, limit_connections=1)
    client = websocket.opened(server)

    assert server.connect().ask(get()).status == 503
    assert server.connect().ask(websocket.request()).status == 503

    client.text("still here")
    assert client.read_text() == "still here"


def test_health_checks_are_answered_above_the_limit(serve: Serve) -> None:
    server = serve(hello, limit_connections=1, health_path="/healthz")
    silent = server.connect()
    server.until(lambda: count(server) == 1)

    assert server.connect().ask(get("/healthz", "Connection: close")).status == 200
    assert server.connect().ask(get()).status == 503
    assert silent.ask(get()).status == 200


def test_far_above_the_limit_connections_are_closed_unanswered(serve: Serve) -> None:
    server = serve(hello, limit_connections=1, proxy_protocol=True, forwarded_allow_ips="127.0.0.1")
    silent = [server.connect() for _ in range(1 + SURPLUS)]
    server.until(lambda: server.server_state.arriving == 1 + SURPLUS)

    for _ in range(3):
        assert server.connect().ended()

    assert server.errors.lines == [f"{LIMIT[:-1]}: connections are closed unanswered."]
    for client in silent:
        client.close()
    server.until(lambda: not server.server_state.arriving)
    assert server.connect().ask(b"PROXY TCP4 203.0.113.9 10.0.0.1 5678 443\r\n" + get()).status == 200


def test_connections_accepted_in_one_turn_count_each_other(serve: Serve) -> None:
    server = serve(hello, limit_connections=1)
    server.socket.listen(1000)
    held = threading.Event()
    server.loop.call_soon_threadsafe(held.wait, PATIENCE)  # the loop finds all of the crowd at once
    crowd = [server.connect() for _ in range(1 + SURPLUS + 100)]
    held.set()

    for client in crowd[1 + SURPLUS :]:
        assert client.ended()
    server.until(lambda: count(server) == 1 + SURPLUS)
    assert server.errors.lines == [f"{LIMIT[:-1]}: connections are closed unanswered."]


def test_a_crowd_whose_requests_have_arrived_is_answered(way: Way) -> None:
    async def main() -> set[bytes]:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        address = listener.getsockname()
        watcher = Watcher()
        settings = Settings(http=way.http, limit_connections=1)  # type: ignore[arg-type]
        server = real.Server(settings, hello, [listener], watcher, owns_sockets=True)
        serving = loop.create_task(server.serve())
        await asyncio.wait_for(watcher.is_ready.wait(), PATIENCE)
        with contextlib.ExitStack() as stack:
            crowd = []
            for _ in range(3 * SURPLUS):  # the loop finds all of them at once
                client = stack.enter_context(socket.create_connection(address, PATIENCE))
                client.sendall(get("/", "Connection: close"))
                client.setblocking(False)
                crowd.append(client)
            answers = {
                (await asyncio.wait_for(loop.sock_recv(client, 1000), PATIENCE))[:12] for client in crowd
            }
        server.stop()
        await asyncio.wait_for(serving, PATIENCE)
        await server.clear()
        return answers

    with contextlib.closing(way.new_loop()) as loop:
        answers = loop.run_until_complete(main())
    assert answers <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls_connect(authority: Authority) -> Iterator[Callable[[Server], TlsClient]]:
    """Connects over TLS; the clients are closed after the test."""
    clients: list[TlsClient] = []
    trust = authority.client()

    def connect(server: Server) -> TlsClient:
        clients.append(TlsClient(server.address, trust))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_over_tls_an_idle_connection_gives_way_and_a_busy_one_does_not(
    serve: Serve, authority: Authority, tls_connect: Callable[[Server], TlsClient]
) -> None:
    release = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await opened(release.is_set)
        await respond(send, b"done")

    server = serve(app, limit_connections=2, timeout_keep_alive=600, **authority.files)
    clients = [tls_connect(server) for _ in range(2)]
    for client in clients:
        assert client.ask(get()).status == 200
        server.advance(1.0)

    newest = tls_connect(server)
    assert newest.ask(get()).status == 200
    assert clients[0].ended()
    for client in (clients[1], newest):
        client.send(get("/slow"))
    server.until(lambda: server.server_state.in_flight == 2)
    assert tls_connect(server).ask(get()).status == 503

    release.set()
    assert [client.answer().body for client in (clients[1], newest)] == [b"done", b"done"]
    assert server.errors.lines == [LIMIT]


def test_half_a_tls_handshake_counts_as_a_connection_and_not_as_a_request(
    serve: Serve, authority: Authority, tls_connect: Callable[[Server], TlsClient]
) -> None:
    server = serve(hello, limit_connections=2, limit_concurrency=1, **authority.files)
    silent = [server.connect() for _ in range(2)]
    silent[0].send(b"\x16\x03\x01")
    server.until(lambda: server.server_state.arriving == 2)

    assert tls_connect(server).ask(get()).status == 503
    for client in silent:
        client.close()
    server.until(lambda: not server.server_state.arriving)
    assert tls_connect(server).ask(get()).status == 200


@pytest.mark.parametrize("tls", [True, False])
def test_those_that_came_when_there_was_room_are_served_whoever_comes_meanwhile(
    serve: Serve, authority: Authority, tls: bool
) -> None:
    """A crowd took the places of all, itself included, as long as its handshakes were under way."""
    files = authority.files if tls else {"proxy_protocol": True, "forwarded_allow_ips": "127.0.0.1"}
    server = serve(hello, limit_connections=1, **files)
    first = server.connect()
    server.until(lambda: server.server_state.arriving == 1)
    crowd = [server.connect() for _ in range(5)]
    server.until(lambda: server.server_state.arriving == 6)

    if tls:
        with authority.client().wrap_socket(first.socket, server_hostname="localhost") as secure:
            secure.sendall(get())
            assert secure.recv(12) == b"HTTP/1.1 200"
    else:
        first.send(b"PROXY TCP4 203.0.113.9 10.0.0.1 5678 443\r\n")
        server.until(lambda: count(server) == 1)
        late = crowd[0].ask(b"PROXY TCP4 203.0.113.9 10.0.0.1 5679 443\r\n" + get())
        assert late.status == 503
        assert first.ask(get()).status == 200
    for client in crowd:
        client.close()


def test_the_two_limits_are_independent(serve: Serve) -> None:
    server = serve(hello, limit_connections=8, limit_concurrency=1, timeout_keep_alive=600)
    clients = idle_clients(server, 8)

    assert [client.ask(get()).status for client in clients] == [200] * 8
    assert count(server) == 8
