"""A real server on a real socket, in a loop of its own thread; and a client that sends raw bytes."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ostler import tls
from ostler.settings.declarations import Settings
from ostler.worker.accept.acceptor import Acceptor, connector
from ostler.worker.asgi import Application, Message, Receive, Scope, Send
from ostler.worker.connection_limit import ConnectionLimit
from ostler.worker.protocols import http_protocol
from ostler.worker.server_state import Proxies, ServerState
from ostler.worker.tls.credentials import Credentials

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that anything may take before a test fails."""


@dataclass(frozen=True)
class Way:
    """One of the four ways in which every HTTP test runs."""

    http: str
    loop: str

    def new_loop(self) -> asyncio.AbstractEventLoop:
        if self.loop == "uvloop":
            import uvloop

            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
        return asyncio.new_event_loop()

    def __str__(self) -> str:
        return f"{self.http}-{self.loop}"


WAYS = tuple(Way(http, loop) for http in ("httptools", "h11") for loop in ("uvloop", "asyncio"))


class Records(logging.Handler):
    """Keeps what was logged to one logger."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.kept: list[logging.LogRecord] = []
        self._logger = logging.getLogger(name)
        self._logger.setLevel(logging.DEBUG)
        self._logger.propagate = False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.kept]

    @property
    def tracebacks(self) -> list[logging.LogRecord]:
        return [record for record in self.kept if record.exc_info]

    def stop(self) -> None:
        self._logger.removeHandler(self)
        # As it is at the start of any test: two servers of one test may stop in either order.
        self._logger.setLevel(logging.NOTSET)
        self._logger.propagate = True


class CountingProtocol(asyncio.Protocol):
    """Passes everything on to a connection, and counts the bytes."""

    def __init__(self, inner: asyncio.Protocol, server: Server) -> None:
        self.inner = inner
        self.server = server
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.connection_lost = inner.connection_lost  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def data_received(self, data: bytes) -> None:
        self.server.received += len(data)
        self.inner.data_received(data)


class Server:
    """One service behind one listening socket."""

    def __init__(
        self,
        way: Way,
        app: Application,
        *,
        state: dict[str, Any] | None = None,
        proxies: Proxies | None = None,
        uds: str | None = None,
        trust: ssl.SSLContext | None = None,
        **settings: Any,
    ) -> None:
        self.errors = Records("ostler.error")
        self.access = Records("ostler.access")
        self.asyncio = Records("asyncio")
        self.received = 0
        self.clients: list[Client] = []
        self.trust = trust
        """The context of TLS clients; None for clients without TLS."""
        self.loop = way.new_loop()
        self.settings = Settings(http=way.http, **settings)  # type: ignore[arg-type]
        self.server_state = ServerState(
            self.settings, app, state=state or {}, loop=self.loop, proxies=proxies
        )
        if self.settings.limit_connections is not None:
            ConnectionLimit(self.settings.limit_connections, self.server_state).install()
        if uds is None:
            self.socket = socket.create_server(("127.0.0.1", 0))
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(uds)
            self.socket.listen()
        self.address = self.socket.getsockname()
        self._thread = threading.Thread(target=self._run, name="server under test", daemon=True)
        self._thread.start()
        self.credentials: Credentials | None = None
        if tls.wanted(self.settings):
            self.credentials = Credentials(self.settings)
        self._server = self.call(self._accept)

    def _accept(self) -> Acceptor:
        """Accept as a server does."""
        connection = http_protocol(self.settings)

        def make(server_state: ServerState) -> Any:
            # A CountingProtocol would hide what a PROXY header sets.
            return (
                connection(server_state)
                if self.settings.proxy_protocol
                else CountingProtocol(connection(server_state), self)
            )

        server_state = self.server_state
        connect = connector(server_state, make, self.credentials)
        acceptor = Acceptor(self.loop, self.socket, connect, create_task=server_state.create_task)
        acceptor.start()
        return acceptor

    def _run(self) -> None:
        with closing(self.loop):
            self.loop.run_forever()

    @property
    def url(self) -> str:
        scheme = "http" if self.credentials is None else "https"
        return f"{scheme}://127.0.0.1:{self.address[1]}"

    def wait(self, coroutine: Any) -> Any:
        """Run a coroutine in the server's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the server's thread and return its result."""

        async def caller() -> T:
            return function()

        result: T = self.wait(caller())
        return result

    def advance(self, seconds: float) -> None:
        """Move the clock of the server state by `seconds`."""
        self.call(lambda: self.server_state.tick(self.server_state.now + seconds))
        self.call(lambda: self.server_state.tick(self.server_state.now))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds, which is called in the server's thread."""
        until(lambda: self.call(condition))

    def connect(self, *, receive_buffer: int | None = None) -> Client:
        if self.trust is None:
            client = Client(self.address, receive_buffer)
        else:
            client = TlsClient(self.address, self.trust, receive_buffer=receive_buffer)
            own = client.socket.getsockname() or None
            # With TLS 1.3 the client completes its handshake before the server does.
            self.until(
                lambda: any(getattr(each, "client", 0) == own for each in self.server_state.connections)
            )
        self.clients.append(client)
        return client

    def ask(self, data: bytes, *, method: str = "GET") -> Answer:
        """Send a request on a connection of its own and return the response."""
        client = self.connect()
        client.send(data)
        return client.answer(method)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.call(self._server.close)
        self.call(self.server_state.abort)
        self.until(lambda: not self.server_state.connections and not self.server_state.requests)
        self.wait(self._settle())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.socket.close()
        for records in (self.errors, self.access, self.asyncio):
            records.stop()
        assert [record.getMessage() for record in self.asyncio.kept if record.levelno > logging.INFO] == []

    async def _settle(self) -> None:
        """Await the tasks that are left, so that none is destroyed while it is pending."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE)


def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds, and fail after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition never came to hold"
        pause.wait(0.001)


@dataclass
class Answer:
    """One response, parsed as RFC 9112 says."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes
    chunks: list[bytes] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name]
        assert len(values) <= 1, f"{name} is there {len(values)} times"
        return values[0] if values else None

    @property
    def keeps(self) -> bool:
        """Whether the connection may be used again."""
        connection = self.get("connection")
        return connection == "keep-alive" if self.version == "1.0" else connection != "close"


