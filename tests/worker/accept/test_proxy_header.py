"""--proxy-protocol: which peers are trusted, what scope and access log then say, and what is closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from ostler.worker.accept.proxy_header import take_header
from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.proxies.proxy_protocol import Origin
from ostler.worker.proxies.trusted import TrustedProxies
from tests.worker.conftest import Serve
from tests.worker.harness import PATIENCE, Server, Way, echo, get, hello, post, respond
from tests.worker.proxies.test_proxy_protocol import UNIX, V4, V6, ssl, v2

V1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 5678 443\r\n"


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what the scope says of the client."""
    await respond(send, repr((scope["client"], scope["scheme"])).encode())


@pytest.fixture
def behind_proxy(serve: Serve) -> Any:
    """Serve with --proxy-protocol, trusting `allowed` in all."""

    def start(app: Any = tell, allowed: str = "127.0.0.1", *, headers: bool = True, **options: Any) -> Server:
        proxies = TrustedProxies(allowed) if headers else None
        return serve(app, proxy_protocol=True, forwarded_allow_ips=allowed, proxies=proxies, **options)

    return start


def until_settled(server: Server) -> None:
    """Wait until each accepted socket has become a connection or is closed."""
    acceptor: Any = server._server
    server.until(lambda: not acceptor.pending and not server.server_state.connections)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (V1, (("203.0.113.9", 5678), "http")),
        (b"PROXY TCP6 2001:db8::7 ::1 5678 443\r\n", (("2001:db8::7", 5678), "http")),
        (v2(V4, 0x11), (("203.0.113.9", 5678), "http")),
        (v2(V6, 0x21), (("2001:db8::7", 5678), "http")),
        (v2(V4 + ssl(1), 0x11), (("203.0.113.9", 5678), "https")),
        (v2(UNIX, 0x31), (None, "http")),
    ],
    ids=["v1", "v1 over IPv6", "v2", "v2 over IPv6", "v2 with TLS", "v2 over a Unix socket"],
)
def test_the_header_gives_the_client(behind_proxy: Any, header: bytes, expected: object) -> None:
    server = behind_proxy()
    client = server.connect()

    assert client.ask(header + get()).body == repr(expected).encode()
    assert client.ask(get("/again")).body == repr(expected).encode()  # once for each connection
    shown = "" if expected[0] is None else "{}:{}".format(*expected[0])  # type: ignore[index]
    assert server.access.lines == [f'{shown} - "GET / HTTP/1.1" 200', f'{shown} - "GET /again HTTP/1.1" 200']


@pytest.mark.parametrize("header", [V1, v2(V4 + ssl(0), 0x11)], ids=["v1", "v2"])
def test_a_header_may_be_cut_at_any_byte_and_nothing_behind_it_is_taken(way: Way, header: bytes) -> None:
    data = header + get()
    loop = way.new_loop()

    async def receive(cut: int) -> tuple[Origin, bytes]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            taking = loop.create_task(take_header(loop, ours, loop.time() + PATIENCE))
            theirs.send(data[:cut])
            # A socket has no event for that; `taking` ends at its own deadline.
            while not empty(ours) and not taking.done():  # noqa: ASYNC110
                await asyncio.sleep(0)
            theirs.send(data[cut:])
            return await taking, ours.recv(1000)

    with contextlib.closing(loop):
        for cut in range(1, len(header)):
            origin, rest = loop.run_until_complete(receive(cut))
            assert origin.client == ("203.0.113.9", 5678)
            assert rest == get()


