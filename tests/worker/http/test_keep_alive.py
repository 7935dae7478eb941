"""Several requests on one connection; how connections end, and when."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from tests.worker.conftest import Serve
from tests.worker.harness import (
    Client,
    Server,
    echo,
    get,
    hello,
    opened,
    part,
    post,
    read_body,
    respond,
    start,
)


class Gate:
    """An app that answers each request only once the test allows it, by path."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.cancelled: list[str] = []
        self.open: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.entered.append(path)
        try:
            await opened(lambda: path in self.open)
        except asyncio.CancelledError:
            self.cancelled.append(path)
            raise
        await respond(send, path.encode())


def test_a_connection_is_kept_by_default(serve: Serve) -> None:
    client = serve(echo).connect()
    for path in ("/1", "/2", "/3"):
        answer = client.ask(post(path, body=b"x"))
        assert (answer.keeps, answer.body) == (True, f"POST {path} x".encode())
    assert answer.get("connection") is None


@pytest.mark.parametrize("value", ["close", "Close", "foo, close", "keep-alive, close", "close, keep-alive"])
def test_a_client_may_ask_to_close(serve: Serve, value: str) -> None:
    client = serve(hello).connect()
    answer = client.ask(get("/", f"Connection: {value}"))
    assert answer.get("connection") == "close"
    assert client.ended()


def test_close_wins_in_several_fields(serve: Serve) -> None:
    client = serve(hello).connect()
    assert not client.ask(get("/", "Connection: close", "Connection: keep-alive")).keeps
    assert client.ended()


