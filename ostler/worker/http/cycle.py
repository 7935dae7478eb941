"""One request/response cycle, as the app sees it: ASGI's HTTP messages in and out.

Theory of operation
===================

A cycle stands between one run of the app and one stream. It knows nothing of the bytes on the wire: an
HTTP/1.1 connection is a stream for one cycle at a time, and a stream of HTTP/2 could be another.

The stream makes the cycle when the head of a request is complete, and calls `run_in_task` when it is the
request's turn. `run` then calls the app in a task of its own. From there on the cycle has two sides:

- The stream pushes in what arrives: `feed` (a piece of the body), `end_body`, `half_close` (the client sends
  nothing more), `disconnect` (nobody reads the response). Each wakes the app if it waits in `receive`.
- The app calls `receive`, which returns what was pushed in and reports to the stream with `taken`, and
  `send`, which passes the response to the stream: `start`, then `body`, then `complete`.

State machines:

- The response (`state`): EXPECTING until `http.response.start`; STARTED while the head waits for the first
  piece of the body; SENDING; COMPLETE. `send` accepts each message in one or two of these states only, else
  it raises.
- The request: `body_held` counts what the app has not received, `body_complete` says that the end has
  arrived, and `_end_received` that the app has received it. `half_closed` and `disconnected` are set once and
  never reset.

The end: when the app returns or raises before COMPLETE, `_give_up` sends an error if nothing of the response
is written yet, else it has the stream `cut` the connection. `_finish` sets COMPLETE; only `answer`, which
runs no app, does without it.

What must never happen: two heads written for one request; a byte after the announced length, or a response
that ends short of it and looks whole; an app that waits in `receive` or `send` after the client is gone; an
exception of the app that leaves the task, or one that is lost without a log line; a task that nothing refers
to (`ServerState.requests` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

from ostler.worker.access_log import AccessLog
from ostler.worker.asgi import (
    PATHSEND,
    ZEROCOPYSEND,
    Application,
    ClientDisconnected,
    Message,
    Receive,
    Scope,
    Send,
)
from ostler.worker.http.file_part import FilePart
from ostler.worker.http.request import RequestHead, split_target
from ostler.worker.http.response import BODILESS, FILE, UNKNOWN
from ostler.worker.pieces import Pieces
from ostler.worker.server_state import ServerState

# The states of the response, in order.
EXPECTING, STARTED, SENDING, COMPLETE = range(4)

# A part of every scope. Each request has a copy, which costs less than a dictionary built from a literal.
_ASGI: dict[str, str] = {"version": "3.0", "spec_version": "2.5"}

SENDS_PER_TURN = 32
"""So many messages an app may send without waiting; then the event loop runs once. A lost transport takes all
and never pauses: an app that only sends would otherwise keep the loop from reporting the loss. If the
transport says that it is closing, the loop runs soon: asyncio logs a warning from the fifth write on that is
lost, so every fourth message asks. Over TLS, the transport does not say so."""


class Stream(Protocol):
    """What a cycle sends its response through."""

    server_state: ServerState
    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: str
    tls: dict[str, Any] | None
    trusted: bool
    write_paused: bool

    def proceed(self) -> None:
        """Send 100 Continue."""

    def start(self, cycle: Cycle, status: int, fields: Iterable[tuple[bytes, bytes]]) -> int:
        """Take the response head, to be sent with the first piece of the body; return the announced length.

        Raises:
            RuntimeError: it cannot be sent; the response has not started.
        """

    def body(self, cycle: Cycle, data: bytes, more: bool) -> None:
        """Send a piece of the body."""

    async def file(self, cycle: Cycle, part: FilePart, size: int, more: bool) -> int:
        """Send `size` bytes of a file as a piece of the body; return how many were sent.

        They are fewer if the file has become shorter, or the client is gone.

        Raises:
            OSError: the file cannot be read.
        """

    def complete(self, cycle: Cycle) -> None:
        """The response is complete."""

    def cut(self, cycle: Cycle) -> None:
        """Give the response up in such a way that the client can see that it is not whole."""

    def taken(self, cycle: Cycle) -> None:
        """The app took what was held of the request's body."""

    async def drain(self) -> None:
        """Wait until the client has read enough that more can be sent, or is gone."""

    def is_closing(self) -> bool:
        """Whether the transport drops what is sent, and the client's loss is not reported yet."""


