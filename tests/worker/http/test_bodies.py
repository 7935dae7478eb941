"""Request bodies: how they arrive, what is done with unread ones, how the app learns of their end."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, cast

import pytest

from ostler.worker.asgi import Message, Receive, Scope, Send
from ostler.worker.http.cycle import Cycle, Stream
from ostler.worker.http.request import RequestHead
from tests.worker.conftest import Serve
from tests.worker.harness import echo, get, hello, opened, part, post, read_body, respond, start

CHUNKED = "Transfer-Encoding: chunked"
EXPECT = "Expect: 100-continue"


class Listener:
    """An app that keeps every message, up to the disconnect."""

    def __init__(self, *, answer_first: bool = False) -> None:
        self.messages: list[Message] = []
        self.answer_first = answer_first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.answer_first:
            await respond(send, b"early")
        while not self.messages or self.messages[-1]["type"] != "http.disconnect":
            self.messages.append(await receive())


END = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}


def test_a_chunked_body_is_joined_and_its_trailers_dropped(serve: Serve) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    client = serve(app).connect()
    body = b"3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Trailer: x\r\nHost: evil\r\n\r\n"
    for _ in range(2):
        assert client.ask(get("/", CHUNKED, method="POST") + body).body == b"POST / abc0123456789"
    assert scopes[0]["headers"] == [(b"host", b"a.example"), (b"transfer-encoding", b"chunked")]


def test_a_request_without_a_body_has_one_empty_message(serve: Serve) -> None:
    app = Listener()
    server = serve(app)
    client = server.connect()
    client.send(get())
    server.until(lambda: app.messages)
    client.close()
    server.until(lambda: not server.server_state.in_flight)
    assert app.messages == [END, GONE]


def test_receive_after_the_body_waits_for_the_client_to_leave(serve: Serve) -> None:
    app = Listener()
    server = serve(app)
    client = server.connect()
    client.send(post(body=b"abc"))
    server.until(lambda: app.messages)
    assert app.messages == [{"type": "http.request", "body": b"abc", "more_body": False}]
    client.reset()
    server.until(lambda: len(app.messages) == 2)
    assert app.messages[1] == GONE
    server.until(lambda: not server.server_state.connections and not server.server_state.in_flight)
    assert server.errors.lines == []


def test_receive_after_the_response_says_disconnect(serve: Serve) -> None:
    app = Listener(answer_first=True)
    server = serve(app)
    client = server.connect()
    assert client.ask(get()).body == b"early"
    server.until(lambda: not server.server_state.in_flight)
    assert app.messages == [GONE]
    assert client.ask(get()).body == b"early"


def test_all_callers_of_receive_get_the_disconnect(serve: Serve) -> None:
    results: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        tasks = [asyncio.ensure_future(receive()) for _ in range(3)]
        await asyncio.sleep(0)  # in the app: all three wait now
        tasks[0].cancel()
        await respond(send, b"x")
        results.extend(await asyncio.gather(*tasks, return_exceptions=True))

    server = serve(app)
    assert server.ask(get()).body == b"x"
    server.until(lambda: not server.server_state.in_flight)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [GONE, GONE]


def test_an_app_is_told_when_its_client_leaves_within_the_body(serve: Serve) -> None:
    app = Listener()
    server = serve(app)
    client = server.connect()
    client.send(get("/", "Content-Length: 10", method="POST") + b"abc")
    server.until(lambda: app.messages)
    client.finish_sending()
    server.until(lambda: not server.server_state.in_flight)
    assert app.messages == [{"type": "http.request", "body": b"abc", "more_body": True}, GONE]
    assert server.errors.lines == []


@pytest.mark.parametrize("how", ["close", "finish_sending"])
@pytest.mark.parametrize("started", [False, True])
def test_an_app_that_is_told_that_its_client_is_gone_cannot_send(
    serve: Serve, how: str, started: bool
) -> None:
    """ASGI 2.4: `send` raises an OSError, also where nothing has been written since the client left."""
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send(start())
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            await (send(part()) if started else respond(send))
        except OSError as error:
            raised.append(error)
            raise

    server = serve(app)
    client = server.connect()
    client.send(get())
    getattr(client, how)()
    server.until(lambda: raised and not server.server_state.connections)
    assert server.errors.lines == []
    if how == "finish_sending":
        assert client.ended()


def test_a_half_closed_client_is_answered_by_an_app_that_does_not_ask(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        await opened(lambda: left)
        await respond(send, b"here")

    left: list[bool] = []
    server = serve(app)
    client = server.connect()
    client.send(get())
    client.finish_sending()
    server.until(lambda: server.server_state.in_flight)
    left.append(True)
    assert client.answer().body == b"here"
    assert client.ended()


def test_an_app_that_returns_once_its_client_has_gone_is_no_error(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    server = serve(app)
    client = server.connect()
    client.send(get())
    client.finish_sending()
    assert client.ended()
    server.until(lambda: not server.server_state.in_flight)
    assert (server.errors.lines, server.access.lines) == ([], [])


# -- Expect: 100-continue


def test_100_continue_is_sent_when_the_app_first_reads(serve: Serve) -> None:
    asked = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await opened(asked.is_set)
        await echo(scope, receive, send)

    server = serve(app)
    client = server.connect()
    client.send(get("/", EXPECT, "Content-Length: 6", method="POST"))
    server.until(lambda: server.server_state.in_flight)
    assert client.quiet()
    asked.set()
    assert client.answer().status == 100
    client.send(b"abc")
    client.send(b"def")
    answer = client.answer()
    assert (answer.body, answer.keeps) == (b"POST / abcdef", True)
    assert client.ask(post(body=b"x")).status == 200


def test_100_continue_is_not_sent_when_the_body_came_by_itself(serve: Serve) -> None:
    client = serve(echo).connect()
    assert client.ask(post("/", EXPECT, body=b"abc")).status == 200


def test_100_continue_is_not_sent_to_http_1_0(serve: Serve) -> None:
    client = serve(echo).connect()
    client.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    client.send(b"abc")
    assert client.answer().status == 200


def test_100_continue_is_not_sent_after_the_response_began(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"4")))
        await send(part(b"ab", more=True))
        body = await read_body(receive)
        await send(part(body))

    client = serve(app).connect()
    client.send(get("/", EXPECT, "Content-Length: 2", method="POST"))
    client.until(b"\r\n\r\nab")
    client.send(b"cd")
    assert client.take(2) == b"cd"


def test_an_answer_without_100_continue_closes(serve: Serve) -> None:
    client = serve(hello).connect()
    answer = client.ask(get("/", EXPECT, "Content-Length: 6", method="POST"))
    assert (answer.status, answer.get("connection")) == (200, "close")
    assert client.ended()


# -- bodies that the app does not read


def test_a_short_unread_body_is_discarded_and_the_connection_kept(serve: Serve) -> None:
    client = serve(hello).connect()
    for _ in range(3):
        client.send(get("/", "Content-Length: 60000", method="POST"))
        answer = client.answer()
        assert (answer.status, answer.keeps) == (200, True)
        client.send(b"x" * 60_000)
    assert client.ask(get()).keeps


def test_a_short_unread_chunked_body_is_discarded(serve: Serve) -> None:
    client = serve(hello).connect()
    for _ in range(2):
        client.send(get("/", CHUNKED, method="POST") + b"5\r\nabcde\r\n")
        assert client.answer().keeps
        client.send(b"5\r\nabcde\r\n0\r\n\r\n")


def test_a_long_unread_body_closes_the_connection_and_the_answer_arrives(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    client.send(get("/", "Content-Length: 2000000", method="POST"))
    client.send(b"x" * 2_000_000)
    answer = client.answer()
    assert (answer.body, answer.get("connection")) == (b"hello", "close")
    assert client.ended()


def test_an_endless_unread_chunked_body_closes_the_connection(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    client.send(get("/", CHUNKED, method="POST"))
    assert client.answer().body == b"hello"
    for _ in range(30):
        client.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
    assert client.ended()


def test_an_unread_body_that_never_comes_is_not_waited_for(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    client.send(get("/", "Content-Length: 10", method="POST"))
    assert client.answer().keeps
    server.advance(6)
    assert client.ended()


def test_what_follows_a_discarded_body_in_one_piece_is_served(serve: Serve) -> None:
    client = serve(hello).connect()
    client.send(post(body=b"x" * 50_000) + post(body=b"GET / HTTP/1.1\r\n") + get())
    assert [client.answer().body for _ in range(3)] == [b"hello"] * 3
    assert client.quiet()


def test_a_body_that_the_app_half_read_is_discarded(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await respond(send, b"enough")

    client = serve(app).connect()
    client.send(get("/", CHUNKED, method="POST") + b"3\r\nabc\r\n")
    assert client.answer().body == b"enough"
    client.send(b"3\r\ndef\r\n0\r\n\r\n")
    assert client.ask(post(body=b"x")).body == b"enough"


def test_a_body_in_very_many_pieces_is_joined_in_linear_time() -> None:
    def seconds(pieces: int) -> float:
        cycle = Cycle(cast("Stream", None), RequestHead("POST", b"/", "1.1", []))
        began = time.thread_time()  # what else the machine does does not count
        for _ in range(pieces):
            cycle.feed(b"x")
        assert cycle.body_held == pieces
        return time.thread_time() - began

    few = min(seconds(10_000) for _ in range(5))
    # Twenty times as many pieces: the limit is ten times the linear time, and half of the quadratic time.
    assert seconds(200_000) < 200 * few