def empty(sock: socket.socket) -> bool:
    """Whether everything that has arrived is taken."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    return False


def test_a_body_after_the_header_arrives(behind_proxy: Any) -> None:
    answer = behind_proxy(echo).ask(V1 + post(body=b"x" * 100_000))

    assert answer.body == b"POST / " + b"x" * 100_000


@pytest.mark.parametrize("header", [v2(b"", 0, 0x20), v2(V4, 0x11, 0x20)], ids=["bare", "with a block"])
def test_a_proxy_that_connects_for_itself_is_the_client_and_is_trusted(
    behind_proxy: Any, header: bytes
) -> None:
    client = behind_proxy().connect()
    own = client.socket.getsockname()

    assert client.ask(header + get()).body == repr((own, "http")).encode()
    assert b"6.6.6.6" in client.ask(get("/", "X-Forwarded-For: 6.6.6.6")).body


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", v2(b"", 0), v2(V4, 0x12)])
def test_forwarding_fields_of_an_unknown_client_do_not_count(behind_proxy: Any, header: bytes) -> None:
    client = behind_proxy(allowed="127.0.0.1, *").connect()
    own = client.socket.getsockname()

    body = client.ask(header + get("/", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")).body

    assert body == repr((own, "http")).encode()


@pytest.mark.parametrize(
    ("allowed", "believed"),
    [
        ("127.0.0.1", False),
        ("127.0.0.1, 203.0.113.0/24", True),  # a CDN before the balancer
        ("*", False),  # it trusts every peer, not every client behind a peer
        ("*, 203.0.113.9", True),
    ],
)
def test_forwarding_fields_count_if_the_client_of_the_header_is_a_trusted_proxy_by_name(
    behind_proxy: Any, allowed: str, believed: bool
) -> None:
    request = get("/", "X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https")

    body = behind_proxy(allowed=allowed).ask(V1 + request).body

    expected = (("198.51.100.1", 0), "https") if believed else (("203.0.113.9", 5678), "http")
    assert body == repr(expected).encode()


def test_the_header_counts_where_forwarding_fields_are_switched_off(behind_proxy: Any) -> None:
    server = behind_proxy(allowed="127.0.0.1, 203.0.113.9", headers=False)

    body = server.ask(V1 + get("/", "X-Forwarded-For: 6.6.6.6")).body

    assert body == repr((("203.0.113.9", 5678), "http")).encode()


def test_a_trusted_peer_on_a_unix_socket_may_send_a_header(behind_proxy: Any, tmp_path: Path) -> None:
    server = behind_proxy(allowed="unix:", uds=str(tmp_path / "a.sock"))

    assert b"203.0.113.9" in server.ask(V1 + get()).body


@pytest.mark.parametrize("data", [V1 + get(), get()], ids=["with a header", "without"])
@pytest.mark.parametrize("allowed", ["10.0.0.0/8", ""])
def test_a_peer_that_is_not_trusted_is_closed_with_one_line(
    behind_proxy: Any, allowed: str, data: bytes
) -> None:
    server = behind_proxy(allowed=allowed)
    client = server.connect()

    assert client.ended()
    until_settled(server)
    assert server.errors.lines == [
        "Connection from 127.0.0.1 closed: the peer is not in --forwarded-allow-ips"
    ]
    assert server.access.lines == []


def test_a_peer_on_a_unix_socket_is_closed_if_it_is_not_trusted(behind_proxy: Any, tmp_path: Path) -> None:
    server = behind_proxy(uds=str(tmp_path / "a.sock"))

    assert server.connect().ended()
    assert server.errors.lines == [
        "Connection from unix socket closed: the peer is not in --forwarded-allow-ips"
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HT", "it does not begin with a PROXY protocol header"),
        (b"PROXY TCP4 a b c d\r\n", "its PROXY line is malformed"),
        (b"PROXY UNKNOWN " + b"x" * 93, "its PROXY line is longer than 107 bytes"),
        (v2(V4, 0x99), "its PROXY header has the unknown family and protocol 0x99"),
        (v2(bytes(5000), 0x11)[:16], "its PROXY header is longer than 4096 bytes"),
    ],
)
def test_a_wrong_header_is_closed_with_one_line(behind_proxy: Any, data: bytes, reason: str) -> None:
    server = behind_proxy()
    client = server.connect()
    client.send(data)

    assert client.ended()
    until_settled(server)
    assert server.errors.lines == [f"Connection from 127.0.0.1 closed: {reason}"]


def test_a_second_header_is_not_a_request(behind_proxy: Any) -> None:
    assert behind_proxy().ask(V1 + V1 + get()).status == 400


def test_a_header_that_takes_too_long_is_closed(behind_proxy: Any) -> None:
    server = behind_proxy(timeout_request_header=0.3)
    client = server.connect()
    client.send(V1[:10])

    assert client.ended()
    assert server.errors.lines == ["Connection from 127.0.0.1 closed: the PROXY header took too long"]


def test_after_its_header_a_connection_has_the_deadlines_of_any_other(behind_proxy: Any) -> None:
    server = behind_proxy(timeout_request_header=5)
    client = server.connect()
    client.send(V1 + b"GET /")
    server.until(lambda: any("203.0.113.9" in repr(c) for c in server.server_state.connections))

    server.advance(6)

    assert client.answer().status == 408


@pytest.mark.parametrize("way_out", ["says nothing", "leaves at once"])
def test_a_check_of_the_port_leaves_no_line(behind_proxy: Any, way_out: str) -> None:
    server = behind_proxy(timeout_request_header=0.3)
    client = server.connect()

    if way_out == "leaves at once":
        client.finish_sending()

    assert client.ended()
    until_settled(server)
    assert server.errors.lines == []


def test_a_peer_that_leaves_within_its_header_leaves_one_line(behind_proxy: Any) -> None:
    server = behind_proxy()
    client = server.connect()
    client.send(V1[:20])
    client.finish_sending()

    assert client.ended()
    assert server.errors.lines == ["Connection from 127.0.0.1 closed: it ended within the PROXY header"]


def test_a_connection_accepted_before_a_drain_is_still_served(behind_proxy: Any) -> None:
    server = behind_proxy()
    acceptor: Any = server._server
    client = server.connect()
    server.until(lambda: acceptor.pending == 1)

    server.call(acceptor.finish)
    server.call(server.server_state.drain)
    answer = client.ask(V1 + get())

    assert b"203.0.113.9" in answer.body
    assert not answer.keeps
    assert client.ended()
    server.until(lambda: not server.server_state.connections)
    assert acceptor.pending == 0


def test_a_connection_without_its_header_does_not_hold_up_a_drain_for_long(behind_proxy: Any) -> None:
    server = behind_proxy()
    acceptor: Any = server._server
    client = server.connect()
    server.until(lambda: acceptor.pending == 1)

    server.wait(acceptor.settled())

    assert acceptor.pending == 0
    assert client.ended()
    assert server.errors.lines == []


def test_a_connection_without_its_header_is_closed_when_the_server_ends(behind_proxy: Any) -> None:
    server = behind_proxy()
    acceptor: Any = server._server
    client = server.connect()
    client.send(V1[:5])
    server.until(lambda: acceptor.pending == 1)

    server.call(acceptor.abort)

    with contextlib.suppress(ConnectionResetError):
        assert client.ended()
    until_settled(server)
    assert server.errors.lines == []


def test_without_the_option_a_header_is_not_a_request(serve: Serve) -> None:
    server = serve(hello, proxies=TrustedProxies("127.0.0.1"))

    assert server.ask(V1 + get()).status == 400


def test_a_connection_whose_header_has_not_come_counts_for_the_limit_of_connections(
    behind_proxy: Any,
) -> None:
    server = behind_proxy(limit_connections=3, limit_concurrency=1)
    silent = [server.connect() for _ in range(3)]
    server.until(lambda: server.server_state.arriving == 3)

    assert server.connect().ask(V1 + get()).status == 503

    for client in silent:
        client.socket.close()
    server.until(lambda: server.server_state.arriving == 0)
    assert server.connect().ask(V1 + get()).status == 200
