"""WSGI applications under the real server: what they are given, and what becomes of what they give."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from ostler.worker.asgi import Message, Scope
from ostler.worker.middleware.proxy_headers import TrustedProxies
from ostler.worker.middleware.wsgi import HIGH_WATER, WsgiAdapter
from tests.worker.http.conftest import Serve
from tests.worker.http.harness import PATIENCE, Client, Server, get, post, until

TEXT = [("Content-Type", "text/plain")]
MB = 1_000_000
Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]


def wsgi(app: Any, threads: int = 4) -> WsgiAdapter:
    return WsgiAdapter(app, threads=threads, multiprocess=False)


class Recorder:
    """A WSGI application that keeps each environ and body."""

    def __init__(self) -> None:
        self.environs: list[Environ] = []
        self.bodies: list[bytes] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.environs.append(environ)
        self.bodies.append(environ["wsgi.input"].read())
        start_response("200 OK", TEXT)
        return [b"ok"]


def environ_of(serve: Serve, data: bytes, **options: Any) -> Environ:
    app = Recorder()
    assert serve(wsgi(app), **options).ask(data).status == 200
    return app.environs[0]


class Closing:
    """An iterable whose close() is noticed."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self.taken = 0
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = next(self._blocks)
        self.taken += 1
        return block

    def close(self) -> None:
        assert not self.closed.is_set(), "closed twice"
        self.closed.set()