class Cycle:
    """One request and its response: waits for `run_in_task`, then lives until the app returns."""

    __slots__ = (
        "_body", "_end_received", "_remaining", "_sends", "_waiters", "body_complete", "body_held",
        "disconnected", "half_closed", "head", "scope", "state", "stream", "task",
    )  # fmt: skip

    file_messages: ClassVar[tuple[str, ...]] = (PATHSEND, ZEROCOPYSEND)
    """The messages that the app may send instead of `http.response.body`."""

    def __init__(self, stream: Stream, head: RequestHead) -> None:
        self.stream = stream
        self.head = head
        self.state = EXPECTING
        self.body_complete = False
        """The request's body has arrived to its end."""
        self.disconnected = False
        """The client is gone, or cannot be answered any more."""
        self.half_closed = False
        """The client sends nothing more. It may be gone: an app that asks is told that it is, and cannot send
        any more. An app that does not ask may answer."""
        self.body_held = 0
        """Bytes of the body that the app has not received."""
        self._body: bytes | Pieces = b""
        """What the app has not received of the body."""
        self._end_received = False
        """The app has received the end of the body."""
        self._remaining = UNKNOWN
        """Bytes of the announced length that are not sent yet; UNKNOWN; BODILESS; or FILE."""
        self._sends = 0
        """Pieces of the body, or WebSocket messages, that the app has sent."""
        self._waiters: list[asyncio.Future[None]] | None = None
        self.scope: dict[str, Any] = {}
        self.task: asyncio.Task[None] | None = None
        """The task in which the app runs; None until it exists."""

    def __repr__(self) -> str:
        state = ("expecting", "started", "sending", "complete")[self.state]
        return f"<Cycle {self.head!r} {state}{' gone' if self.disconnected else ''}>"

    @property
    def streaming(self) -> bool:
        """Whether the response is under way and its length is not known."""
        return self.state == SENDING and self._remaining == UNKNOWN

    def run_in_task(self, app: Application) -> None:
        """Let the app answer the request, in a task of its own."""
        server_state = self.stream.server_state
        self._fill_scope(server_state)
        server_state.requests.add(self)
        if server_state.eager_tasks is None:
            self.task = server_state.create_task(self.run(app))
        else:
            server_state.eager_tasks.add(self, app)

    def answer(self, status: int, body: bytes) -> None:
        """Answer instead of the app; the request has no scope and no task, and is not counted."""
        self.state = COMPLETE
        length = self.stream.start(self, status, _text_fields(len(body)))
        self.stream.body(self, b"" if length == BODILESS else body, False)
        self.stream.complete(self)

    def _fill_scope(self, server_state: ServerState) -> None:
        stream = self.stream
        head = self.head
        root_path = server_state.root_path
        path, raw_path, query = split_target(head.target, root_path)
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI.copy(),
            "http_version": head.version,
            "server": stream.server,
            "client": stream.client,
            "scheme": stream.scheme,
            "method": head.method,
            "root_path": root_path,
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": head.headers,
            "state": server_state.state.copy(),
            "extensions": server_state.extensions.copy(),
        }
        if stream.tls is not None:
            scope["extensions"]["tls"] = stream.tls
        self.scope = scope
        if head.forwarded and stream.trusted:
            assert server_state.proxies is not None
            server_state.proxies.apply(scope)

    def log(self, access: AccessLog, status: int) -> None:
        """Write the access log's line."""
        access.log(self.scope, status)

    # -- called by the stream

    def feed(self, data: bytes) -> None:
        """A piece of the request's body has arrived."""
        if self.state == COMPLETE:
            return
        held = self._body
        if not self.body_held:
            self._body = data
        elif isinstance(held, bytes):
            self._body = pieces = Pieces()
            pieces.add(held)
            pieces.add(data)
        else:
            held.add(data)
        self.body_held += len(data)
        if self._waiters is not None:
            self._wake()

    def _take_piece(self) -> bytes:
        """Return the first piece of the body that is held, and hold it no more."""
        held = self._body
        if isinstance(held, bytes):
            self._body = b""
            self.body_held = 0
            return held
        piece = held.pop()
        self.body_held -= len(piece)
        return piece

    def take_body(self) -> bytes:
        """Return all that is held of the body, and hold it no more."""
        held = self._body
        self._body = b""
        self.body_held = 0
        return held if isinstance(held, bytes) else held.take()

    def end_body(self) -> None:
        """The request's body is complete."""
        self.body_complete = True
        if self._waiters is not None:
            self._wake()

    def half_close(self) -> None:
        """The client closed its sending side."""
        self.half_closed = True
        if self._waiters is not None:
            self._wake()

    def disconnect(self) -> None:
        """The client is gone, or cannot be answered any more."""
        self.disconnected = True
        if self._waiters is not None:
            self._wake()

    def cancel(self) -> None:
        """Cancel the app's task; a request whose task has not begun will not begin."""
        eager = self.stream.server_state.eager_tasks
        task = self.task
        if task is None:
            if eager is not None:
                eager.remove(self)
            self._cancelled()
        else:
            # A task that never ran its first step is cancelled without `run` seeing it.
            task.add_done_callback(self._cancelled)
            task.cancel()

    def _cancelled(self, _: asyncio.Task[None] | None = None) -> None:
        self._give_up(503, "Service Unavailable")
        self.stream.server_state.returned(self)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # -- called by the app

    async def receive(self) -> Message:
        """ASGI: return the next piece of the body; after its end, wait for the disconnect."""
        stream = self.stream
        if self.head.expect:
            self.head.expect = False
            # RFC 9110, section 10.1.1: no 100 once a piece of the body or of the response is sent.
            if (
                not self.body_held
                and not self.body_complete
                and self.state < SENDING
                and not self.disconnected
            ):
                stream.proceed()
        while not self.body_held:
            if self.disconnected or self.state == COMPLETE:
                return {"type": "http.disconnect"}
            if self.body_complete and not self._end_received:
                self._end_received = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self.half_closed:
                # An app that is told so stops, and ASGI wants `send` to say the same from here on.
                self.disconnected = True
                return {"type": "http.disconnect"}
            await self._new_waiter()
        body = self._take_piece()
        self._end_received = self.body_complete and not self.body_held
        message = {"type": "http.request", "body": body, "more_body": not self._end_received}
        stream.taken(self)  # this may push in more of the body at once
        return message

    def _new_waiter(self) -> asyncio.Future[None]:
        """Return a future that is done when something has arrived, or the client is gone."""
        # One future for each caller: a shared one would be cancelled with the first of them.
        waiter: asyncio.Future[None] = self.stream.server_state.loop.create_future()
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        return waiter

    async def send(self, message: Message) -> None:
        """ASGI: send a part of the response.

        Raises:
            RuntimeError: the message is not allowed in this state, or cannot be sent.
            ClientDisconnected: the client is gone.
        """
        kind = message["type"]
        state = self.state
        stream = self.stream
        if kind != "http.response.body" or not EXPECTING < state < COMPLETE:
            if kind != "http.response.start" or state != EXPECTING:
                if kind in self.file_messages and EXPECTING < state < COMPLETE:
                    from ostler.worker.http.file_response import send_file

                    await send_file(self, message)
                    return
                raise out_of_order(kind, state)
            if self.disconnected:
                raise ClientDisconnected("The client is gone.")
            # Not written yet: by the ASGI specification the head waits for the first piece of the body.
            self._remaining = stream.start(self, message["status"], message.get("headers", ()))
            self.state = STARTED
            return
        if stream.write_paused:
            await stream.drain()
            if self.state == COMPLETE and not self.disconnected:  # another task has ended it meanwhile
                raise out_of_order(kind, COMPLETE)
        if self.disconnected:
            raise ClientDisconnected("The client is gone.")
        data = message.get("body", b"")
        more = message.get("more_body", False)
        if type(data) is not bytes:
            data = as_bytes(data)
        left = self._remaining
        if left >= 0:
            left -= len(data)
            if left < 0:
                self._remaining = 0
                raise RuntimeError("Response content longer than Content-Length")
            self._remaining = left
        elif left != UNKNOWN:
            if left == FILE:
                raise file_under_way(kind)
            data = b""
        self.state = SENDING
        stream.body(self, data, more)
        if more:
            self._sends += 1
            if not self._sends & 3 and (not self._sends % SENDS_PER_TURN or stream.is_closing()):
                await asyncio.sleep(0)
            return
        self._finish()
        if left > 0:
            stream.server_state.log.error("Response content shorter than Content-Length")
            stream.cut(self)
        else:
            stream.complete(self)

    def _finish(self) -> None:
        """Set the state to COMPLETE: nothing more is sent, for whatever reason."""
        self.state = COMPLETE
        self._body = b""
        self.body_held = 0
        if self._waiters is not None:
            self._wake()
        self.stream.server_state.count()

    # -- the app's run

    async def run(self, app: Application) -> None:
        """Let the app answer, and end the response if the app does not."""
        server_state = self.stream.server_state
        if self.task is None:  # the task began eagerly: it runs before its creator has it
            self.task = asyncio.current_task()
        try:
            # An app may return something by mistake: it is then logged, in uvicorn's words.
            result: object = await app(self.scope, self.receive, self.send)  # type: ignore[func-returns-value]
        except BaseException as error:  # noqa: BLE001 - whatever an app raises, the worker must go on
            self._failed(error, server_state)
        else:
            if self.state != COMPLETE or result is not None:
                self._returned_early(result, server_state)
        finally:
            server_state.requests.discard(self)
            if server_state.draining:
                server_state.returned(self)

    def _failed(self, error: BaseException, server_state: ServerState) -> None:
        if server_state.cancelled and isinstance(error, asyncio.CancelledError):
            self._give_up(503, "Service Unavailable")
            return
        if not (self.disconnected and _caused_by_disconnect(error)):
            server_state.log.error("Exception in ASGI application\n", exc_info=error)
        self._give_up(500, "Internal Server Error")

    def _returned_early(self, result: object, server_state: ServerState) -> None:
        if result is not None:
            server_state.log.error("ASGI callable should return None, but returned '%s'.", result)
        elif self.disconnected or self.half_closed:
            # The app was told that the client is gone, and has stopped: no error, no 500 in the access log.
            self._finish()
            if not self.disconnected or self.half_closed:
                self.stream.cut(self)
            return
        elif self.state == EXPECTING:
            server_state.log.error("ASGI callable returned without starting response.")
        else:
            server_state.log.error("ASGI callable returned without completing response.")
        self._give_up(500, "Internal Server Error")

    def _give_up(self, status: int, text: str) -> None:
        """End a response that the app will not end: send an error if nothing is written yet, else cut it."""
        state = self.state
        if state == COMPLETE:
            return
        if not self.disconnected and state != SENDING:
            body = text.encode()
            length = self.stream.start(self, status, error_fields(len(body)))
            self.stream.body(self, b"" if length == BODILESS else body, False)
            self._finish()
            self.stream.complete(self)
            return
        self._finish()
        if not self.disconnected or self.half_closed:
            self.stream.cut(self)