def test_http_1_0_closes_by_default_and_is_kept_on_request(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    answer = client.ask(get("/", "Connection: Keep-Alive", version="1.0"))
    assert answer.get("connection") == "keep-alive"
    answer = client.ask(get(version="1.0"))
    assert answer.get("connection") == "close"
    assert client.ended()
    assert server.ask(b"GET / HTTP/1.0\r\n\r\n").status == 200


def test_nothing_after_a_closing_request_is_served(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    client.send(get("/1", "Connection: close") + get("/2") + b"\0garbage\r\n\r\n")
    assert client.answer().status == 200
    assert client.ended()
    assert server.server_state.served == 1
    assert server.errors.lines == []


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate)
    client = server.connect()
    client.send(get("/1") + post("/2", body=b"x" * 1000) + get("/3") + get("/4", "Connection: close"))
    server.until(lambda: gate.entered == ["/1"])
    gate.open |= {"/4", "/3", "/2"}
    server.advance(0)
    assert gate.entered == ["/1"], "a request starts when it is its turn"
    gate.open.add("/1")
    assert [client.answer().body for _ in range(4)] == [b"/1", b"/2", b"/3", b"/4"]
    assert client.ended()


def test_thousands_of_pipelined_requests_are_answered_and_few_are_held(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate, access_log=False)
    client = server.connect()
    total = 20_000
    sender = threading.Thread(target=client.send, args=(get("/x") * total,))
    sender.start()
    server.until(lambda: any(c.reading_paused for c in server.server_state.connections))  # type: ignore[attr-defined]
    (connection,) = server.server_state.connections
    assert len(connection._queue) < 600  # type: ignore[attr-defined]
    gate.open.add("/x")
    for _ in range(total):
        assert client.answer().body == b"/x"
    sender.join()
    assert client.quiet()


def test_an_idle_connection_is_closed_after_the_keep_alive_time(serve: Serve) -> None:
    server = serve(hello, timeout_keep_alive=5.0)
    client = server.connect()
    client.ask(get())
    server.advance(4.9)
    assert client.quiet()
    client.ask(get())
    server.advance(4.9)
    assert client.quiet()
    server.advance(0.2)
    assert client.ended()
    assert server.errors.lines == []


def test_without_keep_alive_time_each_response_closes(serve: Serve) -> None:
    client = serve(hello, timeout_keep_alive=0.0).connect()
    assert not client.ask(get()).keeps
    assert client.ended()


def test_a_fresh_connection_that_stays_silent_is_closed_silently(serve: Serve) -> None:
    server = serve(hello, timeout_request_header=10.0)
    client = server.connect()
    server.until(lambda: server.server_state.connections)
    server.advance(9.9)
    assert client.quiet()
    server.advance(0.2)
    assert client.ended()
    assert server.errors.lines == []


@pytest.mark.parametrize("first", [True, False], ids=["on a fresh connection", "on a kept one"])
def test_a_head_that_drips_in_is_refused_at_its_deadline(serve: Serve, first: bool) -> None:
    server = serve(hello, timeout_request_header=10.0, timeout_keep_alive=5.0)
    client = server.connect()
    if not first:
        client.ask(get())
    before = server.received
    for sent, byte in enumerate(b"GET / HTT", 1):
        client.send(bytes([byte]))
        server.until(lambda want=before + sent: server.received == want)  # type: ignore[misc]
        server.advance(1.05)
    assert client.quiet()
    server.advance(1.0)
    answer = client.answer()
    assert (answer.status, answer.keeps) == (408, False)
    assert client.ended()
    assert len(server.errors.lines) == 1
    assert server.errors.tracebacks == []


def test_empty_lines_do_not_make_an_idle_connection_a_slow_one(serve: Serve) -> None:
    server = serve(hello, timeout_keep_alive=5.0)
    client = server.connect()
    client.ask(get())
    client.send(b"\r\n")
    server.until(lambda: server.received == len(get()) + 2)
    server.advance(6)
    assert client.ended()


def test_empty_lines_that_come_alone_are_bounded_in_the_first_piece_too(serve: Serve) -> None:
    for before in (b"", get()):
        server = serve(hello)
        client = server.connect()
        if before:
            client.ask(before)
        client.send(b"\r\n" * 1000)
        assert client.answer().status == 400
        assert client.ended()


def test_few_empty_lines_before_each_request_are_not_summed_up(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    received = 0
    for _ in range(4):
        client.send(b"\r\n" * 300)
        received += 600
        server.until(lambda want=received: server.received == want)  # type: ignore[misc]
        assert client.ask(get()).status == 200
        received += len(get())


def test_a_request_has_as_long_as_it_takes(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate, timeout_keep_alive=1.0, timeout_request_header=1.0)
    client = server.connect()
    client.send(get("/slow"))
    server.until(lambda: gate.entered)
    server.advance(100)
    gate.open.add("/slow")
    assert client.answer().body == b"/slow"


def test_the_head_behind_a_slow_request_has_its_time_from_its_turn(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate, timeout_request_header=10.0, timeout_keep_alive=5.0)
    client = server.connect()
    client.send(get("/1") + b"GET /2 HT")
    server.until(lambda: gate.entered)
    server.advance(100)
    gate.open |= {"/1", "/2"}
    assert client.answer().body == b"/1"
    server.advance(9)
    client.send(b"TP/1.1\r\nHost: a\r\n\r\n")
    assert client.answer().body == b"/2"


def test_a_half_closed_client_gets_its_answers(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate)
    client = server.connect()
    client.send(get("/1") + get("/2"))
    server.until(lambda: gate.entered)
    client.finish_sending()
    gate.open |= {"/1", "/2"}
    assert [client.answer().body for _ in range(2)] == [b"/1", b"/2"]
    assert client.ended()


@pytest.mark.parametrize("rest", [b"GET /3 HT", post("/3", "X: y", body=b"abc")[:-1], b"BAD\r\n\r\n"])
def test_a_half_closed_client_gets_answers_to_what_it_sent_as_a_whole(serve: Serve, rest: bytes) -> None:
    gate = Gate()
    server = serve(gate)
    client = server.connect()
    client.send(get("/1") + get("/2") + rest)
    client.finish_sending()
    gate.open |= {"/1", "/2"}
    assert [client.answer().body for _ in range(2)] == [b"/1", b"/2"]
    if rest.startswith(b"BAD"):
        assert client.answer().status == 400
    assert client.ended()


def test_thousands_of_requests_before_a_half_close_are_all_answered(serve: Serve) -> None:
    client = serve(hello, access_log=False).connect()

    def send_all() -> None:
        client.send(get() * 10_000)
        client.finish_sending()

    sender = threading.Thread(target=send_all)
    sender.start()
    for _ in range(10_000):
        assert client.answer().body == b"hello"
    sender.join()
    assert client.ended()


def test_a_client_that_leaves_within_a_head_leaves_no_trace(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\nHo")
    server.until(lambda: server.received)
    client.finish_sending()
    assert client.ended()
    server.until(lambda: not server.server_state.connections)
    assert server.errors.lines == []


# -- draining


def test_draining_answers_in_flight_and_idle_connections_and_closes_them(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate)
    idle, busy = server.connect(), server.connect()
    gate.open.add("/idle")
    idle.ask(get("/idle"))
    busy.send(get("/busy"))
    server.until(lambda: "/busy" in gate.entered)
    emptied = threading.Event()
    server.server_state.on_change = emptied.set
    server.call(server.server_state.drain)
    assert idle.quiet()
    gate.open.add("/busy")
    answer = busy.answer()
    assert (answer.body, answer.get("connection")) == (b"/busy", "close")
    assert busy.ended()
    assert not emptied.is_set()
    answer = idle.ask(get("/idle"))
    assert (answer.body, answer.get("connection")) == (b"/idle", "close")
    assert idle.ended()
    assert emptied.wait(5)


def test_a_drain_does_not_tell_the_app_that_its_client_left(serve: Serve) -> None:
    seen: list[str] = []
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)

        async def listen() -> None:
            seen.append((await receive())["type"])

        listener = asyncio.ensure_future(listen())
        await opened(go.is_set)
        assert not seen
        await respond(send, b"whole")
        await listener

    server = serve(app)
    client = server.connect()
    client.send(get())
    server.until(lambda: server.server_state.in_flight)
    server.call(server.server_state.drain)
    server.advance(20)
    assert seen == []
    go.set()
    assert client.answer().body == b"whole"
    assert client.ended()
    server.until(lambda: not server.server_state.in_flight)
    assert (seen, server.errors.lines) == (["http.disconnect"], [])


def test_draining_answers_what_was_pipelined(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate)
    client = server.connect()
    client.send(get("/1") + get("/2") + get("/3"))
    server.until(lambda: gate.entered)
    server.call(server.server_state.drain)
    gate.open |= {"/1", "/2", "/3"}
    answers = [client.answer() for _ in range(3)]
    assert [answer.keeps for answer in answers] == [True, True, False]
    assert client.ended()


def test_draining_lets_an_idle_connection_wait_out_its_time(serve: Serve) -> None:
    server = serve(hello, timeout_keep_alive=5.0)
    client = server.connect()
    client.ask(get())
    server.call(server.server_state.drain)
    server.advance(4)
    assert client.quiet()
    server.advance(2)
    assert client.ended()


def stop_everything(server: Server) -> None:
    """What a server does as everything stops, with the clock in the test's hand."""
    server_state = server.server_state
    server_state.on_stop = lambda: server_state.limit_idle(server_state.now)
    server.call(server_state.withdraw)
    server.call(server_state.drain)


@pytest.mark.parametrize("used", [True, False])
def test_when_everything_stops_a_connection_is_kept_for_a_second_without_a_request(
    serve: Serve, used: bool
) -> None:
    server = serve(hello, timeout_keep_alive=600.0, timeout_request_header=600.0)
    idle, asks = server.connect(), server.connect()
    server.until(lambda: len(server.server_state.connections) == 2)
    if used:
        for client in (idle, asks):
            assert client.ask(get()).keeps
    stop_everything(server)
    server.advance(0.9)
    assert idle.quiet()
    assert not asks.ask(get()).keeps
    assert asks.ended()
    server.advance(0.2)
    assert idle.ended()


def test_when_everything_stops_a_connection_that_was_idle_for_long_is_closed_at_once(serve: Serve) -> None:
    server = serve(hello, timeout_keep_alive=600.0)
    idle, half = server.connect(), server.connect()
    for client in (idle, half):
        client.ask(get())
    server.advance(3)
    half.send(get()[:10])
    server.until(lambda: any(c._parser.in_head for c in server.server_state.connections))  # type: ignore[attr-defined]
    stop_everything(server)
    server.advance(0.1)
    assert idle.ended()
    server.advance(5)
    half.send(get()[10:])
    answer = half.answer()
    assert (answer.status, answer.keeps) == (200, False)


def test_a_stop_that_comes_during_a_drain_limits_the_time_of_idle_connections_too(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate, timeout_keep_alive=600.0)
    idle = server.connect()
    gate.open.add("/")
    idle.ask(get())
    server.call(server.server_state.drain)
    server.advance(100)
    assert idle.quiet()
    stop_everything(server)
    server.advance(1.1)
    assert idle.ended()


def test_past_the_grace_what_is_in_flight_is_cancelled_and_counted(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate)
    gate.open.add("/idle")
    idle, waiting, streaming = server.connect(), server.connect(), server.connect()
    idle.ask(get("/idle"))
    waiting.send(get("/1"))
    streaming.send(get("/2"))
    server.until(lambda: len(gate.entered) == 3)
    emptied = threading.Event()
    server.server_state.on_change = emptied.set
    server.call(server.server_state.drain)
    assert server.call(server.server_state.cancel) == 2
    assert [client.answer().status for client in (waiting, streaming)] == [503, 503]
    assert all(client.ended() for client in (idle, waiting, streaming))
    assert emptied.wait(5)
    server.until(lambda: server.server_state.in_flight == 0)
    assert sorted(gate.cancelled) == ["/1", "/2"]
    assert server.errors.lines == []


def test_a_request_cancelled_before_its_first_step_is_answered_too(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    server.until(lambda: server.server_state.connections)
    (connection,) = server.server_state.connections

    def at_once() -> int:
        connection.data_received(get())  # type: ignore[attr-defined]
        return server.server_state.cancel()

    assert server.call(at_once) == 1
    assert client.answer().status == 503
    assert client.ended()
    server.until(lambda: server.server_state.in_flight == 0)


def test_abort_cuts_everything_at_once(serve: Serve) -> None:
    gate = Gate()
    server = serve(gate)
    client = server.connect()
    client.send(get("/1"))
    server.until(lambda: gate.entered)
    server.call(server.server_state.abort)
    server.until(lambda: not server.server_state.connections and not server.server_state.in_flight)
    with pytest.raises((ConnectionError, AssertionError)):
        client.answer()


def test_a_task_outlives_its_connection_and_is_still_counted(serve: Serve) -> None:
    release = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"done")
        await opened(release.is_set)  # as a background task of Starlette's

    server = serve(app)
    client = server.connect()
    assert client.ask(get()).body == b"done"
    assert client.ask(get()).body == b"done"
    client.close()
    server.until(lambda: not server.server_state.connections)
    assert server.call(lambda: server.server_state.in_flight) == 2
    assert server.server_state.served == 2
    release.set()
    server.until(lambda: server.server_state.in_flight == 0)


# -- counts


def test_the_service_tells_once_that_it_has_served_enough(serve: Serve) -> None:
    counts: list[int] = []
    server = serve(hello)
    server.server_state.retire_after = 2
    server.server_state.on_served = lambda: counts.append(server.server_state.served)
    client = server.connect()
    for _ in range(4):
        client.ask(get())
    assert counts == [2]


def test_too_many_requests_are_answered_with_503(serve: Serve) -> None:
    release = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await opened(release.is_set)
        await respond(send, b"done")

    server = serve(app, limit_concurrency=2)
    busy = [server.connect() for _ in range(2)]
    for client in busy:
        client.send(get())
    server.until(lambda: server.server_state.in_flight == 2)
    third = server.connect()
    answer = third.ask(get())
    assert (answer.status, answer.body, answer.keeps) == (503, b"Service Unavailable", False)
    assert third.ended()
    release.set()
    assert [client.answer().body for client in busy] == [b"done"] * 2
    assert server.errors.lines == ["Exceeded concurrency limit."]


def test_idle_connections_do_not_count_for_the_limit_of_concurrency(serve: Serve) -> None:
    server = serve(hello, limit_concurrency=1)
    clients = [server.connect() for _ in range(6)]
    silent = [server.connect() for _ in range(6)]
    for _ in range(2):
        assert [client.ask(get()).status for client in clients] == [200] * 6
    assert [client.ask(get()).status for client in silent] == [200] * 6
    assert server.errors.lines == []


def test_work_that_outlives_its_response_counts_for_the_limit(serve: Serve) -> None:
    release = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"done")
        if scope["path"] == "/work":
            await opened(release.is_set)

    server = serve(app, limit_concurrency=2)
    for _ in range(2):
        assert server.ask(get("/work", "Connection: close")).body == b"done"
        server.until(lambda: not server.server_state.connections)
    assert server.ask(get()).status == 503
    release.set()
    server.until(lambda: not server.server_state.in_flight and not server.server_state.connections)
    assert server.ask(get()).status == 200


def slow_reader(server: Server) -> Client:
    client = server.connect(receive_buffer=4096)
    client.send(get())
    return client


def test_a_slow_reader_of_the_last_response_is_not_cut_while_it_reads(serve: Serve) -> None:
    body = b"x" * 8_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send(start(200, (b"content-length", b"%d" % len(body)), (b"connection", b"close")))
        await send(part(body))

    server = serve(app)
    client = slow_reader(server)
    client.until(b"\r\n\r\n")
    for _ in range(3):
        server.advance(6)
        client.take(1_000_000)
    client.take(len(body) - 3_000_000)
    assert client.ended()


def test_a_client_that_stops_reading_is_cut_off(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"x" * 8_000_000)

    server = serve(app)
    client = slow_reader(server)
    client.until(b"\r\n\r\n")
    server.until(lambda: not server.server_state.in_flight)
    for _ in range(4):
        server.advance(6)
    server.until(lambda: not server.server_state.connections)


def test_a_connection_that_lingers_does_not_hold_up_new_code(serve: Serve) -> None:
    """As with --reload: the client was answered before its body was read, and may send more of it."""

    async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"no")

    server = serve(answer_at_once)
    client = server.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nxxx")
    assert client.answer("POST").body == b"no"
    server.until(lambda: any("lingering" in repr(each) for each in server.server_state.connections))

    server.call(server.server_state.leave)

    server.until(lambda: not any("lingering" in repr(each) for each in server.server_state.connections))


# -- empty lines


@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
def test_empty_lines_do_not_put_off_the_deadline(serve: Serve, line: bytes) -> None:
    server = serve(hello, timeout_request_header=10, timeout_keep_alive=10)
    new, kept = server.connect(), server.connect()
    assert kept.ask(get()).status == 200
    for _ in range(3):
        server.advance(3)
        wanted = server.received + 2 * len(line)
        new.send(line)
        kept.send(line)
        server.until(lambda wanted=wanted: server.received >= wanted)  # type: ignore[misc]
    server.advance(3)
    assert new.ended()
    assert kept.ended()


@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
def test_empty_lines_are_bounded_also_between_requests_and_one_by_one(serve: Serve, line: bytes) -> None:
    server = serve(hello)
    client = server.connect()
    for _ in range(3):
        assert client.ask(get()).status == 200
        for _ in range(100):
            wanted = server.received + len(line)
            client.send(line)
            server.until(lambda wanted=wanted: server.received >= wanted)  # type: ignore[misc]
    assert client.ask(get()).status == 200
    client.send(line * 100_000)
    assert client.answer().status == 400
    assert client.ended()
