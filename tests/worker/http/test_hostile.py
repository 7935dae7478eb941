"""Malformed input of every kind: no traceback, the server serves on, and both parsers agree."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from tests.worker.conftest import Serve
from tests.worker.harness import Server, Way, get, post, respond
from tests.worker.http.test_refusals import BROKEN_CHUNKS, REFUSED

CHUNKED = b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\n"

TRICKY = [
    get(),
    get("/a%2fb?c=d#e"),
    get("//x//y?"),
    get("/?"),
    get("/", "Connection: close"),
    get("/", "Connection: keep-alive", version="1.0"),
    get("/", "Connection: Upgrade", "Upgrade: h2c"),
    get("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"),
    get("/", "Upgrade: h2c"),
    get("/", "Connection: upgrade"),
    get("*", method="OPTIONS"),
    get("http://b.example/x?y"),
    get("GET", method="CONNECT"),
    get("/x", method="CONNECT"),
    get("*", method="CONNECT"),
    get("a:b:c", method="CONNECT"),
    b"\r\n\r\n" + get(),
    b"\n\n" + get(),
    b"\r\r" + get(),
    b"GET  /  HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost:a\r\nX:\t y\t \r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r",
    b"GET / HTTP/1.1\r\nHost: a\r\n\rX",
    b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    b"GET / http/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.\r\nHost: a\r\n\r\n",
    b"GET / \r\nHost: a\r\n\r\n",
    b"GET \r\n\r\n",
    b"GET\r\n\r\n",
    b"\0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 03\r\n\r\nabc" + get(),
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 \r\n\r\nabc" + get(),
    post("/", "Connection: upgrade", "Upgrade: h2c", body=b"abc") + get(),
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n" + get(),
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked \r\n\r\n0\r\n\r\n" + get(),
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n" + get(),
    b"POST / HTTP/1.1\r\n" + CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n" + get(),
    b"POST / HTTP/1.1\r\n" + CHUNKED + b"3;a=b;c\r\nabc\r\n000\r\n\r\n" + get(),
    b"POST / HTTP/1.1\r\n" + CHUNKED + b"3;a=\"b c\"\r\nabc\r\n0\r\n\r\n" + get(),
    b"POST / HTTP/1.1\r\n" + CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n" + get(),
    b"POST / HTTP/1.1\r\n" + CHUNKED + b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    *(b"POST / HTTP/1.1\r\n" + CHUNKED + body for body in BROKEN_CHUNKS.values()),
    *(data for _, data in REFUSED.values()),
]  # fmt: skip


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with everything that it was passed."""
    body = b""
    if scope["method"] != "GET":
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
    passed = [scope["method"], scope["http_version"], scope["path"], scope["raw_path"], scope["query_string"]]
    await respond(send, repr((passed, scope["headers"], body)).encode())


def outcome(server: Server, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    """Return all responses to these pieces, each of which arrives by itself; a half-close follows."""
    client = server.connect()
    arrived = server.received
    try:
        for piece in pieces:
            client.send(piece)
            arrived += len(piece)
            if len(pieces) > 1:
                server.until(lambda want=arrived: server.received >= want)  # type: ignore[misc]
        client.finish_sending()
    except ConnectionError:
        pass  # the server has refused, and has lingered for long enough
    answers = []
    try:
        while client.buffer or client.more():
            answer = client.answer()
            # The reasons are in each parser's own words.
            answers.append((answer.status, answer.body if answer.status == 200 else b""))
    finally:
        client.close()
        server.clients.remove(client)
    return answers


def served(answers: list[tuple[int, bytes]]) -> list[bytes]:
    """What the app was passed."""
    return [body for status, body in answers if status == 200]


def checked(server: Server) -> None:
    """Check that what was sent has left no trace but warnings."""
    assert server.errors.tracebacks == []
    assert [record.getMessage() for record in server.asyncio.kept if record.levelname != "DEBUG"] == []
    assert server.ask(get()).status == 200
    server.until(lambda: not server.server_state.requests)


@pytest.mark.c_libraries
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_both_parsers_come_to_the_same_result(loop: str) -> None:
    servers = [Server(Way(http, loop), tell) for http in ("httptools", "h11")]
    try:
        for data in TRICKY:
            httptools, h11 = (outcome(server, [data]) for server in servers)
            assert httptools == h11, data
        for server in servers:
            checked(server)
    finally:
        for server in servers:
            server.close()


SPLIT = [
    post("/1?a=b", "X-Name:  a value ", "Expect: something", body=b"abc") + get("/2", "Connection: close"),
    b"\r\nPOST /1 HTTP/1.1\r\n" + CHUNKED + b"3;x\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n" + get("/2"),
    b"POST /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"
    + get("/2"),
    get("/1") + b"GET /2 HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    b"POST /1 HTTP/1.1\r\n" + CHUNKED + b"3\r\nabcX\r\n",
]


@pytest.mark.parametrize("data", SPLIT, ids=["length", "chunked", "upgrade", "folded", "broken"])
def test_where_the_bytes_are_split_makes_no_difference(serve: Serve, data: bytes) -> None:
    server = serve(tell)
    whole = outcome(server, [data])
    assert whole
    for at in range(1, len(data)):
        assert outcome(server, [data[:at], data[at:]]) == whole, f"split at {at}"
    assert outcome(server, [bytes([byte]) for byte in data]) == whole, "one by one"
    checked(server)


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """Requests with something changed, cut, doubled or inserted; the same ones for the same seed."""
    chance = random.Random(seed)
    spice = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b" ",
        b":",
        b"\xff",
        b"%",
        b"0",
        b"-",
        b"\t",
        b",",
        b"\r\n\r\n",
        b"Host: b\r\n",
    ]
    for _ in range(count):
        data = chance.choice(TRICKY)[:2000]
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data) + 1)
            to = min(len(data), at + chance.randint(0, 8))
            data = chance.choice(
                [
                    data[:at] + chance.choice(spice) + data[at:],
                    data[:at] + data[to:],
                    data[:at] + chance.randbytes(chance.randint(1, 4)) + data[to:],
                    data[:to] + data[at:],
                    data[:at] + chance.choice(TRICKY)[:500],
                ]
            )
        yield data
    for _ in range(count // 10):
        yield chance.randbytes(chance.randint(1, 300))


def test_mutated_requests_and_noise_leave_no_trace(serve: Serve) -> None:
    server = serve(tell)
    for data in mutants(seed=1, count=400):
        outcome(server, [data])
    checked(server)


@pytest.mark.c_libraries
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_both_parsers_agree_on_mutated_requests(loop: str) -> None:
    servers = [Server(Way(http, loop), tell) for http in ("httptools", "h11")]
    try:
        for data in mutants(seed=2, count=500):
            # h11 accepts more in what is dropped anyway, chunk extensions and trailer fields; and where one
            # parser refuses at once, the other may wait for more. What the app is passed is the same.
            if b"chunked" in data and (b";" in data or b"0\r\nX" in data):
                continue
            httptools, h11 = (outcome(server, [data]) for server in servers)
            assert served(httptools) == served(h11), data
        for server in servers:
            checked(server)
    finally:
        for server in servers:
            server.close()
