"""Files as bodies: ASGI's path send and zero copy send, over TCP, Unix sockets and TLS."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler.worker.asgi import Application, ClientDisconnected, Message, Receive, Scope, Send
from ostler.worker.http.file_response import SMALL
from ostler.worker.http.flow_control import HIGH_WATER
from ostler.worker.http.sendfile import PIECE, READ_PIECE
from tests.certificates import Authority
from tests.worker.conftest import Serve
from tests.worker.harness import Client, Server, Way, get, hello, opened, part, respond, start

BIG = 3_000_000
CONTENT = random.Random(13).randbytes(BIG)
LENGTH = b"content-length"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["tcp", "unix", "tls"])
def serve(way: Way, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """The usual fixture, over each kind of connection; in the end no descriptor is left."""
    options: dict[str, Any] = {}
    trust: ssl.SSLContext | None = None
    if request.param == "tls":
        authority: Authority = request.getfixturevalue("authority")
        trust, options = authority.client(), authority.files
    servers: list[Server] = []

    def start_server(app: Application, **more: Any) -> Server:
        if request.param == "unix":
            more["uds"] = str(tmp_path / f"{len(servers)}.sock")
        servers.append(Server(way, app, trust=trust, **options, **more))
        return servers[-1]

    yield start_server
    for server in reversed(servers):
        server.close()
    assert [name for name in descriptors() if str(tmp_path) in name] == []


def descriptors() -> list[str]:
    """What this process has open."""
    if not Path("/proc/self/fd").exists():
        return []
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # that of the listing itself
            continue
    return found


def open_sockets() -> int:
    return sum(name.startswith("socket:") for name in descriptors())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is longer than a socket takes at once."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def pathsend(path: object) -> Message:
    return {"type": "http.response.pathsend", "path": path if isinstance(path, int) else str(path)}


def zerocopysend(file: object, **options: Any) -> Message:
    return {"type": "http.response.zerocopysend", "file": file, **options}


def length(size: int) -> tuple[bytes, bytes]:
    return LENGTH, b"%d" % size


class Sends:
    """An app that sends these messages for /file, keeps what that raises, and else says hello."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages
        self.scopes: list[Scope] = []
        self.raised: list[BaseException] = []
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["path"] != "/file":
            await hello(scope, receive, send)
            return
        try:
            for message in self.messages:
                await send(message)
                self.sent += 1
        except BaseException as error:
            self.raised.append(error)
            raise


