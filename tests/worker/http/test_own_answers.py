"""What the server answers instead of the app, to the byte; and the log lines of these answers."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from ostler.worker.asgi import Application, Receive, Scope, Send
from tests.worker.conftest import Serve
from tests.worker.harness import Server, get, hello, opened, part, respond, start

HEADERS = {"header": ("X-A: 1",), "server_header": False, "date_header": False}


async def boom(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


async def boom_after_start(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(201, (b"x-app", b"1")))
    raise ZeroDivisionError


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def only_start(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())


async def more_than_its_length(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"1")))
    await send(part(b"ab"))


async def wrong_field(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"x y", b"1")))


async def two_starts(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(202))
    await send(start(203))


async def amid(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(206))
    await send(part(b"abc", True))
    raise ZeroDivisionError


async def afterwards(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"fine", 207)
    raise ZeroDivisionError


def own(length: int) -> list[tuple[str, str]]:
    return [
        ("x-a", "1"),
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(length)),
        ("connection", "close"),
    ]


def test_a_500_has_a_type_a_length_a_close_and_the_headers_of_the_settings(serve: Serve) -> None:
    server = serve(boom_after_start, **HEADERS)
    client = server.connect()
    answer = client.ask(get())
    assert (answer.status, answer.headers, answer.body) == (500, own(21), b"Internal Server Error")
    assert client.ended()
    assert [record.levelno for record in server.errors.kept] == [logging.ERROR]


async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def test_a_503_beyond_the_limit_has_the_same_fields_and_is_in_both_logs(serve: Serve) -> None:
    server = serve(stuck, limit_concurrency=1, **HEADERS)
    server.connect().send(get())
    server.until(lambda: server.server_state.in_flight)
    client = server.connect()
    answer = client.ask(get("/x"))
    assert (answer.status, answer.headers, answer.body) == (503, own(19), b"Service Unavailable")
    assert client.ended()
    assert [(r.levelno, r.getMessage()) for r in server.errors.kept] == [
        (logging.WARNING, "Exceeded concurrency limit.")
    ]
    assert [line.partition(" - ")[2] for line in server.access.lines] == ['"GET /x HTTP/1.1" 503']


def test_a_400_has_the_same_fields_and_says_why(serve: Serve) -> None:
    server = serve(hello, **HEADERS)
    client = server.connect()
    answer = client.ask(b"GET / HTTP/1.1\r\n\r\n")
    reason = "The Host header field must be there exactly once."
    assert (answer.status, answer.headers, answer.body) == (400, own(len(reason) + 1), f"{reason}\n".encode())
    assert client.ended()
    host, port = client.socket.getsockname()
    assert [(r.levelno, r.getMessage()) for r in server.errors.kept] == [
        (logging.WARNING, f"{host}:{port} refused with 400: {reason}")
    ]


@pytest.mark.parametrize(
    ("app", "status"),
    [
        (boom, 500),
        (boom_after_start, 500),
        (silent, 500),
        (only_start, 500),
        (more_than_its_length, 500),
        (wrong_field, 500),
        (two_starts, 500),
        (amid, 206),
        (afterwards, 207),
        (hello, 200),
    ],
)
def test_a_request_has_one_line_in_the_access_log_whatever_becomes_of_it(
    serve: Serve, app: Application, status: int
) -> None:
    server = serve(app)
    client = server.connect()
    client.send(get("/", "Connection: close"))
    assert client.rest().startswith(b"HTTP/1.1 %d " % status)
    assert access(server) == [status]


def test_a_cancelled_request_has_one_line_and_that_says_503(serve: Serve) -> None:
    entered = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        entered.set()
        await asyncio.Event().wait()

    server = serve(app)
    client = server.connect()
    client.send(get())
    server.until(entered.is_set)
    server.call(server.server_state.cancel)
    assert client.answer().status == 503
    assert access(server) == [503]


def test_a_client_that_leaves_before_the_answer_has_no_access_line(serve: Serve) -> None:
    gone = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await opened(gone.is_set)
        await send(part(b"too late"))

    server = serve(app)
    client = server.connect()
    client.send(get())
    server.until(lambda: server.server_state.in_flight)
    client.reset()
    server.until(lambda: not server.server_state.connections)
    gone.set()
    assert access(server) == []
    assert server.errors.lines == []


def test_a_probe_has_no_line(serve: Serve) -> None:
    server = serve(hello, health_path="/healthz")
    assert server.ask(get("/healthz")).status == 200
    assert access(server) == []


def access(server: Server) -> list[Any]:
    """Return the statuses in the access log, once no request is in flight."""
    server.until(lambda: not server.server_state.in_flight)
    return [record.args[4] for record in server.access.kept if isinstance(record.args, tuple)]
