"""Requests that are refused: each with a complete answer, a close, and no traceback."""

from __future__ import annotations

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from tests.worker.conftest import Serve
from tests.worker.harness import echo, get, hello, post, respond

HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

REFUSED = {
    "no host in 1.1": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    "two hosts in 1.0": (400, b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    "length and chunked": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n"),
    "chunked and length": (400, b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + b"Content-Length: 3\r\n\r\n"),
    "different lengths": (
        400,
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    ),
    "the same length twice": (
        400,
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
    ),
    "a list of lengths": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3, 3\r\n\r\n"),
    "a signed length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +3\r\n\r\n"),
    "a negative length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -3\r\n\r\n"),
    "a hexadecimal length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x3\r\n\r\n"),
    "an empty length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length:\r\n\r\n"),
    "a huge length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n"),
    "another coding": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "codings before chunked": (
        501,
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    ),
    "identity": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity\r\n\r\n"),
    "chunked twice": (400, b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + CHUNKED + b"\r\n"),
    "chunked in 1.0": (400, b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n"),
    "a folded field": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n"),
    "a folded first field": (400, b"GET / HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n"),
    "a bare LF in the request line": (400, b"GET / HTTP/1.1\n" + HOST + b"\r\n"),
    "a bare LF in a field": (400, b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    "bare LFs throughout": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "a bare LF at the end": (400, b"GET / HTTP/1.1\r\n" + HOST + b"\n"),
    "a bare CR": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n"),
    "a NUL": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n"),
    "a control character": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x01b\r\n\r\n"),
    "a NUL in the target": (400, b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a space before the colon": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n"),
    "a field without a colon": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X\r\n\r\n"),
    "a field without a name": (400, b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n"),
    "a name that is no token": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X(y): x\r\n\r\n"),
    "a raw byte in the target": (400, b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a space in the target": (400, b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a relative target": (400, b"GET a HTTP/1.1\r\n" + HOST + b"\r\n"),
    "an asterisk for GET": (400, b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"),
    "an asterisk and more": (400, b"OPTIONS *x HTTP/1.1\r\n" + HOST + b"\r\n"),
    "an authority for GET": (400, b"GET a:80 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "userinfo": (400, b"GET http://u:p@a/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    "no authority": (400, b"GET http:///x HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a tunnel": (501, b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    "HTTP/0.9": (505, b"GET / HTTP/0.9\r\n" + HOST + b"\r\n"),
    "no version": (505, b"GET /\r\n\r\n"),
    "a version of two digits": (400, b"GET / HTTP/11.1\r\n" + HOST + b"\r\n"),
    "another protocol": (400, b"GET / HTTPS/1.1\r\n" + HOST + b"\r\n"),
    "HTTP/2 with prior knowledge": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a long method": (501, b"F" * 65 + b" / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "an endless method": (501, b"F" * 100_000),
    "an endless method after a known one": (501, b"GET" * 30_000),
    "a method that is no token": (400, b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a TLS handshake": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "noise": (400, bytes(range(256))),
    "a space first": (400, b" GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "257 fields": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 256 + b"\r\n"),
    "a long field": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 2000 + b"\r\n\r\n"),
    "many fields": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X-Name: value\r\n" * 200 + b"\r\n"),
    "a long target": (414, b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    "an endless field": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 100_000),
    "an endless target": (414, b"GET /" + b"x" * 100_000),
    "an endless name": (431, b"GET / HTTP/1.1\r\n" + HOST + b"y" * 100_000),
}


@pytest.mark.parametrize(("status", "data"), REFUSED.values(), ids=REFUSED.keys())
def test_invalid_requests_are_refused(serve: Serve, status: int, data: bytes) -> None:
    server = serve(hello, limit_request_head=1024 if status in (414, 431) and b"256" not in data else 65536)
    client = server.connect()
    answer = client.ask(data)
    assert (answer.status, answer.get("connection")) == (status, "close")
    assert answer.get("server") == "ostler"
    assert answer.get("date")
    assert client.ended()
    assert len(server.errors.lines) == 1
    assert server.errors.tracebacks == []
    assert server.server_state.served == 0
    assert server.ask(get()).status == 200


def test_256_fields_are_not_too_many(serve: Serve) -> None:
    assert serve(hello).ask(get("/", *["X: y"] * 255)).status == 200


def test_a_head_within_the_limit_is_served_and_one_byte_more_is_not(serve: Serve) -> None:
    server = serve(hello, limit_request_head=1024)
    bare = len(get("/", "X: "))
    assert server.ask(get("/", "X: " + "y" * (1024 - bare))).status == 200
    assert server.ask(get("/", "X: " + "y" * (1025 - bare))).status == 431


def test_the_limit_is_for_the_head_alone(serve: Serve) -> None:
    client = serve(echo, limit_request_head=1024).connect()
    client.send(post("/1", body=b"x" * 50_000) + post("/2", body=b"y" * 5000))
    assert len(client.answer().body) > 50_000
    assert len(client.answer().body) > 5000


def test_a_refusal_waits_for_the_answers_before_it(serve: Serve) -> None:
    client = serve(echo).connect()
    client.send(get("/1") + post("/2", body=b"x") + b"BAD\r\n\r\n")
    assert [client.answer().status for _ in range(3)] == [200, 200, 400]
    assert client.ended()


def test_a_refusal_of_head_has_no_body(serve: Serve) -> None:
    client = serve(hello).connect()
    client.send(b"HEAD / HTTP/1.1\r\n\r\n")
    assert client.answer("HEAD").status == 400
    assert client.ended()


def test_a_refusal_reaches_a_client_that_is_still_sending(serve: Serve) -> None:
    server = serve(hello, limit_request_head=1024)
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    for _ in range(30):
        client.send(b"x" * 65_536)
    assert client.answer().status == 400
    assert client.ended()


def test_a_refused_client_that_never_stops_sending_is_closed(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    client.send(b"BAD\r\n\r\n")
    with pytest.raises(ConnectionError):
        client.send(b"x" * 65_536_000)
    server.until(lambda: not server.server_state.connections)


def test_a_refused_client_that_does_not_leave_is_closed(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    client.send(b"BAD\r\n\r\n")
    assert client.answer().status == 400
    server.advance(10)
    server.until(lambda: not server.server_state.connections)


BROKEN_CHUNKS = {
    "no number": b"x\r\n",
    "a sign": b"-1\r\n",
    "a bare LF after the size": b"3\nabc\r\n0\r\n\r\n",
    "no CRLF after the data": b"3\r\nabcd\r\n0\r\n\r\n",
    "a huge size": b"f" * 24 + b"\r\n",
    "a broken trailer": b"0\r\nX Y\r\n\r\n",
    "endless trailers": b"0\r\n" + b"X: y\r\n" * 20_000,
    "an endless trailer": b"0\r\nX: " + b"y" * 100_000,
}


@pytest.mark.parametrize("body", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
def test_a_broken_body_is_refused_and_the_app_is_told_that_the_client_is_gone(
    serve: Serve, body: bytes
) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not seen or seen[-1] != "http.disconnect":
            seen.append((await receive())["type"])

    server = serve(app)
    client = server.connect()
    client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    server.until(lambda: server.server_state.in_flight)
    client.send(body)
    answer = client.answer()
    assert answer.status // 100 == 4
    assert client.ended()
    server.until(lambda: not server.server_state.in_flight)
    assert seen[-1] == "http.disconnect"
    assert server.errors.tracebacks == []


def test_a_broken_body_after_the_response_began_cuts_it(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await respond(send)

    server = serve(app)
    client = server.connect()
    client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    client.until(b"one\r\n")
    client.send(b"nonsense\r\n")
    assert client.rest() == b""
    server.until(lambda: not server.server_state.in_flight)
