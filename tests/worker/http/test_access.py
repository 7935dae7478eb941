"""--access-log-format: every atom; a line is logged once a response is complete or given up."""

from __future__ import annotations

import base64
import logging
import os
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import pytest

from ostler.logging import TRACE
from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.protocols import http_protocol
from tests.worker.conftest import Serve
from tests.worker.harness import Server, get, hello, part, post, read_body, respond, start

ALL = (
    "%(h)s|%(l)s|%(u)s|%(m)s|%(U)s|%(q)s|%(r)s|%(H)s|%(s)s|%(st)s|%(B)s|%(b)s|%(f)s|%(a)s|%(p)s"
    "|%({X-Mine}i)s|%({x-theirs}o)s|%({Ostler_Test}e)s|%({nothing}i)s|%({nothing}o)s|%({nothing}e)s|100%%"
)


def lines(server: Server, count: int = 1) -> list[str]:
    server.until(lambda: len(server.access.kept) >= count)
    return server.access.lines


def test_every_atom_is_filled(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTLER_TEST", "here")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"hello", 404, (b"X-Theirs", b"a"), (b"x-theirs", b"b"))

    server = serve(app, access_log_format=ALL)
    credentials = base64.b64encode(b"horse:secret").decode()
    server.ask(
        get("/a%20b?c=d", f"Authorization: Basic {credentials}", "Referer: r", "User-Agent: u", "X-Mine: m")
    )

    target = "/a%20b?c=d"
    assert lines(server) == [
        f"127.0.0.1|-|horse|GET|/a%20b|c=d|GET {target} HTTP/1.1|HTTP/1.1|404|Not Found|5|5|r|u"
        f"|<{os.getpid()}>|m|a, b|here|-|-|-|100%"
    ]


def test_an_atom_without_a_value_is_a_dash(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"", 599)

    server = serve(app, access_log_format="%(u)s %(st)s %(B)s %(b)s %(f)s %(a)s %(q)s")
    server.ask(get("/", "Authorization: Basic !", version="1.0"))

    assert lines(server) == ["- - 0 - - - "]


def test_the_atoms_of_time_agree(serve: Serve) -> None:
    server = serve(hello, access_log_format="%(t)s %(T)s %(M)s %(D)s %(L)s")
    server.ask(get())

    pattern = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] \d+ \d+ \d+ \d+\.\d{6}"
    assert re.fullmatch(pattern, lines(server)[0])
    seconds, milliseconds, microseconds, decimal = lines(server)[0].split()[2:]
    assert int(microseconds) // 1000 == int(milliseconds)
    assert int(milliseconds) // 1000 == int(seconds)
    assert abs(float(decimal) * 1e6 - int(microseconds)) < 1.5  # one is rounded, the other truncated


def test_nothing_that_a_client_sends_breaks_the_format_of_a_line(serve: Serve) -> None:
    server = serve(hello, access_log_format='"%(r)s" "%(a)s" "%({x}i)s" "%(u)s"')
    user = base64.b64encode(b'a"\n\x00').decode()
    fields = ['User-Agent: "; \\ caf\xe9\t\x85', "X: a", "X: b", f"Authorization: basic {user}"]
    server.ask(get('/"%0a?%22', *fields))

    assert lines(server) == [r'"GET /\"%0a?%22 HTTP/1.1" "\"; \\ caf\xe9\x09\x85" "a, b" "a\"\x0a\x00"']


def test_formatters_still_have_uvicorns_arguments(serve: Serve) -> None:
    server = serve(hello, access_log_format="%(s)s %% %(B)s")
    client = server.connect()
    client.ask(get("/a?b=%20", "User-Agent: \xff"))

    record: Any = (lines(server), server.access.kept)[1][0]
    assert record.args == (f"127.0.0.1:{client.socket.getsockname()[1]}", "GET", "/a?b=%20", "1.1", 200)
    assert record.getMessage() == "200 % 5"
    assert record.response_length == 5
    assert 0 < record.request_time < 10
    assert record.user_agent == "\\xff"