def of_the_file(path: Path, size: int | None = None) -> Sends:
    return Sends(start(200, length(path.stat().st_size if size is None else size)), pathsend(path))


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A file that is longer than what socket and transport take."""
    path = tmp_path / "long"
    path.write_bytes(CONTENT * 3)
    return path


# -- the extensions in the scope


def test_the_scope_has_both_extensions_and_each_request_its_own(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({name for name in scope["extensions"] if name != "tls"})
        scope["extensions"].clear()
        await respond(send)

    seen: list[set[str]] = []
    client = serve(app).connect()
    client.ask(get())
    client.ask(get())
    assert seen == [{"http.response.pathsend", "http.response.zerocopysend"}] * 2


def test_without_sendfile_the_scope_has_neither(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({name for name in scope["extensions"] if name != "tls"})
        await respond(send)

    seen: list[set[str]] = []
    serve(app, sendfile=False).connect().ask(get())
    assert seen == [set()]


# -- whole files


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, READ_PIECE * 2, BIG])
def test_a_file_is_sent_whole_and_the_connection_kept(serve: Serve, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:size])
    client = serve(of_the_file(path)).connect()
    for _ in range(2):
        answer = client.ask(get("/file"))
        assert answer.body == CONTENT[:size]
        assert answer.get("content-length") == str(size)
    assert client.ask(get("/other")).body == b"hello"


@pytest.mark.parametrize("size", [0, SMALL, BIG])
def test_without_a_length_a_file_is_sent_in_chunks(serve: Serve, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:size])
    client = serve(Sends(start(), pathsend(path))).connect()
    assert client.ask(get("/file")).body == CONTENT[:size]
    assert client.ask(get("/other")).body == b"hello"


def test_http_1_0_gets_a_file_without_a_length_up_to_the_end_of_the_connection(
    serve: Serve, file: Path
) -> None:
    client = serve(Sends(start(), pathsend(file))).connect()
    answer = client.ask(get("/file", version="1.0"))
    assert (answer.body, answer.get("transfer-encoding")) == (CONTENT, None)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
def test_where_there_is_no_body_no_file_is_read(serve: Serve, file: Path, method: str, status: int) -> None:
    client = serve(Sends(start(status, length(BIG)), pathsend(file))).connect()
    client.send(get("/file", method=method))
    answer = client.answer(method)
    assert answer.status == status
    assert answer.get("content-length") == (None if status == 204 else str(BIG))
    assert client.ask(get("/other")).body == b"hello"


def test_connection_close_closes_after_the_file(serve: Serve, file: Path) -> None:
    client = serve(of_the_file(file)).connect()
    answer = client.ask(get("/file", "Connection: close"))
    assert (answer.body, answer.keeps) == (CONTENT, False)
    assert client.ended()


def test_pipelined_requests_behind_a_file_are_answered_after_it(serve: Serve, file: Path) -> None:
    client = serve(of_the_file(file)).connect()
    client.send(get("/file") + get("/other") + get("/file") + get("/other"))
    assert [client.answer().body for _ in range(4)] == [CONTENT, b"hello"] * 2


def test_a_client_that_closes_its_sending_side_gets_the_file(serve: Serve, file: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await opened(closed.is_set)
        await of_the_file(file)(scope, receive, send)

    closed = threading.Event()
    client = serve(app).connect()
    client.send(get("/file"))
    client.finish_sending()
    closed.set()  # Python's TLS client loses what comes while it sends close_notify
    assert client.answer().body == CONTENT
    assert client.ended()


def test_a_slow_client_gets_the_file_and_little_is_held_for_it(serve: Serve, long: Path) -> None:
    server = serve(of_the_file(long))
    client = server.connect(receive_buffer=4096)
    client.send(get("/file"))
    server.until(lambda: any(connection.write_paused for connection in server.server_state.connections))  # type: ignore[attr-defined]
    (connection,) = server.server_state.connections
    held = server.call(connection._transport.get_write_buffer_size)  # type: ignore[attr-defined]
    assert held <= HIGH_WATER + READ_PIECE
    assert client.answer().body == CONTENT * 3


def test_a_big_file_for_a_fast_client_lets_the_loop_run_between_pieces(serve: Serve, file: Path) -> None:
    """In each turn of the loop, a file sends no more than a PIECE."""
    turns = 0
    done = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()

        def turn() -> None:
            nonlocal turns
            if not done.is_set():
                turns += 1
                loop.call_soon(turn)

        await send(start(200, length(BIG)))
        turn()
        await send(pathsend(file))
        done.set()

    assert serve(app).ask(get()).body == CONTENT
    assert done.wait(10)
    assert turns >= BIG // PIECE >= 4


# -- files that are not as announced


def test_of_a_file_that_has_grown_the_announced_length_is_sent(serve: Serve, file: Path) -> None:
    client = serve(of_the_file(file, size=BIG - 7)).connect()
    assert client.ask(get("/file")).body == CONTENT[:-7]
    assert client.ask(get("/other")).body == b"hello"


@pytest.mark.parametrize("size", [0, SMALL, BIG])
def test_a_file_shorter_than_announced_is_cut_and_logged(serve: Serve, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:size])
    app = of_the_file(path, size=size + 1)
    server = serve(app)
    client = server.connect()
    client.send(get("/file"))
    client.until(b"\r\n\r\n")
    assert client.rest() == CONTENT[:size]
    assert server.errors.lines == ["Response content shorter than Content-Length"]
    assert (server.errors.tracebacks, app.raised) == ([], [])


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_that_shrinks_while_it_is_sent_is_cut_and_logged(
    serve: Serve, file: Path, announced: bool
) -> None:
    fields = [length(200_000_000)] if announced else []
    os.truncate(file, 200_000_000)  # sparse
    server = serve(Sends(start(200, *fields), pathsend(file)))
    client = server.connect(receive_buffer=4096)
    client.send(get("/file"))
    server.until(lambda: any(connection.write_paused for connection in server.server_state.connections))  # type: ignore[attr-defined]
    os.truncate(file, 0)
    client.until(b"\r\n\r\n")
    assert len(client.rest()) < 100_000_000
    (line,) = server.errors.lines
    assert line.startswith(f"File {file} became shorter while it was sent: the response ends after ")
    assert server.errors.tracebacks == []


def test_a_file_that_cannot_be_opened_is_the_apps_error_before_anything_is_sent(
    serve: Serve, tmp_path: Path
) -> None:
    for path, expected in ((tmp_path / "none", FileNotFoundError), (tmp_path, IsADirectoryError)):
        app = Sends(start(200, length(5)), pathsend(path))
        server = serve(app)
        assert server.ask(get("/file")).status == 500
        (error,) = app.raised
        assert isinstance(error, expected)
        assert error.filename == str(path)


@pytest.mark.parametrize("path", [b"/file", 3, None])
def test_a_path_must_be_a_str(serve: Serve, path: object) -> None:
    app = Sends(start(), {"type": "http.response.pathsend", "path": path})
    assert serve(app).ask(get("/file")).status == 500
    assert type(app.raised[0]) is TypeError


def test_a_relative_path_is_taken_from_the_current_directory(
    serve: Serve, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(Sends(start(), pathsend(file.name)))
    monkeypatch.chdir(file.parent)
    assert server.ask(get("/file")).body == CONTENT


def test_a_path_is_the_whole_body(serve: Serve, file: Path) -> None:
    before = Sends(start(), part(b"x", more=True), pathsend(file))
    client = serve(before).connect()
    client.send(get("/file"))
    assert CONTENT[:100] not in client.rest()
    assert "is the whole body" in str(before.raised[0])
    after = Sends(start(), pathsend(file), part(b"x"))
    assert serve(after).ask(get("/file")).body == CONTENT
    assert "already completed" in str(after.raised[0])


def test_a_file_message_needs_a_start(serve: Serve, file: Path) -> None:
    app = Sends(pathsend(file))
    assert serve(app).ask(get("/file")).status == 500
    assert str(app.raised[0]) == (
        "Expected ASGI message 'http.response.start', but got 'http.response.pathsend'."
    )


# -- descriptors


@pytest.mark.parametrize("sized", [True, False])
def test_parts_of_files_and_pieces_of_bytes_come_in_order(serve: Serve, file: Path, sized: bool) -> None:
    with file.open("rb") as open_file:
        expected = b"a" + CONTENT[5:1005] + b"b" * 50_000 + CONTENT[10:2_000_010] + CONTENT[-70_000:] + b"c"
        app = Sends(
            start(200, *([length(len(expected))] if sized else [])),
            part(b"a", more=True),
            zerocopysend(open_file, offset=5, count=1000, more_body=True),
            part(b"b" * 50_000, more=True),
            zerocopysend(open_file, offset=10, count=2_000_000, more_body=True),
            zerocopysend(open_file, offset=BIG - 70_000, more_body=True),
            part(b"c"),
        )
        client = serve(app).connect()
        for _ in range(2):
            assert client.ask(get("/file")).body == expected
        assert open_file.tell() == 0
        assert open_file.read(5) == CONTENT[:5]


def test_what_the_transport_still_holds_comes_before_the_file(serve: Serve, long: Path) -> None:
    """The kernel's buffers are full after the first part, so that the transport keeps the piece after it."""
    with long.open("rb") as open_file:
        piece = b"p" * (HIGH_WATER - 1000)
        app = Sends(
            start(),
            zerocopysend(open_file, offset=0, more_body=True),
            part(piece, more=True),
            zerocopysend(open_file, offset=3 * BIG - 100_000),
        )
        client = serve(app).connect(receive_buffer=4096)
        assert client.ask(get("/file")).body == CONTENT * 3 + piece + CONTENT[-100_000:]
        assert client.ask(get("/other")).body == b"hello"


