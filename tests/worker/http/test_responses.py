"""What the app sends, what of it the client gets, and how errors of the app are answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import pytest

from ostler.worker.asgi import Application, ClientDisconnected, Receive, Scope, Send
from ostler.worker.server_state import imf_fixdate
from tests.worker.conftest import Serve
from tests.worker.harness import Server, get, opened, part, post, respond, start

Fields = list[tuple[bytes, bytes]]


def sending(*messages: Any) -> Application:
    """An app that sends these messages and nothing else."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def with_fields(*fields: tuple[bytes, bytes], body: bytes = b"ok", status: int = 200) -> Application:
    return sending(start(status, *fields), part(body))


# -- heads


def test_the_head_has_the_servers_fields_and_the_apps(serve: Serve) -> None:
    answer = serve(with_fields((b"content-length", b"2"), (b"X-One", b"1"), (b"x-one", b"\xff 2"))).ask(get())
    assert answer.raw.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
    assert answer.headers[2:] == [("content-length", "2"), ("x-one", "1"), ("x-one", "\xff 2")]
    date = answer.get("date")
    assert date is not None
    assert date.endswith(" GMT")


def test_a_length_that_is_given_twice_is_sent_once(serve: Serve) -> None:
    answer = serve(with_fields((b"content-length", b"2"), (b"Content-Length", b"2"))).ask(get())
    assert (answer.status, answer.body) == (200, b"ok")
    assert [value for name, value in answer.headers if name == "content-length"] == ["2"]


def test_lengths_that_differ_are_the_apps_error(serve: Serve) -> None:
    assert serve(with_fields((b"content-length", b"2"), (b"content-length", b"3"))).ask(get()).status == 500


def test_settings_add_headers_and_leave_them_out(serve: Serve) -> None:
    app = with_fields((b"content-length", b"2"))
    answer = serve(app, header=("X-A: 1", "x-b:2"), server_header=False, date_header=False).ask(get())
    assert answer.headers == [("x-a", "1"), ("x-b", "2"), ("content-length", "2")]
    assert serve(app, header=("Server: inn",)).ask(get()).get("server") == "inn"


@pytest.mark.parametrize("own", [(b"Server", b"app"), (b"date", b"today")])
def test_the_apps_server_and_date_replace_the_servers(serve: Serve, own: tuple[bytes, bytes]) -> None:
    answer = serve(with_fields(own)).ask(get())
    assert answer.get(own[0].decode().lower()) == own[1].decode()
    assert len([name for name, _ in answer.headers if name.lower() in ("server", "date")]) == 2


def test_the_date_moves_with_the_tick(serve: Serve) -> None:
    server = serve(with_fields())
    before = server.server_state.static
    server.server_state.static = (b"date: old\r\n",) * 4
    server.advance(1)
    assert server.server_state.static[0][:5] == before[0][:5]
    assert b"old" not in server.server_state.static[0]


@pytest.mark.parametrize(
    "field",
    [
        (b"x\r\ny", b"1"),
        (b"x y", b"1"),
        (b"", b"1"),
        (b"x:", b"1"),
        (b"x\0", b"1"),
        (b"\xff", b"1"),
        (b"x", b"1\r\nset-cookie: a=b"),
        (b"x", b"1\n2"),
        (b"x", b"1\r2"),
        (b"x", b"1\0"),
        (b"x", b"1\x01"),
        (b"x", b"\x1f1"),
        (b"x", b"1\x7f2"),
        (b"content-length", b"-1"),
        (b"content-length", b"two"),
        ("x", "text"),
        (b"x", "text"),
        (b"x", None),
    ],
    ids=repr,
)
def test_a_field_that_cannot_be_sent_is_the_apps_error(serve: Serve, field: Any) -> None:
    server = serve(with_fields(field))
    client = server.connect()
    answer = client.ask(get())
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert client.ended()
    assert server.errors.lines == ["Exception in ASGI application\n"]
    assert len(server.errors.tracebacks) == 1