def out_of_order(kind: str, state: int) -> RuntimeError:
    """Return the error of a message that the response's state does not allow."""
    if state == COMPLETE:
        return RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
    wanted = "http.response.start" if state == EXPECTING else "http.response.body"
    return RuntimeError(f"Expected ASGI message '{wanted}', but got '{kind}'.")


def file_under_way(kind: str) -> RuntimeError:
    """Return the error of a message that comes while a file is being sent, or after that was broken off."""
    return RuntimeError(f"Unexpected ASGI message '{kind}': the file before it is not sent completely.")


def error_fields(length: int) -> tuple[tuple[bytes, bytes], ...]:
    """Return the header fields of an error that the server sends instead of the app, which closes."""
    return (*_text_fields(length), (b"connection", b"close"))


def _text_fields(length: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % length))


def as_bytes(data: object) -> bytes:
    """Return the data of an app's message as `bytes`.

    Raises:
        TypeError: it is not bytes-like.
    """
    # bytes(5) would be five zeros. The copy lets the app use its buffer again.
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"An ASGI message's data must be bytes, not {type(data).__name__}.")
    return bytes(data)


def _caused_by_disconnect(error: BaseException | None, depth: int = 16) -> bool:
    """Whether the error is a ClientDisconnected, or was raised because of one, as frameworks do."""
    if error is None or depth == 0:
        return False
    if isinstance(error, ClientDisconnected):
        return True
    grouped = getattr(error, "exceptions", None)  # an ExceptionGroup, which 3.10 does not have
    if isinstance(grouped, tuple) and grouped:
        return all(_caused_by_disconnect(each, depth - 1) for each in grouped)
    return _caused_by_disconnect(error.__cause__ or error.__context__, depth - 1)


async def service_unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    """The app that answers when there are too many requests."""
    body = b"Service Unavailable"
    prefix = "websocket." if scope["type"] == "websocket" else ""
    await send({"type": f"{prefix}http.response.start", "status": 503, "headers": error_fields(len(body))})
    await send({"type": f"{prefix}http.response.body", "body": body})
