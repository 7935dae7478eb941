"""WSGI (PEP 3333) as ASGI 3: the application runs in threads, and streams both ways.

A request has a thread for as long as its application runs, and a task in the loop. The thread puts what is to
be sent into a channel to the task, and is HIGH_WATER bytes ahead at the most; the task sends it, as fast as
the client reads.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias, cast

from ostler.worker.asgi import ClientDisconnected, Receive, Scope, Send
from ostler.worker.interfaces.threads import Threads
from ostler.worker.interfaces.wsgi_channel import Fields, ResponseChannel
from ostler.worker.interfaces.wsgi_environ import EnvironMaker, ErrorLog
from ostler.worker.interfaces.wsgi_input import BUFFER, UNKNOWN, Body

_JOIN = 64 * 1024
"""Bytes: up to this size a list of blocks is sent as one."""

# Values of `_left` beside a number of bytes.
_UNANNOUNCED, _BODILESS = -1, -2

Environ: TypeAlias = dict[str, Any]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], None]]
WsgiApplication: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]


class WsgiAdapter:
    """An ASGI 3 application that runs a WSGI application in at most `threads` threads.

    It has no lifespan, and closes every WebSocket before it is accepted.
    """

    def __init__(self, app: WsgiApplication, *, threads: int, multiprocess: bool) -> None:
        self.app = app
        self.log = logging.getLogger("ostler.error.worker")
        self._threads = Threads(threads, "wsgi")
        self._environs = EnvironMaker(ErrorLog(self.log), multiprocess=multiprocess)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            environ = self._environs.make(scope)
            loop = asyncio.get_running_loop()
            body = _body(environ, receive, loop)
            await WsgiRequest(self, environ, body, loop).run(send, self._threads)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})


def _body(environ: Environ, receive: Receive, loop: asyncio.AbstractEventLoop) -> Body | None:
    """Put `wsgi.input` into `environ`; return its raw stream, or None for a request without a body."""
    length = UNKNOWN if "HTTP_TRANSFER_ENCODING" in environ else int(environ.get("CONTENT_LENGTH") or 0)
    if not length:
        environ["wsgi.input"] = io.BytesIO()
        return None
    body = Body(loop, receive, length)
    environ["wsgi.input"] = io.BufferedReader(body, BUFFER)
    if "HTTP_EXPECT" not in environ:
        # The body is sent in any case, and has mostly arrived with the head. A client that expects 100
        # Continue gets that when the application reads, and not before.
        body.fetch()
    return body


class WsgiRequest(ResponseChannel):
    """One request: what its thread does with the application, and what its task does in the loop."""

    __slots__ = (
        "_adapter", "_beyond", "_body", "_environ", "_head_only", "_left", "_opened", "_response", "_thread",
    )  # fmt: skip

    def __init__(
        self, adapter: WsgiAdapter, environ: Environ, body: Body | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(loop)
        self._adapter = adapter
        self._environ = environ
        self._body = body
        # The rest is written by the thread only.
        self._response: tuple[int, Fields] | None = None
        """Status and fields of the last call of start_response."""
        self._opened = False
        """The head is under way, and cannot be replaced."""
        self._left = _UNANNOUNCED
        """Bytes of the body that are still to come by its Content-Length."""
        self._beyond = False
        """The application gave more than its Content-Length."""
        self._head_only = environ["REQUEST_METHOD"] == "HEAD"
        self._thread: int | None = None
        """The thread's identifier while the application runs."""

    # -- in the loop

    async def run(self, send: Send, threads: Threads) -> None:
        """Have a thread run the application, and send what it gives until it has finished.

        Raises:
            BaseException: whatever the application raised, or `send`.
        """
        threads.submit(partial(copy_context().run, self._work))
        failure: BaseException | None = None
        try:
            try:
                await self._pump(send)
            except Exception as exc:  # noqa: BLE001 - raised below, unless the application raised
                failure = exc
                self._break()
                # The request is over when its thread has finished: counts of requests and a drain rely on it.
                await self._thread_done()
        except asyncio.CancelledError:
            self._break()
            self._leave_thread()
            raise
        finally:
            if self._body is not None:
                self._body.stop()
        error, self._error = self._error, None
        if error is not None and not (failure is not None and isinstance(error, ClientDisconnected)):
            raise error
        if failure is not None:
            raise failure

    async def _pump(self, send: Send) -> None:
        """Send what the thread puts in, until it has finished."""
        end_sent = done = False
        while not done:
            head, chunks, ended, done = await self._take(end_sent=end_sent)
            if head is not None:
                await send({"type": "http.response.start", "status": head[0], "headers": head[1]})
            if chunks or (ended and not end_sent):
                body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                await send({"type": "http.response.body", "body": body, "more_body": not ended})
                end_sent = ended
                self._make_room(len(body))

    def _break(self) -> None:
        """Let the thread know, at its next step, that nothing more can be sent or read."""
        self._give_up()
        if self._body is not None:
            self._body.stop()

    def _leave_thread(self) -> None:
        """Log which thread is left behind, and its stack: a thread cannot be cancelled."""
        frame = None if self._done or self._thread is None else sys._current_frames().get(self._thread)
        if frame is not None:
            stack = "".join(traceback.format_stack(frame)).rstrip()
            environ = self._environ
            self._adapter.log.warning(
                '"%s %s" still runs in a thread, which cannot be cancelled and ends with the process:\n%s',
                environ["REQUEST_METHOD"],
                environ["REQUEST_URI"],
                stack,
            )

    # -- in the thread

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            if not self._gone:
                self._thread = threading.get_ident()
                self._answer()
        except BaseException as exc:  # noqa: BLE001 - it is raised in the task, as if it had arisen there
            error = exc
        self._thread = None
        self._finish(error)

    def _answer(self) -> None:
        blocks = self._adapter.app(self._environ, self._start_response)
        try:
            if type(blocks) in (list, tuple):
                self._send_known(cast("list[bytes]", blocks))
            else:
                for block in blocks:
                    if not self._send_block(block):
                        break
            self._end()
        finally:
            # PEP 3333: also if the iteration did not come to its end.
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Take status and header fields from the application (PEP 3333, "The start_response() Callable")."""
        if exc_info:
            try:
                if self._opened:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # the traceback holds this frame
        elif self._response is not None:
            raise RuntimeError("start_response() was called again without exc_info")
        code = status[:3]
        if not (len(code) == 3 and code.isascii() and code.isdigit() and status[3:4] in (" ", "")):
            raise RuntimeError(f"The status must be a number of three digits and a reason, not {status!r}")
        fields = []
        for name, value in headers:
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(f"Names and values of headers must be str: {name!r}: {value!r}")
            fields.append((name.encode("latin-1"), value.encode("latin-1")))
        self._response = (int(code), fields)
        return self._write

    def _write(self, block: bytes) -> None:
        """Send a block; start_response returns this, for applications that cannot return an iterable."""
        self._send_block(block)

    def _send_known(self, blocks: list[bytes]) -> None:
        """Send a body whose blocks are all there, so that its length is known."""
        size = sum(len(_checked(block)) for block in blocks)
        if not self._opened and self._response is not None and size:
            self._open(size)
        if size <= _JOIN:
            self._send_block(b"".join(blocks))
        else:
            for block in blocks:
                if not self._send_block(block):
                    break

    def _send_block(self, block: bytes) -> bool:
        """Send a block; False once nothing more is wanted."""
        size = len(_checked(block))
        if not size:
            if self._gone:
                raise ClientDisconnected("The client is gone.")
            return True
        if not self._opened:
            self._open()
        left = self._left
        if left == _UNANNOUNCED:
            self._put(block, False)
            return True
        if left == _BODILESS:
            if not self._ended:
                self._put(b"", True)
                return True  # go on once more, for what the application does after its last block
            return False
        if size > left:
            if not self._beyond:
                self._beyond = True
                self._adapter.log.error("The WSGI application gave more than its Content-Length")
            if self._ended:
                return False
            block = block[:left]
        self._left = left = left - len(block)
        self._put(block, not left)
        return True

    def _end(self) -> None:
        """End the response: the application has returned its last block."""
        if not self._opened:
            self._open(0)
        if not self._ended:
            self._put(b"", True)

    def _open(self, size: int | None = None) -> None:
        """Let the head be sent. `size` is the length of the whole body, where that is known."""
        if self._response is None:
            raise RuntimeError("The WSGI application did not call start_response() before its body")
        status, fields = self._response
        announced = next((value for name, value in fields if name.lower() == b"content-length"), None)
        bodiless = status in (204, 304) or status < 200
        # RFC 9110, section 8.6: a response to HEAD has the length of the response to GET, or none.
        if size is not None and announced is None and not bodiless and (size or not self._head_only):
            announced = b"%d" % size
            fields = [*fields, (b"Content-Length", announced)]
        if bodiless or self._head_only:
            self._left = _BODILESS
        elif announced is not None and announced.isdigit():
            self._left = int(announced)
        self._opened = True
        self._head = status, fields  # the task takes it with the first chunk, or with the end


def _checked(block: bytes) -> bytes:
    if not isinstance(block, bytes):
        raise TypeError(f"A WSGI body is made of bytes, not {type(block).__name__}")
    return block
