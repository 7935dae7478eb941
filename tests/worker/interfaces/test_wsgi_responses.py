"""Responses of WSGI applications."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, cast
from wsgiref.validate import validator

import pytest

from tests.worker.conftest import Serve
from tests.worker.harness import PATIENCE, get, post
from tests.worker.interfaces.wsgi_apps import TEXT, Closing, Environ, StartResponse, giving, wsgi


def test_the_validator_of_wsgiref_finds_no_fault(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        stream = environ["wsgi.input"]
        first = stream.readline()
        body = first + stream.read(3) + b"".join(stream)
        start_response("200 OK", TEXT)
        yield b"%d " % len(body)
        yield body

    server = serve(wsgi(validator(cast(Any, app))))
    client = server.connect()
    # The validator wants a CONTENT_LENGTH or none, never an empty one.
    assert client.ask(get()).body == b"0 "
    assert client.ask(post(body=b"one\ntwo\nthree")).body == b"13 one\ntwo\nthree"
    chunked = post("/", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    assert client.ask(chunked + b"4\r\none\n\r\n3\r\ntwo\r\n0\r\n\r\n").body == b"7 one\ntwo"
    assert client.ask(get(method="OPTIONS")).body == b"0 "
    big = b"x" * 300_000
    assert client.ask(post(body=big)).body == b"300000 " + big
    assert server.errors.lines == []


@pytest.mark.parametrize("blocks", [[b"hel", b"lo"], (b"hello",), [b"hello"]])
def test_a_list_has_a_known_length(serve: Serve, blocks: Any) -> None:
    answer = serve(wsgi(giving(blocks))).ask(get())
    assert (answer.get("content-length"), answer.body) == ("5", b"hello")


def test_an_empty_body_has_a_known_length_too(serve: Serve) -> None:
    server = serve(wsgi(giving([])))
    assert server.ask(get()).get("content-length") == "0"
    assert serve(wsgi(giving(iter(())))).ask(get()).get("content-length") == "0"
    assert server.ask(get(method="HEAD"), method="HEAD").get("content-length") is None


def test_a_large_list_is_sent_block_by_block(serve: Serve) -> None:
    answer = serve(wsgi(giving([b"x" * 50_000] * 3))).ask(get())
    assert (answer.get("content-length"), len(answer.body)) == ("150000", 150_000)


def test_each_block_of_a_generator_is_sent_at_once(serve: Serve) -> None:
    go = threading.Semaphore(0)

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b""  # PEP 3333: sends nothing, not even the head
        for number in range(3):
            yield b"block %d" % number
            assert go.acquire(timeout=PATIENCE)

    client = serve(wsgi(app)).connect()
    client.send(get())
    for number in range(3):
        client.until(b"block %d\r\n" % number)
        assert client.quiet()
        go.release()
    assert client.until(b"0\r\n\r\n")


def test_write_sends_at_once_and_before_the_iterable(serve: Serve) -> None:
    go = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"one ")
        assert go.wait(PATIENCE)
        write(b"two ")
        return [b"three"]

    client = serve(wsgi(app)).connect()
    client.send(get())
    client.until(b"one \r\n")
    go.set()
    # Blocks that are there together may be sent together.
    assert b"".join(client._chunks()) == b"two three"


def test_without_a_length_http_1_0_is_delimited_by_the_close(serve: Serve) -> None:
    answer = serve(wsgi(giving(iter([b"a", b"b"])))).ask(get(version="1.0"))
    assert (answer.body, answer.keeps) == (b"ab", False)


def test_the_head_waits_for_the_first_block_and_may_be_replaced_until_then(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b""
        try:
            raise ValueError("late")
        except ValueError as error:
            start_response("404 Not Found", [("X-A", "1")], (ValueError, error, None))
        yield b"gone"

    answer = serve(wsgi(app)).ask(get())
    assert (answer.status, answer.get("x-a"), answer.body) == (404, "1", b"gone")


def test_after_the_first_block_exc_info_is_raised(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"begun"
        try:
            raise ValueError("late")
        except ValueError as error:
            start_response("500 Oh", TEXT, (ValueError, error, error.__traceback__))
        yield b"never"

    server = serve(wsgi(app))
    client = server.connect()
    client.send(get())
    assert client.rest().endswith(b"begun\r\n")
    (record,) = server.errors.tracebacks
    assert record.exc_info
    assert str(record.exc_info[1]) == "late"


def no_start(environ: Environ, start_response: StartResponse) -> list[bytes]:
    return [b"x"]


def no_start_and_no_block(environ: Environ, start_response: StartResponse) -> list[bytes]:
    return []


def start_twice(environ: Environ, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"x"]


def none(environ: Environ, start_response: StartResponse) -> None:
    start_response("200 OK", [])


def raising(environ: Environ, start_response: StartResponse) -> list[bytes]:
    raise KeyError("wrong")


def leaving(environ: Environ, start_response: StartResponse) -> list[bytes]:
    raise SystemExit(1)


def text(environ: Environ, start_response: StartResponse) -> Iterator[Any]:
    start_response("200 OK", [])
    yield "text"


def stop_iteration(environ: Environ, start_response: StartResponse) -> list[bytes]:
    raise StopIteration


@pytest.mark.parametrize(
    ("app", "says"),
    [
        (no_start, "did not call start_response"),
        (no_start_and_no_block, "did not call start_response"),
        (start_twice, "without exc_info"),
        (none, "not iterable"),
        (raising, "wrong"),
        (leaving, "1"),
        (stop_iteration, "StopIteration"),
        (giving(["text"]), "bytes, not str"),  # type: ignore[list-item]
        (text, "bytes, not str"),
        (giving([b""], "OK"), "three digits"),
        (giving([b"x"], "2000 OK"), "three digits"),
        (giving([b"x"], headers=[("X", 1)]), "must be str"),  # type: ignore[list-item]
        (giving([b"x"], headers=[("X", "\u20ac")]), "'latin"),
        (giving([b"x"], headers=[("X", "a\r\nb: c")]), "Invalid HTTP header value"),
        (giving([b"x"], headers=[("Content-Length", "many")]), "Invalid Content-Length"),
    ],
)
def test_an_error_before_anything_was_sent_is_a_500_and_logged_once(
    serve: Serve, app: Any, says: str
) -> None:
    server = serve(wsgi(app))
    assert server.ask(get()).status == 500
    server.until(lambda: not server.server_state.in_flight)
    (record,) = server.errors.tracebacks
    assert record.exc_info
    assert says in f"{record.exc_info[1]!r}"
    assert server.errors.lines == ["Exception in ASGI application\n"]


def test_an_error_within_a_response_cuts_it_and_closes_the_iterable(serve: Serve) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"begun"
        raise KeyError("wrong")

    body = Closing(blocks())
    server = serve(wsgi(giving(body)))
    client = server.connect()
    client.send(get())
    assert client.rest().endswith(b"begun\r\n")
    assert body.closed.is_set()
    assert len(server.errors.tracebacks) == 1


def test_a_failing_close_is_logged_and_the_response_is_complete(serve: Serve) -> None:
    class Failing(Closing):
        def close(self) -> None:
            raise KeyError("close")

    server = serve(wsgi(giving(Failing([b"x"]), headers=[("Content-Length", "1")])))
    assert server.ask(get()).body == b"x"
    server.until(lambda: not server.server_state.in_flight)
    assert len(server.errors.tracebacks) == 1


def test_more_than_the_length_is_not_sent_and_logged(serve: Serve) -> None:
    body = Closing([b"abc", b"def", b"ghi", b"jkl"])
    server = serve(wsgi(giving(body, headers=[("Content-Length", "5")])))
    assert server.ask(get()).body == b"abcde"
    assert body.closed.wait(PATIENCE)
    assert body.taken == 3
    assert server.errors.lines == ["The WSGI application gave more than its Content-Length"]
    server.until(lambda: not server.server_state.in_flight)


def test_less_than_the_length_closes_the_connection_and_is_logged(serve: Serve) -> None:
    server = serve(wsgi(giving([b"abc"], headers=[("Content-Length", "5")])))
    client = server.connect()
    client.send(get())
    assert client.rest().endswith(b"\r\n\r\nabc")
    assert server.errors.lines == ["Response content shorter than Content-Length"]


def test_the_application_runs_on_after_its_last_block(serve: Serve) -> None:
    done = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "1")])
        yield b"x"
        done.set()

    assert serve(wsgi(app)).ask(get()).body == b"x"
    assert done.wait(PATIENCE)


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No"), ("GET", "304 Not")])
def test_a_bodiless_response_ends_an_endless_iterable(serve: Serve, method: str, status: str) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"

    server = serve(wsgi(lambda environ, start: (start(status, TEXT), Closing(endless()))[1]))
    client = server.connect()
    for _ in range(2):
        answer = client.ask(get(method=method), method)
        assert (answer.status, answer.keeps) == (int(status[:3]), True)
        assert answer.get("content-length") is None
    server.until(lambda: not server.server_state.in_flight)
    assert server.errors.lines == []


def test_head_has_the_length_of_get(serve: Serve) -> None:
    server = serve(wsgi(giving([b"hello"])))
    assert server.ask(get(method="HEAD"), method="HEAD").get("content-length") == "5"


def test_a_file_is_sent_and_closed(serve: Serve, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1_000_003)
    opened = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        file = path.open("rb")
        opened.append(file)
        start_response("200 OK", [("Content-Length", "1000003")])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 8192)
        return wrapped

    server = serve(wsgi(app))
    assert server.ask(get()).body == path.read_bytes()
    server.until(lambda: not server.server_state.in_flight)
    assert opened[0].closed


def test_what_is_written_to_wsgi_errors_is_logged(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        errors = environ["wsgi.errors"]
        print("two", "words", file=errors)
        errors.write("several\nlines\nand")
        errors.writelines([" a rest", ""])
        errors.flush()
        errors.flush()
        start_response("200 OK", TEXT)
        return []

    server = serve(wsgi(app))
    server.ask(get())
    assert server.errors.lines == ["two words", "several\nlines", "and a rest"]