def test_the_length_is_that_of_the_body_however_it_is_sent(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        def fields() -> Iterator[tuple[bytes, bytes]]:
            yield b"x-seen", b"yes"

        await send({"type": "http.response.start", "status": 200, "headers": fields()})
        for _ in range(3):
            await send(part(b"x" * 1000, more=True))
        await send(part())

    server = serve(app, access_log_format="%(m)s %(B)s %({x-seen}o)s")
    assert server.ask(get()).get("x-seen") == "yes"
    server.ask(get(method="HEAD"), method="HEAD")

    assert lines(server, 2) == ["GET 3000 yes", "HEAD 0 yes"]


def test_a_line_waits_for_the_end_of_its_response(serve: Serve) -> None:
    server: Server

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(part(b"x", more=True))
        seen.append(list(server.access.lines))
        await send(part())

    seen: list[list[str]] = []
    server = serve(app, access_log_format="%(s)s")
    server.ask(get())

    assert lines(server) == ["200"]
    assert seen == [[]]


def test_a_client_that_leaves_is_logged_with_what_it_got(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/begun":
            await send(start())
            await send(part(b"x" * 100, more=True))
        while (await receive())["type"] != "http.disconnect":
            pass

    server = serve(app, access_log_format="%(U)s %(s)s %(B)s")
    for path, until in (("/begun", b"xxx"), ("/silent", b"")):
        client = server.connect()
        client.send(get(path))
        if until:
            client.until(until)
        server.until(lambda: server.server_state.requests)
        client.reset()
        server.until(lambda: not server.server_state.requests)

    assert lines(server, 2) == ["/begun 200 100", "/silent 499 0"]
    assert server.errors.lines == []


def test_errors_of_the_application_are_logged_as_what_the_client_got(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/begun":
            await send(start())
        raise RuntimeError

    server = serve(app, access_log_format="%(U)s %(s)s %(B)s")
    assert server.ask(get("/begun")).status == 500
    assert server.ask(get("/raised")).status == 500

    assert lines(server, 2) == ["/begun 500 21", "/raised 500 21"]


def test_pipelined_requests_are_logged_in_order_each_once(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await respond(send, scope["path"].encode())

    server = serve(app, access_log_format="%(U)s %(B)s")
    client = server.connect()
    client.send(b"".join(post(f"/{'x' * n}", body=b"b") for n in range(5)))
    for _ in range(5):
        client.answer()

    assert lines(server, 5) == [f"/{'x' * n} {n + 1}" for n in range(5)]


def test_refused_by_the_concurrency_limit_is_logged_and_a_health_check_is_not(serve: Serve) -> None:
    begun = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await read_body(receive)
        await respond(send, b"read")

    server = serve(app, access_log_format="%(U)s %(s)s", limit_concurrency=1, health_path="/up")
    first = server.connect()
    first.send(b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n12")
    assert begun.wait(10)
    assert server.ask(get("/up")).status == 200
    assert server.ask(get("/x")).status == 503
    first.send(b"34")
    assert first.answer().status == 200

    assert lines(server, 2) == ["/x 503", "/first 200"]


def test_without_an_access_log_nothing_is_kept(serve: Serve) -> None:
    server = serve(hello, access_log_format="%(s)s", access_log=False)
    assert server.ask(get()).status == 200

    assert server.access.lines == []


@pytest.mark.parametrize(
    "path", ["/", "/a-b_c.d~e/1", "/a%20b", "/%C3%A9", "/%0a%22", "/a:b@c", "/%7E!$&'()*+,;="]
)
def test_the_path_is_quoted_as_uvicorn_does(path: str, serve: Serve) -> None:
    server = serve(hello)
    server.ask(get(path))

    assert lines(server)[0].split()[3] == quote(unquote(path))


def test_at_trace_level_connections_are_logged(serve: Serve) -> None:
    # The level at the start of the server is the one that counts.
    before = serve(hello)
    before.ask(get())
    logging.getLogger("ostler.error").setLevel(TRACE)
    try:
        protocol: Any = http_protocol(before.settings)(before.server_state)
    finally:
        logging.getLogger("ostler.error").setLevel(logging.DEBUG)
    assert type(protocol).__name__ == "TracedConnection"
    assert before.errors.lines == []