@pytest.mark.parametrize("buffered", [True, False])
def test_without_an_offset_the_position_counts_and_moves(serve: Serve, file: Path, buffered: bool) -> None:
    with file.open("rb", -1 if buffered else 0) as open_file:
        open_file.read(10)
        app = Sends(
            start(),
            zerocopysend(open_file, count=20, more_body=True),
            zerocopysend(open_file, count=1_000_000, more_body=True),
            zerocopysend(open_file),
        )
        server = serve(app)
        assert server.ask(get("/file")).body == CONTENT[10:]
        server.until(lambda: not server.server_state.requests)
        assert open_file.tell() == BIG


def test_the_position_of_an_object_that_only_has_a_descriptor_moves_too(serve: Serve, file: Path) -> None:
    class Descriptor:
        def fileno(self) -> int:
            return descriptor

    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.lseek(descriptor, 7, os.SEEK_SET)
        app = Sends(start(), zerocopysend(Descriptor(), count=100_000))
        server = serve(app)
        assert server.ask(get("/file")).body == CONTENT[7:100_007]
        server.until(lambda: not server.server_state.requests)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 100_007
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("method", "options"), [("HEAD", {"offset": 0}), ("HEAD", {}), ("GET", {"offset": 0, "count": 0})]
)
def test_the_position_does_not_move_where_nothing_is_sent(
    serve: Serve, file: Path, method: str, options: dict[str, int]
) -> None:
    with file.open("rb", 0) as open_file:
        server = serve(Sends(start(200, length(0)), zerocopysend(open_file, **options)))
        assert server.ask(get("/file", method=method)).body == b""
        server.until(lambda: not server.server_state.requests)
        assert open_file.tell() == 0