def test_names_are_sent_in_lower_case(serve: Serve) -> None:
    app = with_fields((b"X-Mixed-Case", b"A"), (b"Content-Type", b"Text/Plain"), (b"CONTENT-LENGTH", b"2"))
    client = serve(app, server_header=False, date_header=False, header=("X-Own: B",)).connect()
    for _ in range(2):
        answer = client.ask(get())
        assert answer.headers == [
            ("x-own", "B"),
            ("x-mixed-case", "A"),
            ("content-type", "Text/Plain"),
            ("content-length", "2"),
        ]


def test_a_tab_and_whatever_is_above_ascii_may_be_in_a_value(serve: Serve) -> None:
    answer = serve(with_fields((b"x-tab", b"a\tb"), (b"x-high", b"\x80\xff"), (b"x-empty", b""))).ask(get())
    assert b"\r\nx-tab: a\tb\r\nx-high: \x80\xff\r\nx-empty: \r\n" in answer.raw


def test_fields_may_come_as_lists_or_from_a_generator_or_not_at_all(serve: Serve) -> None:
    def app(fields: Any) -> Application:
        return sending({"type": "http.response.start", "status": 200, **fields}, part(b"ok"))

    pairs = [[b"content-length", b"2"], [b"x-one", b"1"]]
    for fields in (pairs, tuple(pairs), (pair for pair in pairs), iter(pairs)):
        answer = serve(app({"headers": fields})).ask(get())
        assert (answer.get("content-length"), answer.get("x-one"), answer.body) == ("2", "1", b"ok")
    assert serve(app({})).ask(get()).body == b"ok"


@pytest.mark.parametrize("status", [99, 600, 700, 999, 1000, "200", None, 0, -1])
def test_a_status_that_cannot_be_sent_is_the_apps_error(serve: Serve, status: Any) -> None:
    server = serve(with_fields(status=status))
    assert server.ask(get()).status == 500
    server.until(lambda: not server.server_state.requests)
    (line,) = server.errors.lines
    assert line == "Exception in ASGI application\n"
    assert repr(status) in str(server.errors.tracebacks[0].exc_info[1])  # type: ignore[index]
    assert len(server.access.lines) == 1
    assert "500" in server.access.lines[0]


@pytest.mark.parametrize(("status", "line"), [(404, b"404 Not Found"), (299, b"299 "), (599, b"599 ")])
def test_a_status_has_its_phrase_if_there_is_one(serve: Serve, status: int, line: bytes) -> None:
    assert serve(with_fields(status=status)).ask(get()).raw.startswith(b"HTTP/1.1 " + line + b"\r\n")


def test_invented_names_do_not_fill_the_memory(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"", 200, *((b"x-%s-%d" % (scope["query_string"], n), b"") for n in range(300)))

    server = serve(app)
    client = server.connect()
    for n in range(10):
        assert client.ask(get(f"/?{n}")).status == 200
    assert len(server.server_state.names) <= 1024


def test_the_app_may_close_the_connection(serve: Serve) -> None:
    client = serve(with_fields((b"content-length", b"2"), (b"connection", b"Close"))).connect()
    assert client.ask(get()).get("connection") == "close"
    assert client.ended()


def test_the_apps_transfer_encoding_is_not_passed_on(serve: Serve) -> None:
    client = serve(with_fields((b"transfer-encoding", b"chunked"), (b"content-length", b"2"))).connect()
    for _ in range(2):
        answer = client.ask(get())
        assert (answer.body, answer.get("transfer-encoding")) == (b"ok", None)
    client = serve(with_fields((b"Transfer-Encoding", b"chunked"))).connect()
    assert client.ask(get()).body == b"ok"


@pytest.mark.parametrize(
    "field", [(b"Keep-Alive", b"timeout=99"), (b"Connection", b"upgrade"), (b"connection", b"keep-alive")]
)
def test_of_the_apps_connection_fields_only_close_has_an_effect(
    serve: Serve, field: tuple[bytes, bytes]
) -> None:
    client = serve(with_fields((b"content-length", b"2"), field)).connect()
    for _ in range(2):
        answer = client.ask(get())
        assert (answer.get("connection"), answer.get("keep-alive"), answer.body) == (None, None, b"ok")


# -- bodies