def giving(blocks: Iterable[bytes], status: str = "200 OK", headers: list[tuple[str, str]] = TEXT) -> Any:
    """A WSGI application that answers with `blocks`."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, headers)
        return blocks

    return app


# -- environ


def test_the_environ_is_that_of_pep_3333(serve: Serve) -> None:
    app = Recorder()
    server = serve(wsgi(app))
    client = server.connect()
    client.ask(
        get("/a%20b/%C3%A9?x=%20y&z", "X-Two: 1", "x-two: 2", "Cookie: a=1", "Cookie: b=2", "X_Y: evil")
    )
    (environ,) = app.environs
    assert type(environ) is dict
    plain = {key: value for key, value in environ.items() if not key.startswith("wsgi.")}
    host, port = client.socket.getsockname()
    assert plain == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/Ã©",
        "QUERY_STRING": "x=%20y&z",
        "REQUEST_URI": "/a%20b/%C3%A9?x=%20y&z",
        "RAW_URI": "/a%20b/%C3%A9?x=%20y&z",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.address[1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": host,
        "REMOTE_PORT": str(port),
        "HTTP_HOST": "a.example",
        "HTTP_X_TWO": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
    }
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "http"
    flags = ("multithread", "multiprocess", "run_once", "input_terminated")
    assert [environ[f"wsgi.{flag}"] for flag in flags] == [True, False, False, True]


def test_bytes_that_are_not_utf_8_reach_the_path(serve: Serve) -> None:
    assert environ_of(serve, get("/%ff%zz"))["PATH_INFO"] == "/\xff%zz"


@pytest.mark.parametrize("root", ["/é", "/é/"])
def test_a_root_path_is_the_script_name(serve: Serve, root: str) -> None:
    environ = environ_of(serve, get("/x%2Fy?q"), root_path=root)
    assert environ["SCRIPT_NAME"].encode("latin-1").decode() == "/é"
    assert environ["PATH_INFO"] == "/x/y"


def test_length_and_type_of_a_body_have_names_of_their_own(serve: Serve) -> None:
    environ = environ_of(serve, post("/", "Content-Type: a/b", "Content-Type: c/d", body=b"abc"))
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("a/b", "3")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & set(environ)


def test_what_a_trusted_proxy_says_is_in_the_environ(serve: Serve) -> None:
    data = get("/", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    environ = environ_of(serve, data, proxies=TrustedProxies("127.0.0.1"))
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("203.0.113.9", "https")
    assert environ["HTTPS"] == "on"
    assert "REMOTE_PORT" not in environ


def test_a_unix_socket_has_a_name_and_a_port_nevertheless(serve: Serve, tmp_path: Any) -> None:
    environ = environ_of(serve, get(), uds=str(tmp_path / "s"))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")
    assert environ["REMOTE_ADDR"] == ""


def test_names_made_up_without_end_do_not_fill_the_memory(serve: Serve) -> None:
    adapter = wsgi(Recorder())
    client = serve(adapter).connect()
    for number in range(20):
        client.ask(get("/", *(f"X-{number}-{index}: 1" for index in range(100))))
    assert len(adapter._environs._keys) <= 1024


# -- responses


def test_the_validator_has_nothing_to_object_to(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        stream = environ["wsgi.input"]
        first = stream.readline()
        body = first + stream.read(3) + b"".join(stream)
        start_response("200 OK", TEXT)
        yield b"%d " % len(body)
        yield body

    server = serve(wsgi(validator(app)))
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


def test_nothing_has_a_known_length_too(serve: Serve) -> None:
    server = serve(wsgi(giving([])))
    assert server.ask(get()).get("content-length") == "0"
    assert serve(wsgi(giving(iter(())))).ask(get()).get("content-length") == "0"
    assert server.ask(get(method="HEAD"), method="HEAD").get("content-length") is None


def test_a_large_list_is_sent_block_by_block(serve: Serve) -> None:
    answer = serve(wsgi(giving([b"x" * 50_000] * 3))).ask(get())
    assert (answer.get("content-length"), len(answer.body)) == ("150000", 150_000)


def test_each_block_of_a_generator_is_sent_when_it_is_there(serve: Serve) -> None:
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
    # What is there together may go together.
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
        (giving([b"x"], headers=[("X", "\u20ac")]), "latin-1"),
        (giving([b"x"], headers=[("X", "a\r\nb: c")]), "Invalid HTTP header value"),
        (giving([b"x"], headers=[("Content-Length", "many")]), "Invalid Content-Length"),
    ],
)
def test_an_error_before_anything_was_sent_is_a_500_and_logged_once(
    serve: Serve, app: Any, says: str
) -> None:
    server = serve(wsgi(app))
    assert server.ask(get()).status == 500
    server.until(lambda: not server.service.in_flight)
    (record,) = server.errors.tracebacks
    assert record.exc_info
    assert says in f"{record.exc_info[1]!r}"
    assert server.errors.lines == ["Exception in ASGI application\n"]


def test_an_error_amid_a_response_cuts_it_and_closes_the_iterable(serve: Serve) -> None:
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


def test_a_failing_close_is_logged_and_hurts_nobody(serve: Serve) -> None:
    class Failing(Closing):
        def close(self) -> None:
            raise KeyError("close")

    server = serve(wsgi(giving(Failing([b"x"]), headers=[("Content-Length", "1")])))
    assert server.ask(get()).body == b"x"
    server.until(lambda: not server.service.in_flight)
    assert len(server.errors.tracebacks) == 1


def test_more_than_the_length_is_not_sent_and_logged(serve: Serve) -> None:
    body = Closing([b"abc", b"def", b"ghi", b"jkl"])
    server = serve(wsgi(giving(body, headers=[("Content-Length", "5")])))
    assert server.ask(get()).body == b"abcde"
    assert body.closed.wait(PATIENCE)
    assert body.taken == 3
    assert server.errors.lines == ["The WSGI application gave more than its Content-Length"]
    server.until(lambda: not server.service.in_flight)


def test_less_than_the_length_closes_the_connection_and_is_logged(serve: Serve) -> None:
    server = serve(wsgi(giving([b"abc"], headers=[("Content-Length", "5")])))
    client = server.connect()
    client.send(get())
    assert client.rest().endswith(b"\r\n\r\nabc")
    assert server.errors.lines == ["Response content shorter than Content-Length"]


def test_what_is_done_behind_the_last_block_is_done(serve: Serve) -> None:
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
    server.until(lambda: not server.service.in_flight)
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
    server.until(lambda: not server.service.in_flight)
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


# -- who is slower sets the pace


def paused(server: Server) -> bool:
    return any(connection.write_paused for connection in server.service.connections)  # type: ignore[attr-defined]


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
    server.until(lambda: not server.service.in_flight)
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
    server.until(lambda: not server.service.in_flight)
    assert server.errors.lines == []


# -- the request's body


def test_the_body_is_a_file_in_every_respect(serve: Serve) -> None:
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
    server.until(lambda: any(c._paused for c in server.service.connections))  # type: ignore[attr-defined]
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
        # A buffered reader gives a line as soon as it is there.
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
def test_a_client_that_leaves_amid_its_body_is_an_error_to_whoever_reads(serve: Serve, framing: str) -> None:
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
    server.until(lambda: not server.service.in_flight)
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


# -- threads


def test_requests_run_side_by_side_and_wait_for_a_thread(serve: Serve) -> None:
    running = threading.Barrier(3)
    names: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        running.wait(PATIENCE)
        names.append(threading.current_thread().name)
        start_response("200 OK", TEXT)
        return [b"ok"]

    server = serve(wsgi(app, threads=3))
    clients = [server.connect() for _ in range(12)]
    for client in clients:
        client.send(get())
    assert [client.answer().body for client in clients] == [b"ok"] * 12
    assert set(names) == {"wsgi-1", "wsgi-2", "wsgi-3"}


def test_a_thread_is_begun_only_when_none_is_idle(serve: Serve) -> None:
    names = set()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        names.add(threading.current_thread().name)
        start_response("200 OK", TEXT)
        return [b"ok"]

    server = serve(wsgi(app))
    client = server.connect()
    for _ in range(20):
        client.ask(get())
        # The thread is idle a moment after its answer.
        until(lambda: server.service.app._threads._crew.idle)  # type: ignore[attr-defined]
    assert names == {"wsgi-1"}


def test_the_threads_end_with_the_adapter() -> None:
    from ostler.worker.threads import Threads

    done = threading.Semaphore(0)
    threads = Threads(3, "short-lived")
    for _ in range(3):
        threads.submit(lambda: (done.release(), None)[1])
    for _ in range(3):
        assert done.acquire(timeout=PATIENCE)
    del threads
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("short-lived")])


def test_past_the_grace_a_thread_is_left_behind_with_its_stack(serve: Serve) -> None:
    go = threading.Event()
    ended = threading.Event()

    def hanging(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        try:
            go.wait(PATIENCE)
            yield b"too late"
        finally:
            ended.set()

    server = serve(wsgi(hanging, threads=1))
    first, second = server.connect(), server.connect()
    first.send(get("/first?x"))
    until(lambda: any(thread.name == "wsgi-1" for thread in threading.enumerate()))
    server.until(lambda: server.service.in_flight == 1)
    second.send(get("/second"))
    server.until(lambda: server.service.in_flight == 2)
    until(lambda: server.call(lambda: server.service.app._threads._crew.idle) == -1)  # type: ignore[attr-defined]
    assert server.call(server.service.cancel) == 2
    assert first.answer().status == second.answer().status == 503
    (line,) = server.errors.lines
    assert line.startswith('"GET /first?x" still runs in a thread')
    assert "in hanging" in line
    go.set()
    assert ended.wait(PATIENCE)


def test_a_thread_that_waits_for_the_body_is_let_go_when_its_request_is_cancelled(serve: Serve) -> None:
    raised = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError:
            raised.set()
            raise
        return []

    server = serve(wsgi(app))
    client: Client = server.connect()
    client.send(get("/", "Content-Length: 10", "Expect: 100-continue", method="POST"))
    client.until(b"Continue\r\n\r\n")
    server.call(server.service.cancel)
    assert raised.wait(PATIENCE)
    assert client.answer().status == 503


def test_a_websocket_is_closed_before_it_is_accepted(serve: Serve) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def connect() -> None:
        scope: Scope = {"type": "websocket"}
        await wsgi(Recorder())(scope, receive, send)

    serve(wsgi(Recorder())).wait(connect())
    assert sent == [{"type": "websocket.close"}]