def test_a_file_that_is_closed_while_it_is_sent_leaves_no_descriptor(serve: Serve, file: Path) -> None:
    class ClosesLate:
        """A file that another task closes between the first and the last step of `send`."""

        def fileno(self) -> int:
            return open_file.fileno()

        def tell(self) -> int:
            return 0

        def seek(self, offset: int) -> None:
            open_file.close()
            open_file.seek(offset)

    open_file = file.open("rb")
    app = Sends(start(200, length(BIG)), zerocopysend(ClosesLate()))
    assert serve(app).ask(get("/file")).body == CONTENT  # `serve` looks for descriptors in the end


def test_a_file_with_coroutines_needs_an_offset(serve: Serve, file: Path) -> None:
    class AsyncFile:
        def fileno(self) -> int:
            return open_file.fileno()

        async def tell(self) -> int:
            return 0

        async def seek(self, offset: int) -> None: ...

    with file.open("rb") as open_file:
        app = Sends(start(), zerocopysend(AsyncFile()))
        assert serve(app).ask(get("/file")).status == 500
        assert "needs an offset" in str(app.raised[0])
        with_offset = Sends(start(), zerocopysend(AsyncFile(), offset=10))
        assert serve(with_offset).ask(get("/file")).body == CONTENT[10:]


def test_a_count_beyond_the_end_of_the_file_sends_what_is_there(serve: Serve, file: Path) -> None:
    with file.open("rb") as open_file:
        app = Sends(
            start(),
            zerocopysend(open_file, offset=BIG - 10, count=1000, more_body=True),
            zerocopysend(open_file, offset=BIG + 10),
        )
        assert serve(app).ask(get("/file")).body == CONTENT[-10:]