class Client:
    """A socket that sends exactly the bytes it is given."""

    def __init__(self, address: Any, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        if self.socket.family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def finish_sending(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def more(self) -> bytes:
        """Read what has arrived; return nothing at the end of the connection."""
        data = self.socket.recv(65536)
        self.buffer += data
        return data

    def until(self, mark: bytes) -> bytes:
        """Take from the input up to and including `mark`."""
        while mark not in self.buffer:
            assert self.more(), f"the connection ended before {mark!r}: {self.buffer!r}"
        taken, found, self.buffer = self.buffer.partition(mark)
        return taken + found

    def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            assert self.more(), f"the connection ended {size - len(self.buffer)} bytes too early"
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def rest(self) -> bytes:
        """Return everything up to the end of the connection."""
        while self.more():
            pass
        taken, self.buffer = self.buffer, b""
        return taken

    def answer(self, method: str = "GET") -> Answer:
        """Take one response, as RFC 9112, section 6.3 delimits it."""
        head = self.until(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        answer = Answer(int(status), "1.1", headers, b"", head)
        if method == "HEAD" or answer.status < 200 or answer.status in (204, 304):
            return answer
        length, coding = answer.get("content-length"), answer.get("transfer-encoding")
        if coding is not None:
            assert coding == "chunked"
            assert length is None
            answer.chunks = list(self._chunks())
            answer.body = b"".join(answer.chunks)
        elif length is not None:
            answer.body = self.take(int(length))
        else:
            assert answer.get("connection") == "close"
            answer.body = self.rest()
        return answer

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.until(b"\r\n"), 16):
            yield self.take(size)
            assert self.take(2) == b"\r\n"
        assert self.take(2) == b"\r\n"

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        self.send(data)
        return self.answer(method)

    def ended(self) -> bool:
        """Whether the server closed the connection without an error and without another byte."""
        return self.rest() == b""

    def quiet(self) -> bool:
        """Whether there is nothing to read, and the connection is still open."""
        self.socket.setblocking(False)
        try:
            return not self.buffer and self.more() is None
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        with suppress(OSError):
            self.socket.close()


class TlsClient(Client):
    """A client that sends `before` in clear, and then does its TLS handshake."""

    def __init__(
        self, address: Any, context: ssl.SSLContext, *, before: bytes = b"", receive_buffer: int | None = None
    ) -> None:
        super().__init__(address, receive_buffer)
        self.finished = False
        """`finish_sending` was called."""
        plain = self.socket
        plain.sendall(before)
        try:
            self.over_tls = context.wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            )
            self.socket = self.over_tls
        except BaseException:
            plain.close()
            raise

    def finish_sending(self) -> None:
        """Send close_notify, and close the sending side of TCP."""
        self.finished = True
        self.over_tls.setblocking(False)
        with suppress(ssl.SSLError):  # the server's close_notify has not come
            self.over_tls.unwrap()
        self.over_tls.settimeout(PATIENCE)
        socket.socket.shutdown(self.over_tls, socket.SHUT_WR)  # SSLSocket's own method would end TLS

    def more(self) -> bytes:
        try:
            return super().more()
        except ssl.SSLZeroReturnError:  # the server's close_notify, after our own
            return b""
        except ssl.SSLEOFError:
            # asyncio of Python 3.10 does not answer a close_notify with its own.
            answers: bool = sys.version_info >= (3, 11)
            if answers or not self.finished:
                raise
            return b""

    def refused(self) -> bool:
        """Whether the server has refused the client; with TLS 1.3 a client learns that only when it reads."""
        try:
            self.send(get())
            return not self.rest()
        except OSError:
            return True
        finally:
            self.close()

    @property
    def shown(self) -> str:
        """The certificate that the server has shown."""
        certificate = self.over_tls.getpeercert(binary_form=True)
        assert certificate is not None
        return ssl.DER_cert_to_PEM_cert(certificate)


def get(
    path: str = "/", *headers: str, version: str = "1.1", method: str = "GET", body: bytes = b""
) -> bytes:
    """The bytes of a request, with a Host field unless it is one of `headers`."""
    lines = [f"{method} {path} HTTP/{version}", *headers]
    if not any(line.lower().startswith("host:") for line in headers):
        lines.insert(1, "Host: a.example")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(path: str = "/", *headers: str, body: bytes = b"") -> bytes:
    """The bytes of a POST with Content-Length."""
    lines = [] if body else ["Content-Length: 0"]
    return get(path, *headers, *lines, method="POST", body=body)


async def read_body(receive: Receive) -> bytes:
    """Everything the client sends with a request; fails on a disconnect."""
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", "the client left"
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def respond(send: Send, body: bytes = b"", status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    """A response in one piece, with its length."""
    fields = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """The app of tests that need no particular one."""
    await respond(send, b"hello")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the method, the path and the body of the request."""
    body = await read_body(receive)
    await respond(send, b"%s %s " % (scope["method"].encode(), scope["raw_path"]) + body)


async def opened(condition: Callable[[], object]) -> None:
    """In an app: wait until the test, in another thread, lets it go on."""
    while not condition():  # noqa: ASYNC110 - asyncio's events are not for other threads
        await asyncio.sleep(0.001)  # in the app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    """The message that starts a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes = b"", more: bool = False) -> Message:
    """A message with a piece of a response's body."""
    return {"type": "http.response.body", "body": body, "more_body": more}
