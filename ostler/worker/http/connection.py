"""One HTTP/1.1 connection.

Theory of operation
===================

The parser pushes request heads, pieces of bodies and ends of requests into the connection (`on_head`,
`on_body`, `on_end`). For each request the connection makes a `Cycle`, which runs the app and sends the
response through the connection (`start`, `body`, `complete` or `cut`). Nothing here waits: all is driven by
the transport's callbacks, by the cycles, and by `check`, which the server's clock calls about once a second.

State machines:

- The connection (`connection_state`). NEW until the first request, ACTIVE while a request is served, IDLE
  between two requests, CLOSING when no further response is written, CLOSED when the transport is lost or
  handed over. `closing` has the phases of CLOSING, `flow_control` the pausing of either direction.
- Input. `_reading` is the cycle whose request is arriving, `_active` the cycle whose response is next on the
  wire. They are the same cycle, unless requests are pipelined: these wait in `_queue`, and too much of them,
  or of one body, pauses reading. `_last` says that no further request is taken (the client said
  "close", a request was refused, or the server is leaving), `_half_closed` that the client has closed its
  sending side.
- Output. `start` renders a head, which waits in `_pending_head` for the first piece of its body.
  `_keep_alive`, `_chunked` and `_write_buffer` belong to the response that is being sent.
- The deadline: one number. In NEW and IDLE it ends the wait for a request, or for the rest of a head that has
  begun (then with a 408); in ACTIVE it is off, but for a response that was complete before its request; in
  CLOSING it bounds the closing. A client that still reads what was sent gets more time.

A request leaves `_active` when its response is complete and its body has been read, whichever comes last
(`_next`).

What must never happen: a response out of the order of requests; a byte of a response after the response that
closes the connection; a request begun after "close"; an app called while its request is parsed; input held
without bound; the transport closed while the client is sending and has not had its answer; a connection in a
state that is left by no event and no deadline.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, ClassVar

from ostler.worker.http.closing import LINGER_BYTES, LINGER_TIMEOUT, ClosingMixin, has_input
from ostler.worker.http.connection_state import ACTIVE, CLOSED, CLOSING, FLUSHING, IDLE, NEW
from ostler.worker.http.cycle import COMPLETE, SENDING, Cycle, service_unavailable
from ostler.worker.http.file_part import FilePart
from ostler.worker.http.flow_control import HIGH_WATER
from ostler.worker.http.parser import PIECE, Parser, PassthroughParser, RequestSink
from ostler.worker.http.request import ENDLESS, Fields, Refusal, RequestHead, read_head
from ostler.worker.http.response import render_head, render_refusal
from ostler.worker.http.write_buffer import JOIN, WriteBuffer
from ostler.worker.server_state import IDLE_AT_STOP, LONGEST_TICK, ServerState

MakeParser = Callable[[RequestSink, int], Parser]
TakeUpgrade = Callable[["Connection", RequestHead], "Cycle | None"]
"""Returns the cycle of a request that asks for another protocol, or None if that is ignored; may refuse."""

FIRST_PIECE = 2 * 1024
"""The first piece of a long read. If it holds a second request, nothing more is parsed until that is served:
of thousands that one read may bring, few are parsed in a turn of the loop."""

DISCARD_BYTES = 64 * 1024
"""Bytes of an unread request body that are worth discarding to keep the connection."""


class Connection(ClosingMixin):
    """One HTTP/1.1 connection. Its parser pushes requests into it; its cycles send responses through it."""

    __slots__ = (
        "_active", "_chunked", "_half_closed", "_keep_alive", "_last", "_parser", "_pending_head", "_queue",
        "_reading", "_refusal", "_status", "_take_upgrade", "_write_buffer", "client", "scheme", "server",
        "trusted",
    )  # fmt: skip

    _parser: Parser

    make_cycle: ClassVar[type[Cycle]] = Cycle
    """The class of the connection's cycles."""

    def __init__(
        self, server_state: ServerState, make_parser: MakeParser, take_upgrade: TakeUpgrade | None = None
    ) -> None:
        super().__init__(server_state)
        self._take_upgrade = take_upgrade
        self._parser = make_parser(self, server_state.settings.limit_request_head)
        self._active: Cycle | None = None
        """The cycle whose response is next on the wire; it stays here until its request is read, too."""
        self._reading: Cycle | None = None
        """The cycle whose request body is arriving."""
        self._queue: deque[Cycle] | None = None
        """Pipelined requests that wait for the responses before theirs."""
        self._half_closed = False
        """The client has closed its sending side."""
        self._last = False
        """No further request is taken: the client said "close", one was refused, or the server is leaving."""
        self._refusal: Refusal | None = None
        """What to answer once the requests before the refused one are answered."""
        self._pending_head = b""
        """A response head that waits for the first piece of its body."""
        self._status = 0
        """The status in that head."""
        self._chunked = False
        """The response is sent in chunks."""
        self._keep_alive = False
        """The response leaves the connection open."""
        self._write_buffer: WriteBuffer | None = None
        """Gathers a body that comes in pieces."""
        self.server: tuple[str, int | None] | None = None
        self.client: tuple[str, int] | None = None
        self.scheme = "http"
        self.trusted = False
        """The forwarding fields of this client's requests count."""

    def __repr__(self) -> str:
        return f"<Connection {self._describe_state()} from {self.client}, {self._active or 'no request'}>"

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass, but has its methods
        server_state = self.server_state
        info = transport.get_extra_info
        peername, sockname = info("peername"), info("sockname")
        if isinstance(peername, (tuple, list)) and len(peername) >= 2:
            self.client = (str(peername[0]), int(peername[1]))
        if isinstance(sockname, (tuple, list)) and len(sockname) >= 2:
            self.server = (str(sockname[0]), int(sockname[1]))
        elif isinstance(sockname, str) and sockname:
            # The kernel reports a Unix socket's path at the time of bind; clients find it under another.
            self.server = (server_state.settings.uds or sockname, None)
        ssl_object = info("ssl_object")
        if ssl_object is not None:
            self._read_tls(ssl_object)
        if server_state.proxies is not None:
            self.trusted = server_state.proxies.trusts(self.client[0] if self.client else "unix:")
        server_state.connections.add(self)
        if server_state.connection_limit is not None:
            descriptor = info("socket").fileno()
            server_state.connection_limit.admit(self, descriptor, arriving=ssl_object is not None)
        # A client that connects and sends nothing is closed without an answer.
        self._deadline = server_state.now + server_state.timeout_first_request

    def _read_tls(self, ssl_object: Any) -> None:
        from ostler.worker.tls.asgi_extension import tls_facts
        from ostler.worker.tls.half_close import HalfClosingSSLObject

        if isinstance(ssl_object, HalfClosingSSLObject):
            ssl_object.watch(self._transport, self.server_state.loop)
        self.scheme = "https"
        self.tls = tls_facts(ssl_object)
        # The default is 512 KiB, for each slow client.
        self._transport.set_write_buffer_limits(HIGH_WATER)

    def misdirected(self, reason: str) -> None:
        """Answer 400 with `reason` without reading the request: it should not have come to this port."""
        self._refuse(Refusal(400, reason))

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is CLOSING or state is CLOSED or (self._last and self._reading is None):
            self._discard(len(data))
        elif self._unparsed:
            self._unparsed += data  # at most what one read brought after the pause
        else:
            self._feed(data)

    def eof_received(self) -> bool | None:
        if self.tls is not None:
            return None  # TCP has ended without close_notify, or all is closing: asyncio closes
        return self._half_close() or None

    def close_notify_received(self) -> bool:
        """A TLS client has closed its sending side; return whether the connection stays open for now."""
        owed = self._half_close()
        if owed:  # the end of TCP is not to be seen yet: the SSLObject has paused the socket
            self._socket_paused = True
            if not self.reading_paused:
                self._pause_reading()
        return owed

    def _half_close(self) -> bool:
        """The client sends nothing more; return whether a response is owed."""
        active = self._active
        if self._state is not ACTIVE:
            return False
        assert active is not None
        # Only sending can tell whether the client still reads. Each complete request is answered.
        self._half_closed = True
        self._drop_incomplete()
        active.half_close()
        for cycle in self._queue or ():
            cycle.half_close()
        return self._state is ACTIVE

    def _drop_incomplete(self) -> None:
        """After the end of input, drop a request whose body will never be complete."""
        reading = self._reading
        if reading is None or self._unparsed:
            return
        self._reading = None
        if reading is not self._active:
            assert self._queue
            self._queue.pop()
        else:
            reading.disconnect()
            self._flush_and_close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        if self.tls is not None:
            self._transport.close()  # else asyncio of Python 3.10 warns that the transport was not closed
        self.server_state.left(self)

    def _release(self) -> None:
        """Drop all that is held: the transport is lost, or another protocol's."""
        active, self._active = self._active, None
        self._reading = None
        self._queue = None
        self._pending_head = b""
        if self._write_buffer is not None:
            self._write_buffer.clear()
            self._write_buffer = None
        if active is not None:
            active.disconnect()
        self._mark_closed()
        # The parser and a refusal's traceback refer to this object: without these references there is no
        # reference cycle that only the garbage collector could free.
        self._parser.close()
        del self._parser
        self._refusal = None

    # -- input

    def _feed(self, data: bytes, at_once: int = PIECE) -> None:
        """Parse `data`, as far as the cycles can take what is in it; more than `at_once` bytes in pieces."""
        parser = self._parser
        was_in_head = parser.in_head
        try:
            if len(data) <= at_once:
                parser.feed(data)
            else:
                self._feed_in_pieces(data)
        except Refusal as refusal:
            self._refuse(refusal)
        if self._half_closed:
            self._drop_incomplete()
        state = self._state
        if state is ACTIVE:
            # The condition of `_input_full`, written out: a call would cost every read.
            reading = self._reading
            if not self.reading_paused and (
                self._queue or self._unparsed or (reading is not None and reading.body_held > HIGH_WATER)
            ):
                self._pause_reading()
        elif (state is IDLE or state is NEW) and self._parser.in_head and not was_in_head:
            self._limit_head()

    def _feed_in_pieces(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while rest:
            if self._input_full():
                self._unparsed = bytes(rest)
                break
            parser = self._parser
            takes = parser.takes
            if rest is data and takes == PIECE:
                takes = FIRST_PIECE
            taken = parser.feed(rest if len(rest) <= takes else memoryview(rest)[:takes])
            rest = memoryview(rest)[taken:]

    def _input_full(self) -> bool:
        """Whether what has arrived is as much as may be held."""
        reading = self._reading
        return bool(self._queue or self._unparsed or (reading is not None and reading.body_held > HIGH_WATER))

    def _resume_input(self) -> None:
        """Parse and read on after a pause, if there is room again.

        The app is in the call stack, and asyncio runs a reader in the context of the code that added it
        (cpython#140947): the next requests would see this one's context variables.
        """
        self.server_state.context.copy().run(self._parse_unparsed)

    def _parse_unparsed(self) -> None:
        if self._unparsed and not self._queue and self._state is not CLOSING and self._state is not CLOSED:
            unparsed, self._unparsed = self._unparsed, b""
            self._feed(unparsed, FIRST_PIECE)
        # After a half-close nothing comes, and over TLS the end of TCP must not be read yet.
        if (
            self.reading_paused
            and not self._half_closed
            and not self._input_full()
            and self._state is not CLOSED
        ):
            self._resume_reading()

    def _limit_head(self) -> None:
        """A head has begun while nothing is served: limit the time until it is complete."""
        self._deadline = self.server_state.now + self.server_state.settings.timeout_request_header

    def on_head(self, method: bytes, target: bytes, version: str, headers: Fields) -> RequestHead:
        """The parser found a complete head: serve the request, or queue it behind the one that is served."""
        try:
            head = read_head(method, target, version, headers, self.server_state.hosts)
        except Refusal as refusal:
            refusal.has_body = method != b"HEAD"
            raise
        if self._last or self._state is CLOSING:
            return head  # RFC 9112, section 9.6: nothing after "close" is processed
        cycle = self._upgrade(head) if head.upgrade else self.make_cycle(self, head)
        if not head.keep_alive:
            self._last = True
        self._reading = cycle
        if self._half_closed:
            cycle.half_close()
        if self._active is None:
            self._serve(cycle)
        elif self._queue is None:
            self._queue = deque((cycle,))
        else:
            self._queue.append(cycle)
        return head

    def _upgrade(self, head: RequestHead) -> Cycle:
        """Take the request for its upgrade if that is possible, else ignore the field (RFC 9110, 7.8)."""
        take = self._take_upgrade
        cycle = None if take is None else take(self, head)
        if cycle is None:
            return self.make_cycle(self, head)
        # Until the requests before it are answered and the app has decided, what follows is held like a body
        # without end.
        head.length = ENDLESS
        head.keep_alive = False
        self._parser = PassthroughParser(self._parser, self)
        return cycle

    def hand_over(self, successor: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """Give the transport to another protocol; return it, and the bytes that have arrived for that."""
        cycle, self._active = self._active, None
        assert cycle is not None
        assert cycle is self._reading
        rest = cycle.take_body() + self._unparsed
        self._transport.set_protocol(successor)
        self._resume_reading()
        self._release()
        self.server_state.left(self)
        return self._transport, rest

    def replace_parser(self, parser: Parser) -> None:
        self._parser = parser

    def on_body(self, data: bytes) -> None:
        reading = self._reading
        if reading is None:
            return
        if reading.state == COMPLETE:
            self._discard(len(data))
        else:
            reading.feed(data)

    def on_end(self) -> None:
        reading = self._reading
        if reading is None:
            return
        self._reading = None
        reading.end_body()
        if reading.state == COMPLETE and self._state is ACTIVE:
            self._next()  # its response was complete before its body

    def _serve(self, cycle: Cycle) -> None:
        first = self._state is NEW
        self._state = ACTIVE
        self._active = cycle
        self._deadline = inf
        server_state = self.server_state
        if server_state.health_path is not None and cycle.head.asks_for(server_state.health_path):
            # Not at once: the request is still being read, and pipelined probes would nest calls.
            server_state.loop.call_soon(self._answer_probe, cycle)
            return
        limit = server_state.limit_concurrency
        if limit is None:
            cycle.run_in_task(server_state.app)
        elif server_state.turning_away and not first:
            # The client asks again, as for any kept connection that ends (RFC 9112, section 9.3.1).
            self._flush_and_close()
        elif server_state.turning_away:
            cycle.run_in_task(server_state.app)  # its client had connected before
        elif len(server_state.requests) >= limit:
            server_state.log.warning("Exceeded concurrency limit.")
            cycle.run_in_task(server_state.overloaded or service_unavailable)
        elif (room := server_state.connection_limit) is not None and not room.take_request(self):
            server_state.log.warning("Exceeded connection limit.")
            cycle.run_in_task(server_state.overloaded or service_unavailable)
        else:
            cycle.run_in_task(server_state.app)

    def _answer_probe(self, cycle: Cycle) -> None:
        """Answer a load balancer's health check."""
        if self._active is not cycle or self._state is not ACTIVE or cycle.disconnected:
            return
        if self.server_state.withdrawn:
            cycle.answer(503, b"stopping\n")
        else:
            cycle.answer(200, b"ready\n")

    def _next(self) -> None:
        """The active request is read and answered: serve the next one, or wait for it, or close."""
        self._active = None
        server_state = self.server_state
        if self._queue:
            # Not in the context of the request before it: that one's app is in the call stack.
            server_state.context.copy().run(self._serve, self._queue.popleft())
        elif self._refusal is not None:
            self._answer_refusal(self._refusal)
            return
        elif self._last or (self._half_closed and not self._unparsed):
            self._flush_and_close()
            return
        else:
            self._state = IDLE
            self._deadline = server_state.idle_until
            if self._parser.in_head:
                self._limit_head()
        if self.reading_paused:
            self._resume_input()

    # -- called by the active cycle

    def proceed(self) -> None:
        """Send 100 Continue."""
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def start(self, cycle: Cycle, status: int, fields: Iterable[tuple[bytes, bytes]]) -> int:
        """Render the response's head; it leaves with the first of the body."""
        server_state = self.server_state
        head = cycle.head
        # First the conditions that nearly always hold: `_may_keep` is called only where they do not.
        keep = head.keep_alive and (
            (cycle.body_complete and not self._half_closed and server_state.keeps) or self._may_keep(cycle)
        )
        self._pending_head, length, self._chunked, self._keep_alive = render_head(
            status, fields, head, keep, server_state.names, server_state.heads, server_state.static
        )
        self._status = status
        return length

    def _may_keep(self, cycle: Cycle) -> bool:
        """Whether the connection can serve another request after this one; its client wants that."""
        head = cycle.head
        server_state = self.server_state
        if not server_state.timeout_keep_alive:
            return False
        if not server_state.keeps and not self._queue and not self._unparsed:
            return False
        if not cycle.body_complete:
            # A client that waits for 100 might never send its body; a long body is not worth reading.
            if head.expect and not cycle.body_held:
                return False
            return head.length <= DISCARD_BYTES
        return not self._half_closed or bool(self._queue or self._unparsed or self._refusal)

    def body(self, cycle: Cycle, data: bytes, more: bool) -> None:
        """Write a piece of the body, after the head if that is not written yet."""
        head = self._pending_head
        if head:
            self._pending_head = b""
            # Not before the head is written: an app that fails until then is answered with another head,
            # and each request has one line.
            access = self.server_state.access
            if access is not None and cycle.scope:  # a probe has none
                cycle.log(access, self._status)
        if more or self._chunked or self._write_buffer is not None:
            self._stream(head, data, more)
        elif len(data) > JOIN:
            self.server_state.write_gathered(self._transport, (head, data))
        elif head or data:
            self._transport.write(head + data)

    def _stream(self, head: bytes, data: bytes, more: bool) -> None:
        """Write a piece of a body that comes in several, or whose length the head does not announce."""
        buffer = self._write_buffer
        if buffer is None:
            state = self.server_state
            buffer = WriteBuffer(self._transport, state.loop, state.write_gathered, chunked=self._chunked)
            self._write_buffer = buffer
        buffer.add(head, data, more)
        if not more:
            self._write_buffer = None

    async def file(self, cycle: Cycle, part: FilePart, size: int, more: bool) -> int:
        """Send `size` bytes of a file as a piece of the body; return how many were sent."""
        from ostler.worker.http.sendfile import FileTransfer

        if self._write_buffer is not None:
            self._write_buffer.flush()
        before = self._pending_head
        if before:
            self._pending_head = b""
            access = self.server_state.access
            if access is not None:
                cycle.log(access, self._status)
        after = b""
        if self._chunked:  # the file is one chunk
            before += b"%x\r\n" % size
            after = b"\r\n" if more else b"\r\n0\r\n\r\n"
        transport = self._transport
        transfer = FileTransfer(transport, self, self.server_state.loop, prefix=before, part=part, size=size)
        try:
            await transfer.run(by_kernel=self.tls is None)
        finally:
            self.file_sent(cycle, size - transfer.left)
        if after and not transfer.left:
            transport.write(after)
        if not more:
            self._write_buffer = None
        return size - transfer.left

    def file_sent(self, cycle: Cycle, size: int) -> None:
        """So many bytes of a file were sent; for the access log."""

    def complete(self, cycle: Cycle) -> None:
        """The active response is written: keep the connection, or close it."""
        if self._state is not ACTIVE:
            return
        if not self._keep_alive:
            self._queue = None
            if self._reading is None and not self._unparsed:
                self._flush_and_close()
            else:
                self._linger()
        elif cycle.body_complete:
            self._next()
        else:
            # The rest of the request's body is read and dropped, within bounds of size and time.
            self._discarded = 0
            self._deadline = self.server_state.now + LINGER_TIMEOUT
            self._resume_input()

    def cut(self, cycle: Cycle) -> None:
        """End the connection without ending the response."""
        self._flush_and_close()

    def taken(self, cycle: Cycle) -> None:
        """The app took what was held of the request's body."""
        if self.reading_paused:
            self._resume_input()

    # -- refusing and closing

    def _refuse(self, refusal: Refusal) -> None:
        """Answer the requests before the refused bytes, then `refusal`, and nothing after it."""
        if self._state is CLOSING or (self._last and self._reading is None):
            return  # nothing that follows "close" is answered
        self._last = True
        self._refusal = refusal
        reading, self._reading = self._reading, None
        active = self._active
        if reading is not None and reading is active:
            # The body of the active request is broken. The app is only told that the client is gone.
            started = reading.state == SENDING
            complete = reading.state == COMPLETE
            self._active = None
            self._pending_head = b""
            reading.disconnect()
            if started:
                self._flush_and_close()
            elif complete:
                self._linger()
            else:
                self._answer_refusal(refusal)
        elif active is None:
            self._answer_refusal(refusal)
        elif reading is not None and self._queue:
            self._queue.pop()  # it has not begun, and never will

    def _answer_refusal(self, refusal: Refusal) -> None:
        server_state = self.server_state
        client = f"{self.client[0]}:{self.client[1]}" if self.client else "unix socket"
        server_state.log.warning("%s refused with %d: %s", client, refusal.status, refusal.reason)
        self._transport.write(
            render_refusal(
                refusal.status,
                refusal.reason,
                server_state.static[0],
                body=refusal.has_body,
                upgrade=refusal.upgrade,
            )
        )
        self._linger()

    def _discard(self, size: int) -> None:
        """Count `size` bytes of input that nothing reads, and give up on a client that sends too many."""
        self._discarded += size
        if self._state is ACTIVE:
            active = self._active
            if self._discarded > DISCARD_BYTES and active is not None and active.state == COMPLETE:
                self._linger()
        elif self._discarded > LINGER_BYTES:
            self._flush_and_close()

    def _linger(self) -> None:
        if self._half_closed:
            self._flush_and_close()  # the client has sent all
        else:
            super()._linger()

    def _flush_and_close(self) -> None:
        if self._write_buffer is not None and self._closing_phase is not FLUSHING:
            self._write_buffer.flush()
        super()._flush_and_close()

    # -- called by the server

    def leave(self) -> None:
        """Close at once unless a request is being answered, and take no further one."""
        active = self._active
        if active is not None and active.state != COMPLETE:
            self._queue = None  # these came after it: their client asks again
            self._last = True
        elif self._state is not NEW:
            self._flush_and_close()  # one that lingers as well: new code waits for this process to end
        # Else its first request is on the way.

    def on_drain(self) -> None:
        """Do nothing: responses close their connections, and an idle connection has its deadline."""

    def limit_idle(self, latest: float) -> None:
        """Everything stops: if no request is under way, close after IDLE_AT_STOP, and at `latest`."""
        state, server_state = self._state, self.server_state
        if (state is IDLE or state is NEW) and not self._parser.in_head:
            kept = server_state.timeout_keep_alive if state is IDLE else server_state.timeout_first_request
            # The deadline was computed from a clock up to one tick old.
            idle_for_long = self._deadline - kept + IDLE_AT_STOP + LONGEST_TICK
            self._deadline = min(self._deadline, idle_for_long, latest)

    @property
    def idle_until(self) -> float:
        return self._deadline if self._state is IDLE and not self._parser.in_head else inf

    def give_way(self) -> bool:
        """Close an idle connection to make room; False if the next request has arrived."""
        if has_input(self._transport):
            return False
        self._flush_and_close()
        return True

    def cancel(self) -> None:
        """Close as soon as nothing runs on it any more."""
        active = self._active
        if active is None or active.state == COMPLETE:
            self._flush_and_close()

    def check(self, settled: float) -> None:
        """The clock moved: act on the deadline if it lies at or before `settled`."""
        if self._deadline > settled:
            return
        state = self._state
        if (state is IDLE or state is NEW) and self._parser.in_head:
            self._refuse(Refusal(408, "The request head took too long."))
        elif self._extend_deadline():
            pass  # slow, not idle: the client is still fetching what was written
        elif state is CLOSING:
            self._transport.abort()
        else:
            self._flush_and_close()
