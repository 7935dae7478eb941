"""The TLS handshake: which clients are refused and how, and the PROXY header before it."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from ostler.worker.asgi import Receive, Scope, Send
from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.harness import Server, TlsClient, Way, echo, get, hello, post, read_body, respond
from tests.worker.proxies.test_proxy_protocol import V4, V6, v2
from tests.worker.proxies.test_proxy_protocol import ssl as tlv

WAYS = (Way("httptools", "uvloop"), Way("h11", "asyncio"))
V1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 5678 443\r\n"


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what the scope says of the client."""
    await respond(send, repr((scope["client"], scope["scheme"])).encode())


def test_a_missing_certificate_that_is_required_is_one_line(serve: Serve, authority: Authority) -> None:
    server = serve(hello, **{**authority.mutual, "ssl_cert_reqs": "required"})
    assert TlsClient(server.address, authority.client()).refused()

    server.until(lambda: server.errors.lines)
    assert server.errors.lines == ["Connection from 127.0.0.1 closed: it shows no certificate"]


def test_a_certificate_of_an_unknown_authority_is_one_line(serve: Serve, authority: Authority) -> None:
    server = serve(hello, **authority.mutual)
    stranger = type(authority.ca)().issue_cert("client.example")
    assert TlsClient(server.address, authority.client(stranger)).refused()

    server.until(lambda: server.errors.lines)
    [line] = server.errors.lines
    assert line.startswith("Connection from 127.0.0.1 closed: its certificate is refused (")


def test_httpx_and_alpn(serve: Serve, authority: Authority) -> None:
    server = serve(echo, **authority.files)
    trust = authority.client()
    with httpx.Client(verify=trust, trust_env=False) as client:
        url = server.url.replace("127.0.0.1", "localhost")
        assert client.post(f"{url}/a", content=b"x" * 300_000).content == b"POST /a " + b"x" * 300_000
        assert client.get(url).content == b"GET / "
    trust.set_alpn_protocols(["h2", "http/1.1"])
    peer = TlsClient(server.address, trust)
    assert peer.socket.selected_alpn_protocol() == "http/1.1"  # type: ignore[attr-defined]
    peer.close()


def test_a_plain_http_request_gets_a_400_that_says_why(serve: Serve, authority: Authority) -> None:
    server = serve(hello, **authority.files)
    client = server.connect()
    answer = client.ask(post("/", body=b"x" * 100_000))

    assert (answer.status, answer.body) == (400, b"This port speaks TLS: the request must be https.\n")
    assert client.ended()
    assert len(server.errors.lines) == 1


def test_garbage_an_old_version_and_a_client_that_leaves_are_not_logged(
    serve: Serve, authority: Authority
) -> None:
    server = serve(hello, trust=authority.client(), **authority.files)
    old = authority.client()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("AES128-SHA:@SECLEVEL=0")  # nothing in common
    with pytest.raises((ssl.SSLError, ConnectionError)):
        TlsClient(server.address, old)
    for noise in (b"\x16\x03\x01\x00\x05hello", b"\x80\x2e\x01\x00\x02", b"\0\0\0\0", b"\x16\x03\x01"):
        with socket.create_connection(server.address) as peer:
            peer.sendall(noise)
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(10)
            with suppress(ConnectionError):
                while peer.recv(1000):
                    pass
    socket.create_connection(server.address).close()

    assert server.ask(get()).status == 200
    server.until(lambda: not server._server.pending)
    assert not server.errors.tracebacks
    assert [r.levelname for r in server.errors.kept if r.levelno > 10] == []


def test_a_silent_client_and_half_a_handshake_are_closed_in_time(serve: Serve, authority: Authority) -> None:
    server = serve(hello, timeout_request_header=0.3, **authority.files)
    for begun in (b"", b"\x16\x03\x01"):
        with socket.create_connection(server.address) as peer:
            peer.settimeout(10)
            peer.sendall(begun)
            with suppress(ConnectionResetError):
                assert peer.recv(1) == b""
    server.until(lambda: not server._server.pending)
    assert [r.levelname for r in server.errors.kept if r.levelno > 10] == []


def test_slow_handshakes_do_not_delay_other_connections_nor_a_drain_for_long(
    serve: Serve, authority: Authority
) -> None:
    server = serve(hello, trust=authority.client(), **authority.files)
    stuck = [socket.create_connection(server.address) for _ in range(20)]
    for peer in stuck[10:]:
        peer.sendall(b"\x16\x03\x01")
    assert server.ask(get()).status == 200
    acceptor: Any = server._server
    server.until(lambda: acceptor.pending == 20)

    server.wait(acceptor.settled())

    assert acceptor.pending == 0
    for peer in stuck:
        peer.close()


def test_a_refusal_is_read_by_a_client_that_is_still_sending(serve: Serve, authority: Authority) -> None:
    server = serve(hello, trust=authority.client(), limit_request_head=1024, **authority.files)
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    for _ in range(30):
        client.send(b"x" * 65_536)
    assert client.answer().status == 400
    assert client.ended()
    client = server.connect()
    client.send(get("/", "X: " + "x" * 2000))
    assert client.answer().status == 431
    assert client.ended()