def test_a_count_above_the_announced_length_is_the_apps_error(serve: Serve, file: Path) -> None:
    with file.open("rb") as open_file:
        app = Sends(start(200, length(10)), zerocopysend(open_file, count=11))
        assert serve(app).ask(get("/file")).status == 500
        assert str(app.raised[0]) == "Response content longer than Content-Length"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"file": None}, TypeError),
        ({"file": 3}, TypeError),
        ({"offset": "0"}, TypeError),
        ({"count": 1.5}, TypeError),
        ({"count": -1}, ValueError),
    ],
)
def test_what_zerocopysend_does_not_take(
    serve: Serve, file: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    with file.open("rb") as open_file:
        app = Sends(start(), {**zerocopysend(open_file), **options})
        assert serve(app).ask(get("/file")).status == 500
        assert type(app.raised[0]) is error


# -- where sendfile(2) is of no use


def test_a_fifo_is_read_to_its_end(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    keeper = os.open(path, os.O_RDWR)  # so that neither side finds the other one missing

    def write() -> None:
        with path.open("wb") as fifo:
            os.close(keeper)
            fifo.write(CONTENT)

    server = serve(Sends(start(), pathsend(path)))
    client = server.connect()
    client.send(get("/file"))
    server.until(lambda: descriptors().count(str(path)) == 2)
    writer = threading.Thread(target=write)
    writer.start()
    assert client.answer().body == CONTENT
    writer.join(10)
    assert client.ask(get("/other")).body == b"hello"


def test_a_pipe_gives_no_more_than_its_count_or_the_announced_length(serve: Serve) -> None:
    for options, announced in (({"count": 100}, ()), ({}, (length(100),))):
        reader, writer = os.pipe()
        os.write(writer, CONTENT[:200])
        with os.fdopen(reader, "rb", 0) as pipe:
            answer = serve(Sends(start(200, *announced), zerocopysend(pipe, **options))).ask(get("/file"))
            assert answer.body == CONTENT[:100]
            assert os.read(reader, 200) == CONTENT[100:200]
        os.close(writer)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_a_file_of_proc_is_sent_although_its_size_is_0(serve: Serve) -> None:
    body = serve(Sends(start(), pathsend("/proc/version"))).ask(get("/file")).body
    assert body == Path("/proc/version").read_bytes()


@pytest.mark.parametrize("sized", [True, False])
def test_a_file_that_sendfile_refuses_is_read(
    serve: Serve, file: Path, sized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "not this file")

    monkeypatch.setattr(os, "sendfile", refuse)
    client = serve(Sends(start(200, *([length(BIG)] if sized else [])), pathsend(file))).connect()
    assert client.ask(get("/file")).body == CONTENT
    assert client.ask(get("/other")).body == b"hello"


def test_without_a_free_descriptor_a_file_is_read(
    serve: Serve, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "dup", refuse)
    client = serve(of_the_file(file)).connect()
    assert client.ask(get("/file")).body == CONTENT
    assert client.ask(get("/other")).body == b"hello"


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="only Linux tells")
@pytest.mark.parametrize("size", [SMALL, BIG])
def test_what_is_not_in_the_page_cache_is_read_by_a_thread(
    serve: Serve, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_cached(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "on the disk")

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        readers.add(threading.current_thread())
        return whole_pread(descriptor, size, offset)

    path = tmp_path / "file"
    path.write_bytes(CONTENT[:size])
    readers: set[threading.Thread] = set()
    whole_pread = os.pread
    client = serve(of_the_file(path)).connect()
    monkeypatch.setattr(os, "preadv", not_cached)
    monkeypatch.setattr(os, "pread", pread)
    assert client.ask(get("/file")).body == CONTENT[:size]
    assert readers
    assert "server under test" not in {thread.name for thread in readers}


# -- ends before the end


def begun(server: Server, *, path: str = "/file") -> Client:
    """Return a client that has not read the file that is being sent to it."""
    client = server.connect(receive_buffer=4096)
    client.send(get(path))
    server.until(lambda: any(connection.write_paused for connection in server.server_state.connections))  # type: ignore[attr-defined]
    return client


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A sparse file that no buffers take."""
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, 200_000_000)
    return path


def test_a_client_that_leaves_ends_the_sending(serve: Serve, huge: Path) -> None:
    app = of_the_file(huge)
    server = serve(app)
    before = open_sockets()
    for leave in (Client.close, Client.reset):
        client = begun(server)
        leave(client)
        server.until(lambda: not server.server_state.connections and not server.server_state.requests)
    assert [type(error) for error in app.raised] == [ClientDisconnected] * 2
    assert server.errors.lines == []
    assert open_sockets() <= before


def test_an_application_may_cancel_the_sending(serve: Serve, huge: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, length(200_000_000)))
        sending = asyncio.ensure_future(send(pathsend(huge)))
        await opened(head_read.is_set)
        sending.cancel()
        await asyncio.wait([sending])
        try:
            await send(part(b"more"))
        except RuntimeError as error:
            raised.append(error)

    raised: list[BaseException] = []
    head_read = threading.Event()
    server = serve(app)
    client = server.connect(receive_buffer=4096)
    client.send(get())
    client.until(b"\r\n\r\n")
    head_read.set()
    assert set(client.rest()) == {0}
    server.until(lambda: raised)
    assert "is not sent completely" in str(raised[0])


def test_two_tasks_cannot_send_at_once(serve: Serve, file: Path) -> None:
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, length(BIG)))
        results = await asyncio.gather(
            send(pathsend(file)), send(pathsend(file)), send(part(b"x")), return_exceptions=True
        )
        raised.extend(error for error in results if isinstance(error, BaseException))

    server = serve(app)
    assert server.ask(get()).body == CONTENT
    server.until(lambda: not server.server_state.requests)
    assert [type(error) for error in raised] == [RuntimeError, RuntimeError]


@pytest.mark.parametrize("kind", ["body", "small", "big"])
def test_a_message_that_waits_while_another_task_ends_the_response_is_not_sent(
    serve: Serve, file: Path, kind: str
) -> None:
    raised: list[BaseException | None] = []
    before = bytes(8_000_000)  # more than the socket takes: both messages wait

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/file":
            await hello(scope, receive, send)
            return
        await send(start())
        await send(part(before, more=True))
        with file.open("rb") as open_file:
            second = zerocopysend(open_file, count=SMALL + 1 if kind == "big" else 100)
            raised.extend(
                await asyncio.gather(
                    send(part(b"end")),
                    send(part(b"more") if kind == "body" else second),
                    return_exceptions=True,
                )
            )

    client = serve(app).connect(receive_buffer=4096)
    assert client.ask(get("/file")).body == before + b"end"
    assert client.ask(get("/other")).body == b"hello"
    assert raised[0] is None
    assert "already completed" in str(raised[1])


def test_a_drain_waits_for_the_file_and_then_closes(serve: Serve, long: Path) -> None:
    server = serve(of_the_file(long))
    client = begun(server)
    server.call(server.server_state.drain)
    assert client.answer().body == CONTENT * 3
    server.until(lambda: not server.server_state.requests)
    server.advance(30)
    server.advance(30)
    assert client.ended()


@pytest.mark.parametrize("how", ["cancel", "abort"])
def test_a_stop_ends_the_sending(serve: Serve, huge: Path, how: str) -> None:
    server = serve(of_the_file(huge))
    client = begun(server)
    server.call(getattr(server.server_state, how))
    server.until(lambda: not server.server_state.requests)
    if how == "abort":
        server.until(lambda: not server.server_state.connections)
    assert server.errors.lines == []
    client.close()


def test_a_refused_body_cuts_a_file_that_is_being_sent(serve: Serve, huge: Path) -> None:
    server = serve(of_the_file(huge))
    client = server.connect(receive_buffer=4096)
    client.send(get("/file", "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n")
    server.until(lambda: any(connection.write_paused for connection in server.server_state.connections))  # type: ignore[attr-defined]
    client.send(b"no size\r\n")
    client.until(b"\r\n\r\n")
    assert len(client.rest()) < 100_000_000
    client.close()
    server.until(lambda: not server.server_state.requests)
    assert server.errors.tracebacks == []


# -- the access log


def test_the_access_log_has_status_and_length(serve: Serve, file: Path, huge: Path) -> None:
    app = of_the_file(file)
    server = serve(app, access_log_format="%(s)s %(B)s")
    client = server.connect()
    client.ask(get("/file"))
    client.send(get("/file", method="HEAD"))
    client.answer("HEAD")
    server.until(lambda: len(server.access.lines) == 2)
    assert server.access.lines == [f"200 {BIG}", "200 0"]
    server = serve(of_the_file(huge), access_log_format="%(s)s %(B)s")
    begun(server).close()
    server.until(lambda: server.access.lines)
    status, sent = server.access.lines[0].split()
    assert status == "200"
    assert 0 < int(sent) < 200_000_000


def test_the_usual_access_log_has_one_line(serve: Serve, file: Path) -> None:
    server = serve(of_the_file(file))
    assert server.ask(get("/file")).body == CONTENT
    server.until(lambda: server.access.lines)
    (line,) = server.access.lines
    assert line.endswith('"GET /file HTTP/1.1" 200')
