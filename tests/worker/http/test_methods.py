"""Every token is a method (RFC 9110, section 9.1), also one that llhttp does not know."""

from __future__ import annotations

import pytest

from tests.worker.conftest import Serve
from tests.worker.harness import echo, get, hello, post
from tests.worker.http.test_hostile import outcome, tell
from tests.worker.interfaces.wsgi_apps import Environ, StartResponse, wsgi

METHODS = [
    "FOO", "M-SEARCH2", "get", "Get", "head", "GETX", "GE", "G", "PRI", "PLAY", "FLUSH", "SOURCE", "QUERY",
    "M", "!#$%&'*+-.^_`|~0aZ", "x" * 64, "BASELINE-CONTROL", "VERSION-CONTROL", "1",
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_the_app_gets_every_method_as_it_was_sent(serve: Serve, method: str) -> None:
    server = serve(echo)
    client = server.connect()
    answer = client.ask(get("/1", method=method, body=b"abc"))
    assert (answer.status, answer.body) == (200, f"{method} /1 abc".encode())
    assert answer.keeps
    assert client.ask(post("/2", body=b"x")).body == b"POST /2 x"
    (first, _) = server.access.lines
    assert f'"{method} /1 HTTP/1.1" 200' in first
    assert server.errors.lines == []


OK, BAD = 200, 400
PIPELINES = {
    "after a GET": ([OK] * 3, get("/1") + get("/2", method="FOO") + get("/3")),
    "after a body": ([OK] * 3, post("/1", body=b"UN") + get("/2", method="BINDX") + get("/3")),
    "after a chunked body": (
        [OK] * 3,
        get("/1", "Transfer-Encoding: chunked", method="PUT")
        + b"8\r\na\n\r\nb\r\n\r\r\n0\r\n\r\n"
        + get("/2", method="FOO")
        + get("/3"),
    ),
    "after trailers": (
        [OK] * 2,
        get("/1", "Transfer-Encoding: chunked", method="PUT")
        + b"1\r\na\r\n0\r\nX: y\r\n\r\n"
        + get("/2", method="FOO"),
    ),
    "after an upgrade that is not taken": (
        [OK] * 2,
        post("/1", "Connection: upgrade", "Upgrade: h2c", body=b"ab") + get("/2", method="FOO"),
    ),
    "after an upgrade that is not taken, behind a GET": (
        [OK] * 3,
        get("/1")
        + post("/2", "Connection: upgrade", "Upgrade: h2c", body=b"11T")
        + get("/3", method="SETUP"),
    ),
    "a refused head after an upgrade that is not taken": (
        [OK, BAD],
        get("/1", "Connection: upgrade", "Upgrade: h2c") + get("/2", "Transfer-Encoding: x"),
    ),
    "without a version": ([OK, 505], get("/1") + b"GET /2HTTP/1.1\r\nHost: x\r\n\r\n"),
    "after empty lines": (
        [OK] * 3,
        b"\r\n" + get("/1") + b"\r\n\r\n" + get("/2", method="GETX") + get("/3"),
    ),
    "a known one cut short": (
        [OK] * 3,
        get("/1") + get("/2", method="MER") + get("/3", method="MERGE"),
    ),
    "one of RTSP": ([OK] * 3, get("/1") + get("/2", method="PLAY") + get("/3", method="OPTIONS")),
    "two": (
        [OK] * 3,
        get("/1", method="FOO") + get("/2", method="BAR", body=b"abc") + get("/3", "Connection: close"),
    ),
    "a malformed one": ([OK, BAD], get("/1") + b"GETX\r\n\r\n" + get("/3")),
}


@pytest.mark.parametrize(("statuses", "data"), PIPELINES.values(), ids=PIPELINES.keys())
def test_unknown_methods_are_found_wherever_the_bytes_are_split(
    serve: Serve, statuses: list[int], data: bytes
) -> None:
    server = serve(tell)
    whole = outcome(server, [data])
    assert [status for status, _ in whole] == statuses
    for at in range(1, len(data)):
        assert outcome(server, [data[:at], data[at:]]) == whole, f"split at {at}"
    assert outcome(server, [bytes([byte]) for byte in data]) == whole, "one by one"


def test_many_pipelined_unknown_methods_are_all_answered(serve: Serve) -> None:
    client = serve(echo).connect()
    data = b"".join(get(f"/{number}", method="FOO") for number in range(2000))
    client.send(data)
    assert [client.answer().body for _ in range(2000)] == [b"FOO /%d " % number for number in range(2000)]


def test_an_unknown_method_after_close_is_not_served(serve: Serve) -> None:
    client = serve(echo).connect()
    client.send(get("/1", "Connection: close") + get("/2", method="FOO"))
    assert client.answer().body == b"GET /1 "
    assert client.ended()


def test_only_head_in_capitals_has_no_body(serve: Serve) -> None:
    client = serve(hello).connect()
    assert client.ask(get(method="head")).body == b"hello"
    assert client.ask(get(method="HEAD"), "HEAD").body == b""
    assert client.ask(get(method="FOO")).body == b"hello"


def test_a_chunked_body_of_an_unknown_method_arrives(serve: Serve) -> None:
    client = serve(echo).connect()
    client.send(get("/", "Transfer-Encoding: chunked", method="FOO") + b"3\r\nabc\r\n0\r\n\r\n")
    assert client.answer().body == b"FOO / abc"


def test_an_unknown_method_may_ask_for_an_upgrade_that_is_not_taken(serve: Serve) -> None:
    client = serve(echo).connect()
    client.send(get("/1", "Connection: upgrade", "Upgrade: h2c", method="FOO", body=b"abc") + get("/2"))
    assert client.answer().body == b"FOO /1 abc"
    assert client.answer().body == b"GET /2 "


def test_the_head_of_an_unknown_method_is_limited_as_any(serve: Serve) -> None:
    server = serve(hello, limit_request_head=1024)
    assert server.ask(get("/" + "x" * 2000, method="FOO")).status == 414
    assert server.ask(get("/", "X: " + "y" * 2000, method="FOO")).status == 431


def test_wsgi_gets_the_method(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["REQUEST_METHOD"].encode()]

    assert serve(wsgi(app)).ask(get(method="FOO")).body == b"FOO"