def test_a_client_that_reads_slowly_gets_all_of_it(serve: Serve, authority: Authority) -> None:
    size = 3_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"x" * size, 200, (b"connection", b"close"))

    server = serve(app, trust=authority.client(), **authority.files)
    client = server.connect(receive_buffer=8192)
    client.send(get())
    client.until(b"\r\n\r\n")
    for _ in range(12):  # each look is past the deadline of the one before, and sees progress
        client.take(10_000)
        server.advance(6)
    assert len(client.rest()) == size - 120_000


def test_a_large_upload_waits_for_the_app(serve: Serve, authority: Authority) -> None:
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        from tests.worker.harness import opened

        await opened(go.is_set)
        await respond(send, b"%d" % len(await read_body(receive)))

    server = serve(app, trust=authority.client(), **authority.files)
    client = server.connect()
    sender = threading.Thread(target=client.send, args=(post(body=b"x" * 10_000_000),))
    sender.start()
    server.until(lambda: server.server_state.in_flight)
    go.set()
    sender.join()  # one SSLSocket is not for two threads at once
    assert client.answer().body == b"10000000"


def test_a_new_certificate_is_for_new_connections(serve: Serve, authority: Authority) -> None:
    server = serve(hello, trust=authority.client(), **authority.files)
    before = server.connect()
    new = authority.certify()
    assert server.credentials is not None
    server.call(server.credentials.renew)
    after = server.connect()

    assert isinstance(before, TlsClient)
    assert isinstance(after, TlsClient)
    assert before.shown != new == after.shown
    assert before.ask(get()).status == after.ask(get()).status == 200


def test_a_unix_socket_speaks_tls(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    server = serve(hello, uds=str(tmp_path / "a.sock"), **authority.files)
    client = TlsClient(server.address, authority.client())
    assert client.ask(get()).body == b"hello"
    client.close()


# -- the PROXY protocol before the handshake


@pytest.fixture
def behind_proxy(serve: Serve, authority: Authority) -> Any:
    def start(app: Any, allowed: str = "127.0.0.1", **options: Any) -> Server:
        options = {**authority.files, **options}
        return serve(app, proxy_protocol=True, forwarded_allow_ips=allowed, **options)

    return start


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (V1, ("203.0.113.9", 5678)),
        (b"PROXY TCP6 2001:db8::7 ::1 5678 443\r\n", ("2001:db8::7", 5678)),
        (v2(V4, 0x11), ("203.0.113.9", 5678)),
        (v2(V4 + tlv(0), 0x11), ("203.0.113.9", 5678)),
        (v2(V6, 0x21), ("2001:db8::7", 5678)),
    ],
    ids=["v1", "v1 over IPv6", "v2", "v2 with TLVs", "v2 over IPv6"],
)
def test_the_header_before_the_handshake_gives_the_client(
    behind_proxy: Any, authority: Authority, header: bytes, client: object
) -> None:
    server = behind_proxy(tell)
    peer = TlsClient(server.address, authority.client(), before=header)
    assert peer.ask(get()).body == repr((client, "https")).encode()
    assert peer.ask(get()).body == repr((client, "https")).encode()
    peer.close()


@pytest.mark.parametrize("header", [V1, v2(V4 + tlv(0), 0x11)], ids=["v1", "v2"])
def test_a_header_in_pieces_is_read_to_its_last_byte_and_no_further(
    behind_proxy: Any, authority: Authority, header: bytes
) -> None:
    server = behind_proxy(tell)
    hello_bytes = ssl.MemoryBIO()
    other = authority.client().wrap_bio(ssl.MemoryBIO(), hello_bytes, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        other.do_handshake()
    greeting = hello_bytes.read()
    for cut in (1, 5, 12, 15, 16, len(header) - 1, len(header)):
        with socket.create_connection(server.address) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.settimeout(10)
            peer.sendall(header[:cut])
            peer.sendall(header[cut:] + greeting)
            assert peer.recv(1) == b"\x16"  # the server's part of the handshake


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HT", "it does not begin with a PROXY protocol header"),
        (b"\x16\x03\x01\x02\x00", "it does not begin with a PROXY protocol header"),
        (V1[:10], "the PROXY header took too long"),
        (b"PROXY TCP4 a b c d\r\n", "its PROXY line is malformed"),
    ],
)
def test_a_wrong_or_slow_header_is_closed_with_one_line(behind_proxy: Any, data: bytes, reason: str) -> None:
    server = behind_proxy(hello, timeout_request_header=0.3)
    client = server.connect()
    client.send(data)
    with suppress(ConnectionError):
        assert client.ended()
    server.until(lambda: server.errors.lines)
    assert server.errors.lines == [f"Connection from 127.0.0.1 closed: {reason}"]


def test_a_header_that_ends_early_is_one_line_and_a_check_of_the_port_none(behind_proxy: Any) -> None:
    server = behind_proxy(hello)
    for sent in (b"", V1[:20]):
        client = server.connect()
        client.send(sent)
        client.finish_sending()
        assert client.ended()
    server.until(lambda: server.errors.lines)
    assert server.errors.lines == ["Connection from 127.0.0.1 closed: it ended within the PROXY header"]


def test_a_peer_that_is_not_trusted_gets_no_handshake(behind_proxy: Any) -> None:
    server = behind_proxy(hello, allowed="10.0.0.0/8")
    client = server.connect()
    client.send(V1)
    with suppress(ConnectionError):
        assert client.ended()
    server.until(lambda: server.errors.lines)
    assert server.errors.lines == [
        "Connection from 127.0.0.1 closed: the peer is not in --forwarded-allow-ips"
    ]
