"""Bodies of WSGI requests and responses: the slower side sets the pace."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ostler.worker.interfaces.wsgi_channel import HIGH_WATER
from tests.worker.conftest import Serve
from tests.worker.harness import PATIENCE, Server, get, post
from tests.worker.interfaces.wsgi_apps import MB, TEXT, Closing, Environ, StartResponse, giving, wsgi


def paused(server: Server) -> bool:
    return any(connection.write_paused for connection in server.server_state.connections)  # type: ignore[attr-defined]


def test_a_client_that_does_not_read_stops_the_iteration(serve: Serve) -> None:
    body = Closing(b"x" * 65_536 for _ in range(1000))
    server = serve(wsgi(giving(body)))
    client = server.connect(receive_buffer=4096)
    client.send(get())
    server.until(lambda: paused(server))
    assert body.taken * 65_536 < 20 * MB
    assert len(client.answer().body) == 1000 * 65_536
    assert body.closed.wait(PATIENCE)


def test_many_small_blocks_arrive_in_order(serve: Serve) -> None:
    blocks = [b"%d\n" % number for number in range(20_000)]
    assert serve(wsgi(giving(iter(blocks)))).ask(get()).body == b"".join(blocks)


def test_a_client_that_leaves_ends_the_iteration_and_closes(serve: Serve) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65_536

    body = Closing(endless())
    server = serve(wsgi(giving(body)))
    client = server.connect(receive_buffer=4096)
    client.send(get())
    server.until(lambda: paused(server))
    client.reset()
    assert body.closed.wait(PATIENCE)
    server.until(lambda: not server.server_state.in_flight)
    assert server.errors.lines == []


def test_a_client_that_leaves_is_noticed_by_empty_blocks_and_by_write(serve: Serve) -> None:
    ended = threading.Semaphore(0)

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        write = start_response("200 OK", TEXT)
        try:
            if environ["PATH_INFO"] == "/write":
                while True:
                    write(b"x" * 65_536)
            write(b"x")
            for number in range(10**9):
                yield b"" if number % 100 else b"x" * 1000
        finally:
            ended.release()

    server = serve(wsgi(app))
    for path in ("/write", "/empty"):
        client = server.connect(receive_buffer=4096)
        client.send(get(path))
        client.until(b"\r\n\r\n")
        client.reset()
        assert ended.acquire(timeout=PATIENCE)
    server.until(lambda: not server.server_state.in_flight)
    assert server.errors.lines == []


def test_the_body_has_all_methods_of_a_file(serve: Serve) -> None:
    read: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        stream = environ["wsgi.input"]
        read.append(stream.read(2))
        read.append(stream.readline(3))
        read.append(stream.readline())
        read.append(stream.readlines(1))
        read.append(next(iter(stream)))
        read.append(stream.read(0))
        read.append(stream.readlines())
        read.append((stream.read(), stream.read(1), stream.readline(), stream.readlines(), list(stream)))
        start_response("200 OK", TEXT)
        return []

    client = serve(wsgi(app)).connect()
    expected = [b"ab", b"cde", b"f\n", [b"two\n"], b"three\n", b"", [b"four\n", b"five"]]
    for request in (
        post(body=b"abcdef\ntwo\nthree\nfour\nfive"),
        get("/", "Transfer-Encoding: chunked", method="POST")
        + b"1\r\na\r\n9\r\nbcdef\ntwo\r\n10\r\n\nthree\nfour\nfive\r\n0\r\n\r\n",
    ):
        assert client.ask(request).status == 200
        assert read == [*expected, (b"", b"", b"", [], [])]
        read.clear()


def test_an_app_that_does_not_read_stops_the_socket(serve: Serve) -> None:
    go = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        assert go.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [b"%d" % sum(map(len, iter(lambda: environ["wsgi.input"].read(100_000), b"")))]

    server = serve(wsgi(app))
    client = server.connect()
    total = 10 * MB
    data = get("/", f"Content-Length: {total}", method="POST") + b"x" * total
    sender = threading.Thread(target=client.send, args=(data,))
    sender.start()
    server.until(lambda: any(c.reading_paused for c in server.server_state.connections))  # type: ignore[attr-defined]
    # One piece is fetched ahead, one is held by the server.
    assert server.received < 2 * HIGH_WATER + 4 * 256 * 1024
    go.set()
    assert client.answer().body == b"%d" % total
    sender.join()


def test_a_body_is_read_while_it_arrives_and_answered_meanwhile(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        for line in environ["wsgi.input"]:
            yield line.upper()

    client = serve(wsgi(app)).connect()
    client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    for line in (b"one\n", b"two\n", b"three\n"):
        client.send(b"%x\r\n%b\r\n" % (len(line), line))
        # A buffered reader returns a line as soon as it has arrived.
        assert client.until(line.upper() + b"\r\n")
    client.send(b"0\r\n\r\n")
    assert client.until(b"0\r\n\r\n")


@pytest.mark.parametrize("reads", [True, False])
def test_100_continue_is_sent_when_the_body_is_read_and_only_then(serve: Serve, reads: bool) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"].read() if reads else b"unread"
        start_response("200 OK", TEXT)
        return [body]

    client = serve(wsgi(app)).connect()
    client.send(get("/", "Content-Length: 3", "Expect: 100-continue", method="POST"))
    if reads:
        assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
    assert client.answer().body == (b"abc" if reads else b"unread")


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_client_that_leaves_within_its_body_is_an_error_to_the_reader(serve: Serve, framing: str) -> None:
    raised: list[BaseException] = []
    begun = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        begun.set()
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            raised.append(error)
            raise
        return []

    server = serve(wsgi(app))
    client = server.connect()
    client.send(get("/", framing, method="POST") + b"3\r\nabc")
    assert begun.wait(PATIENCE)
    client.reset()
    server.until(lambda: not server.server_state.in_flight)
    assert len(raised) == 1
    assert server.errors.lines == []


def test_an_unread_body_does_not_hurt_the_next_request(serve: Serve) -> None:
    client = serve(wsgi(giving([b"ok"]))).connect()
    for _ in range(3):
        assert client.ask(post(body=b"x" * 1000)).body == b"ok"


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", TEXT)
        return [environ["PATH_INFO"].encode() + environ["wsgi.input"].read()]

    client = serve(wsgi(app)).connect()
    client.send(b"".join(post(f"/{number}", body=b"!") for number in range(50)))
    assert [client.answer().body for _ in range(50)] == [b"/%d!" % number for number in range(50)]