def test_without_a_length_the_response_is_chunked(serve: Serve) -> None:
    app = sending(
        start(), part(b"one", True), part(b"", True), part(b"x" * 100_000, True), part(b"two", True), part()
    )
    client = serve(app).connect()
    for _ in range(2):
        answer = client.ask(get())
        assert answer.keeps
        assert answer.chunks == [b"one", b"x" * 100_000, b"two"]


def test_without_a_length_http_1_0_is_delimited_by_the_close(serve: Serve) -> None:
    client = serve(sending(start(), part(b"one", True), part(b"two"))).connect()
    answer = client.ask(get("/", "Connection: keep-alive", version="1.0"))
    assert answer.get("transfer-encoding") is None
    assert answer.body == b"onetwo"


@pytest.mark.parametrize("size", [0, 1, 40_000, 300_000])
def test_bodies_of_every_size_arrive_in_one_piece_or_several(serve: Serve, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    length = (b"content-length", b"%d" % size)
    client = serve(sending(start(200, length), part(body))).connect()
    assert client.ask(get()).body == body
    half = size // 2
    client = serve(
        sending(start(200, length), part(body[:half], True), part(body[half:], True), part())
    ).connect()
    for _ in range(2):
        assert client.ask(get()).body == body


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_like_bodies_are_taken(serve: Serve, kind: Callable[[bytes], Any]) -> None:
    assert serve(sending(start(), part(kind(b"body")))).ask(get()).body == b"body"


@pytest.mark.parametrize("body", ["text", 5, None, [1]])
def test_bodies_that_are_not_bytes_are_the_apps_error(serve: Serve, body: Any) -> None:
    server = serve(sending(start(), part(body)))
    assert server.ask(get()).status == 500
    assert len(server.errors.tracebacks) == 1


def test_the_head_waits_for_the_body(serve: Serve) -> None:
    go = threading.Event()
    started: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        started.append(True)
        await opened(go.is_set)
        await send(part(b"", True))
        await receive()
        while (await receive())["type"] != "http.disconnect":
            pass

    server = serve(app)
    client = server.connect()
    client.send(get())
    server.until(lambda: started)
    assert client.quiet()
    assert server.access.lines == [], "its line tells what was sent"
    go.set()
    assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
    assert [line.rpartition(" ")[2] for line in server.access.lines] == ["200"]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [([(b"content-length", b"5")], "5"), ([], None)],
    ids=["with a length", "without"],
)
def test_head_has_no_body_and_keeps_the_length(serve: Serve, fields: Fields, kept: str | None) -> None:
    client = serve(sending(start(200, *fields), part(b"he", True), part(b"llo"))).connect()
    for _ in range(2):
        answer = client.ask(get(method="HEAD"), "HEAD")
        assert (answer.get("content-length"), answer.get("transfer-encoding")) == (kept, None)
        assert answer.keeps
    assert client.quiet()


@pytest.mark.parametrize(("status", "kept"), [(204, None), (304, "5")])
def test_204_and_304_have_no_body(serve: Serve, status: int, kept: str | None) -> None:
    client = serve(sending(start(status, (b"content-length", b"5")), part(b"hello"))).connect()
    for _ in range(2):
        answer = client.ask(get())
        assert (answer.status, answer.get("content-length"), answer.get("transfer-encoding")) == (
            status,
            kept,
            None,
        )
    assert client.quiet()


def test_an_interim_status_as_the_final_one_has_no_body_and_closes(serve: Serve) -> None:
    client = serve(sending(start(103, (b"content-length", b"5")), part(b"hello"))).connect()
    answer = client.ask(get())
    assert (answer.status, answer.get("content-length"), answer.get("connection")) == (103, None, "close")
    assert client.ended()


def test_head_to_http_1_0_keeps_the_connection(serve: Serve) -> None:
    client = serve(with_fields()).connect()
    assert client.ask(get("/", "Connection: keep-alive", version="1.0", method="HEAD"), "HEAD").get(
        "connection"
    )
    assert client.quiet()


# -- lengths


def test_more_than_the_length_is_the_apps_error_and_cut(serve: Serve) -> None:
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"3")))
        await send(part(b"ab", True))
        try:
            await send(part(b"cde"))
        except RuntimeError as error:
            raised.append(error)
            raise

    server = serve(app)
    client = server.connect()
    client.send(get())
    assert client.rest().endswith(b"\r\n\r\nab")
    assert str(raised[0]) == "Response content longer than Content-Length"
    assert len(server.errors.tracebacks) == 1


def test_more_than_the_length_at_once_is_a_500(serve: Serve) -> None:
    server = serve(with_fields((b"content-length", b"1"), body=b"ab"))
    assert server.ask(get()).status == 500


def test_less_than_the_length_closes_the_connection_and_is_logged(serve: Serve) -> None:
    server = serve(sending(start(200, (b"content-length", b"5")), part(b"abc", True), part()))
    client = server.connect()
    client.send(get())
    assert client.rest().endswith(b"\r\n\r\nabc")
    server.until(lambda: not server.server_state.in_flight)
    assert server.errors.lines == ["Response content shorter than Content-Length"]


# -- errors


def one_log(server: Server) -> list[str]:
    server.until(lambda: not server.server_state.in_flight)
    return server.errors.lines


async def boom(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


async def boom_after_start(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    raise ZeroDivisionError


async def exits(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit(1)


async def cancels(scope: Scope, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("app", [boom, boom_after_start, exits, cancels])
def test_an_error_before_anything_was_sent_is_a_500_and_logged_once(serve: Serve, app: Application) -> None:
    server = serve(app)
    client = server.connect()
    answer = client.ask(get())
    assert (answer.status, answer.body, answer.get("connection")) == (500, b"Internal Server Error", "close")
    assert client.ended()
    assert one_log(server) == ["Exception in ASGI application\n"]
    assert server.errors.kept[0].exc_info is not None
    assert server.ask(get()).status == 500


def test_an_error_within_a_response_cuts_it(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(part(b"abc", True))
        raise ZeroDivisionError

    server = serve(app)
    client = server.connect()
    client.send(get())
    assert client.rest().endswith(b"3\r\nabc\r\n")
    assert one_log(server) == ["Exception in ASGI application\n"]


def test_an_error_after_the_response_is_logged_and_does_no_harm(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"fine")
        raise ZeroDivisionError

    server = serve(app)
    client = server.connect()
    assert client.ask(get()).body == b"fine"
    assert client.ask(get()).body == b"fine"
    assert one_log(server) == ["Exception in ASGI application\n"] * 2


def test_an_error_of_head_is_answered_without_a_body(serve: Serve) -> None:
    client = serve(boom).connect()
    assert client.ask(get(method="HEAD"), "HEAD").status == 500
    assert client.ended()


def test_an_app_that_does_not_answer_is_a_500(serve: Serve) -> None:
    server = serve(sending())
    assert server.ask(get()).status == 500
    assert one_log(server) == ["ASGI callable returned without starting response."]


def test_an_app_that_does_not_finish_is_cut(serve: Serve) -> None:
    server = serve(sending(start(), part(b"abc", True)))
    client = server.connect()
    client.send(get())
    assert client.rest().endswith(b"3\r\nabc\r\n")
    assert one_log(server) == ["ASGI callable returned without completing response."]


def test_a_value_that_the_app_returns_is_logged(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        await respond(send, b"x")
        return 5

    server = serve(app)
    assert server.ask(get()).body == b"x"
    assert one_log(server) == ["ASGI callable should return None, but returned '5'."]


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([part(b"x")], "Expected ASGI message 'http.response.start', but got 'http.response.body'."),
        ([{"type": "nonsense"}], "Expected ASGI message 'http.response.start', but got 'nonsense'."),
        ([start(), start()], "Expected ASGI message 'http.response.body', but got 'http.response.start'."),
        (
            [start(), part(), part()],
            "Unexpected ASGI message 'http.response.body' sent, after response already completed.",
        ),
    ],
)
def test_messages_out_of_order_are_named(serve: Serve, messages: list[Any], complaint: str) -> None:
    server = serve(sending(*messages))
    server.ask(get())
    one_log(server)
    (record,) = server.errors.tracebacks
    assert record.exc_info is not None
    assert (type(record.exc_info[1]), str(record.exc_info[1])) == (RuntimeError, complaint)


# -- clients that leave


async def until_it_fails(send: Send) -> None:
    while True:
        await send(part(b"x" * 1000, True))
        await asyncio.sleep(0)  # in the app


async def lets_it_escape(send: Send) -> None:
    await until_it_fails(send)


async def wraps_it(send: Send) -> None:
    try:
        await until_it_fails(send)
    except OSError:
        raise ValueError("the framework's own word for it") from None


@pytest.mark.parametrize("size", [1, 5_000, 100_000])
def test_an_app_that_only_sends_is_told_that_the_client_is_gone(serve: Serve, size: int) -> None:
    """A lost transport takes everything and never pauses: the event loop has to run nevertheless."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            await send(part(b"x" * size, True))
        raise TimeoutError

    server = serve(app)
    client = server.connect()
    client.send(get())
    client.until(b"\r\n\r\n")
    client.reset()
    server.until(lambda: not server.server_state.in_flight)
    assert server.errors.lines == []


async def swallows_it(send: Send) -> None:
    try:
        await until_it_fails(send)
    except OSError as error:
        assert isinstance(error, ClientDisconnected)  # noqa: PT017


@pytest.mark.parametrize("streams", [lets_it_escape, wraps_it, swallows_it])
def test_send_fails_once_the_client_is_gone_and_that_is_no_error(
    serve: Serve, streams: Callable[[Send], Awaitable[None]]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await streams(send)

    server = serve(app)
    client = server.connect()
    client.send(get())
    client.until(b"xxx")
    client.reset()
    server.until(lambda: not server.server_state.in_flight)
    assert server.errors.lines == []
    assert server.server_state.served == 1


def test_a_real_error_after_the_client_left_is_logged(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        raise ZeroDivisionError

    server = serve(app)
    client = server.connect()
    client.send(post(body=b"x"))
    server.until(lambda: server.server_state.in_flight)
    client.reset()
    assert one_log(server) == ["Exception in ASGI application\n"]


def test_fields_that_the_app_changes_in_place_are_sent_as_they_are_now(serve: Serve) -> None:
    kept: list[Any] = [(b"x-kept", b"0"), [b"x-list", b"0"], (b"x-array", bytearray(b"0"))]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"", 200, *kept[: int(scope["query_string"])])
        kept[0] = (b"x-kept", b"%d" % (int(kept[0][1]) + 1))
        kept[1][1] = kept[0][1]
        kept[2][1][:] = kept[0][1]

    client = serve(app).connect()
    for n in range(6):
        answer = client.ask(get(f"/?{1 + n // 2}")).raw
        for name in (b"x-kept", b"x-list", b"x-array")[: 1 + n // 2]:
            assert b"%b: %d\r\n" % (name, n) in answer


def test_fields_rendered_before_are_framed_anew_for_each_response(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"", int(scope["query_string"]), (b"x-same", b"yes"))

    client = serve(app).connect()
    for status in (200, 304, 204, 200):
        answer = client.ask(get(f"/?{status}"))
        assert answer.status == status
        assert b"x-same: yes\r\n" in answer.raw
    assert client.ask(b"HEAD /?200 HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD").status == 200


def test_invented_fields_do_not_fill_the_memory(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"", 200, (b"x-request", scope["query_string"]))

    server = serve(app)
    client = server.connect()
    for n in range(600):
        assert client.ask(get(f"/?{n}")).status == 200
    assert len(server.server_state.heads) <= 256


def test_dates_are_written_as_the_standard_library_writes_them() -> None:
    """Every weekday, every month, a leap day, and numbers of one digit where the format has two."""
    for seconds in (0, 951782400, *range(1767225600, 1767225600 + 366 * 86400, 86400 + 3723)):
        assert imf_fixdate(seconds) == formatdate(seconds, usegmt=True)


def test_a_status_that_cannot_be_sent_is_none_for_a_websocket_denial_either(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 700, "headers": []})

    server = serve(app)
    answer = server.ask(
        get(
            "/",
            "Connection: upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        )
    )
    assert answer.status == 500
    server.until(lambda: not server.server_state.requests)
    assert len(server.errors.tracebacks) == 1
