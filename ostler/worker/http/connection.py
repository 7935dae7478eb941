"""One HTTP/1.1 connection: bytes in, requests through their cycles in order, bytes out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, ClassVar

from ostler.worker.http.cycle import COMPLETE, HIGH_WATER, SENDING, Cycle, service_unavailable
from ostler.worker.http.parser import PIECE, Parser, Raw, Sink
from ostler.worker.http.request import ENDLESS, Fields, Head, Refusal, read_head
from ostler.worker.http.response import render_head, render_refusal
from ostler.worker.http.send_progress import HUSH, progress
from ostler.worker.http.write_buffer import JOIN, Burst
from ostler.worker.server_state import ServerState

MakeParser = Callable[[Sink, int], Parser]
TakeUpgrade = Callable[["Connection", Head], "Cycle | None"]
"""Returns the cycle of a request that asks to leave HTTP, or None where that wish is ignored; may refuse."""

LINGER = 5.0
"""Seconds for which a client that still sends is listened to after the last answer."""
LINGER_BYTES = 4 * 1024 * 1024
"""Bytes discarded meanwhile. Closing at once would reset the connection, answer and all (RFC 9112, 9.6)."""
DISCARD_BYTES = 64 * 1024
"""Bytes of an unread request body that are worth discarding to keep the connection."""

# Where the connection is. Only an OPEN one parses.
OPEN, LINGERING, CLOSING, CLOSED = range(4)


class Connection(asyncio.Protocol):
    """A stream to its cycles, a sink to its parser."""

    __slots__ = (
        "_active", "_burst", "_chunked", "_deadline", "_discarded", "_drains", "_eof", "_held", "_in_head",
        "_keep_alive", "_last", "_parser", "_paused", "_pending", "_queue", "_reading", "_refusal", "_state",
        "_status", "_take_upgrade", "_taken", "_transport", "client", "scheme", "server", "server_state",
        "tls", "trusted", "write_paused",
    )  # fmt: skip

    _transport: asyncio.Transport
    _parser: Parser

    make_cycle: ClassVar[type[Cycle]] = Cycle
    """What takes a request: where more is logged, a class that knows more (`completed.py`)."""

    def __init__(
        self, server_state: ServerState, make_parser: MakeParser, take_upgrade: TakeUpgrade | None = None
    ) -> None:
        self.server_state = server_state
        self._take_upgrade = take_upgrade
        self._parser = make_parser(self, server_state.settings.limit_request_head)
        self._state = OPEN
        self._active: Cycle | None = None
        """The cycle whose response is next on the wire; it stays here until its request is read, too."""
        self._reading: Cycle | None = None
        """The cycle whose request body is arriving."""
        self._queue: deque[Cycle] | None = None
        """Requests that came before their turn (pipelining)."""
        self._held = b""
        """Bytes that must not be parsed yet."""
        self._eof = False
        """The client has closed its sending side."""
        self._last = False
        """No further request is taken: the client said so, or was refused."""
        self._refusal: Refusal | None = None
        """What to answer once the requests before it are answered."""
        self._pending = b""
        """A response head that waits for the first of its body."""
        self._status = 0
        """What that head says."""
        self._burst: Burst | None = None
        """What is gathered of a body that comes in pieces."""
        self._chunked = False
        self._keep_alive: bool | None = None
        """Whether the last response has kept the connection open; None before the first."""
        self._paused = False
        self._discarded = 0
        self._taken = -1
        self._in_head = False
        self._deadline = inf
        self._drains: list[asyncio.Future[None]] | None = None
        self.write_paused = False
        self.server: tuple[str, int | None] | None = None
        self.client: tuple[str, int] | None = None
        self.scheme = "http"
        self.tls: dict[str, Any] | None = None
        """What the ASGI TLS extension tells; None without TLS."""
        self.trusted = False

    def __repr__(self) -> str:
        state = ("open", "lingering", "closing", "closed")[self._state]
        return f"<Connection {state} from {self.client}, {self._active or 'idle'}>"

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass, but has its methods
        server_state = self.server_state
        info = transport.get_extra_info
        peer, own = info("peername"), info("sockname")
        if isinstance(peer, (tuple, list)) and len(peer) >= 2:
            self.client = (str(peer[0]), int(peer[1]))
        if isinstance(own, (tuple, list)) and len(own) >= 2:
            self.server = (str(own[0]), int(own[1]))
        elif isinstance(own, str) and own:
            # The kernel names a Unix socket as it was bound, which is not where clients find it.
            self.server = (server_state.settings.uds or own, None)
        ssl_object = info("ssl_object")
        if ssl_object is not None:
            self._over_tls(ssl_object)
        if server_state.proxies is not None:
            self.trusted = server_state.proxies.trusts(self.client[0] if self.client else "unix:")
        server_state.connections.add(self)
        # A client that connects and sends nothing is let go as silently.
        self._deadline = server_state.now + server_state.settings.timeout_request_header

    def _over_tls(self, ssl_object: Any) -> None:
        from ostler.worker.tls.asgi_extension import tls_facts

        self.scheme = "https"
        self.tls = tls_facts(ssl_object)
        # By default 512 KiB, for each slow client.
        self._transport.set_write_buffer_limits(HIGH_WATER)

    def misdirected(self, reason: str) -> None:
        """Refuse a request that should not have come here, unread."""
        self._refuse(Refusal(400, reason))

    def data_received(self, data: bytes) -> None:
        if self._state != OPEN or (self._last and self._reading is None):
            self._discard(len(data))
        elif self._held:
            self._held += data  # at most what one read brought after the pause
        else:
            self._feed(data)

    def eof_received(self) -> bool | None:
        active = self._active
        if self._state != OPEN or active is None or self.tls is not None:
            return None  # nothing is owed; asyncio closes. (TLS has no half-closed state in asyncio.)
        # Half-closed or gone: which of them, only sending will tell. What arrived whole is answered.
        self._eof = True
        self._drop_incomplete()
        active.hang_up()
        for cycle in self._queue or ():
            cycle.hang_up()
        return True if self._state == OPEN else None

    def _drop_incomplete(self) -> None:
        """After the end of input, give up a request whose body will never be complete."""
        reading = self._reading
        if reading is None or self._held:
            return
        self._reading = None
        if reading is not self._active:
            assert self._queue
            self._queue.pop()
        else:
            reading.disconnect()
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        if self.tls is not None:
            self._transport.close()  # or asyncio of 3.10 warns that nobody has
        self.server_state.left(self)

    def _let_go(self) -> None:
        """Be done with the transport, which is lost or another protocol's."""
        self._state = CLOSED
        self._deadline = inf
        active, self._active = self._active, None
        self._reading = None
        self._queue = None
        self._held = self._pending = b""
        if self._burst is not None:
            self._burst.drop()
            self._burst = None
        if active is not None:
            active.disconnect()
        self.resume_writing()
        # The parser and a refusal's traceback hold this object, as it holds them: let no cycle wait for the
        # garbage collector.
        self._parser.close()
        del self._parser
        self._refusal = None

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        drains, self._drains = self._drains, None
        for drain in drains or ():
            if not drain.done():
                drain.set_result(None)

    # -- input

    def _feed(self, data: bytes) -> None:
        """Parse `data`, as far as the cycles can take what is in it."""
        try:
            if len(data) <= PIECE:
                self._parser.feed(data)
            else:
                view = memoryview(data)
                while view:
                    if self._clogged():
                        self._held = bytes(view)
                        break
                    self._parser.feed(view[:PIECE])
                    view = view[PIECE:]
        except Refusal as refusal:
            self._refuse(refusal)
        if self._eof:
            self._drop_incomplete()
        if self._state == OPEN:
            if self._active is None:
                self._await_head()
            # As in `_clogged`, which would cost every read a call.
            reading = self._reading
            if not self._paused and (
                self._queue or self._held or (reading is not None and reading.held > HIGH_WATER)
            ):
                self._paused = True
                self._transport.pause_reading()

    def _clogged(self) -> bool:
        """Whether what has arrived is as much as may be held."""
        reading = self._reading
        return bool(self._queue or self._held or (reading is not None and reading.held > HIGH_WATER))

    def _unclog(self) -> None:
        """Take up reading where it stopped, if there is room again.

        The app is in the call stack, and asyncio runs a reader in the context of whoever added it
        (cpython#140947): the next requests would see this one's context variables.
        """
        self.server_state.context.copy().run(self._read_on)

    def _read_on(self) -> None:
        if self._held and not self._queue and self._state == OPEN:
            held, self._held = self._held, b""
            self._feed(held)
        if self._paused and not self._clogged() and self._state != CLOSED:
            self._paused = False
            self._transport.resume_reading()

    def _await_head(self) -> None:
        """Nothing is under way: give a head that has begun its time, once."""
        if self._parser.in_head and not self._in_head:
            self._in_head = True
            self._deadline = self.server_state.now + self.server_state.settings.timeout_request_header

    def on_head(self, method: bytes, target: bytes, version: str, headers: Fields) -> Head:
        """The parser found a complete head: serve it, or queue it behind the one that is served."""
        try:
            head = read_head(method, target, version, headers)
        except Refusal as refusal:
            refusal.has_body = method != b"HEAD"
            raise
        if self._last:
            return head  # RFC 9112, section 9.6: nothing after "close" is processed
        cycle = self._upgrade(head) if head.upgrade else self.make_cycle(self, head)
        if not head.keep_alive:
            self._last = True
        self._reading = cycle
        if self._eof:
            cycle.hang_up()
        if self._active is None:
            self._serve(cycle)
        elif self._queue is None:
            self._queue = deque((cycle,))
        else:
            self._queue.append(cycle)
        return head

    def _upgrade(self, head: Head) -> Cycle:
        """Begin to leave HTTP if that can be done; else ignore the wish (RFC 9110, section 7.8)."""
        take = self._take_upgrade
        cycle = None if take is None else take(self, head)
        if cycle is None:
            return self.make_cycle(self, head)
        # Until its turn has come and the app has decided, what follows is held like a body without end.
        head.length = ENDLESS
        head.keep_alive = False
        self._parser = Raw(self._parser, self)
        return cycle

    def hand_over(self, successor: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """Leave the transport to another protocol; return it with what has arrived for that."""
        cycle, self._active = self._active, None
        assert cycle is not None
        assert cycle is self._reading
        rest = cycle.take_body() + self._held
        self._transport.set_protocol(successor)
        if self._paused:
            self._transport.resume_reading()
        self._let_go()
        self.server_state.left(self)
        return self._transport, rest

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
        reading.end()
        if reading.state == COMPLETE and self._state == OPEN:
            self._next()  # its response was there first

    def _serve(self, cycle: Cycle) -> None:
        self._active = cycle
        self._in_head = False
        self._deadline = inf
        server_state = self.server_state
        if server_state.health_path is not None and cycle.head.asks_for(server_state.health_path):
            # Not at once: the request is still being read, and a pipeline of probes would pile up frames.
            server_state.loop.call_soon(self._answer_probe, cycle)
            return
        limit = server_state.limit_concurrency
        if limit is None:
            cycle.run_in_task(server_state.app)
        elif server_state.turning_away and self._keep_alive is not None:
            self._close()  # the client asks again, as for any kept connection that ends (RFC 9112, 9.3.1)
        elif server_state.turning_away:
            cycle.run_in_task(server_state.app)  # its client had connected before
        elif len(server_state.connections) >= limit or len(server_state.requests) >= limit:
            server_state.log.warning("Exceeded concurrency limit.")
            cycle.run_in_task(server_state.overloaded or service_unavailable)
        else:
            cycle.run_in_task(server_state.app)

    def _answer_probe(self, cycle: Cycle) -> None:
        """Say how the instance fares, as far as load balancers are concerned."""
        if self._active is not cycle or self._state != OPEN or cycle.gone:
            return
        if self.server_state.withdrawn:
            cycle.answer(503, b"stopping\n")
        else:
            cycle.answer(200, b"ready\n")

    def _next(self) -> None:
        """The active request is read and answered: on to the next one, or to waiting for it."""
        self._active = None
        self._discarded = 0
        server_state = self.server_state
        if self._queue:
            # Not in the context of the request before it, whose app is in the call stack.
            server_state.context.copy().run(self._serve, self._queue.popleft())
        elif self._refusal is not None:
            self._answer_refusal(self._refusal)
            return
        elif self._last or (self._eof and not self._held):
            self._close()
            return
        else:
            self._deadline = server_state.idle_until
            if self._parser.in_head:
                self._await_head()
        if self._paused:
            self._unclog()

    # -- output: the stream of the active cycle

    def proceed(self) -> None:
        """Send 100 Continue."""
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def start(self, cycle: Cycle, status: int, fields: Iterable[tuple[bytes, bytes]]) -> int:
        """Render the response's head; it leaves with the first of the body."""
        server_state = self.server_state
        head = cycle.head
        # What nearly always holds first: the rest is asked only where it makes a difference.
        keep = head.keep_alive and (
            (cycle.arrived and not self._eof and server_state.keeps) or self._may_keep(cycle)
        )
        self._pending, length, self._chunked, self._keep_alive = render_head(
            status, fields, head, keep, server_state.names, server_state.heads, server_state.static
        )
        self._status = status
        return length

    def _may_keep(self, cycle: Cycle) -> bool:
        """Whether the connection can serve another request after this one, whose client would have it so."""
        head = cycle.head
        server_state = self.server_state
        if not server_state.timeout_keep_alive:
            return False
        if not server_state.keeps and not self._queue and not self._held:
            return False
        if not cycle.arrived:
            # A client that waits for 100 might never send its body; a long one is not worth reading.
            if head.expect and not cycle.held:
                return False
            return head.length <= DISCARD_BYTES
        return not self._eof or bool(self._queue or self._held or self._refusal)

    def body(self, cycle: Cycle, data: bytes, more: bool) -> None:
        """Write a piece of the body, after the head if that is still here."""
        head = self._pending
        if head:
            self._pending = b""
            # Not before it leaves: an app that fails until then gets another one, and a request one line.
            access = self.server_state.access
            if access is not None and cycle.scope:  # a probe has none
                cycle.log(access, self._status)
        if more or self._chunked or self._burst is not None:
            self._stream(head, data, more)
        elif len(data) > JOIN:
            self._transport.write(head)
            self._transport.write(data)
        elif head or data:
            self._transport.write(head + data)

    def _stream(self, head: bytes, data: bytes, more: bool) -> None:
        """Write a piece of a body that comes in several, or whose length the head does not say."""
        tail = b""
        if self._chunked:
            if data:
                head += b"%x\r\n" % len(data)
                tail = b"\r\n" if more else b"\r\n0\r\n\r\n"
            elif not more:
                tail = b"0\r\n\r\n"
        if self._burst is None:
            self._burst = Burst(self._transport, self.server_state.loop)
        self._burst.add(head, data, tail, more=more)
        if not more:
            self._burst = None

    def complete(self, cycle: Cycle) -> None:
        """The active response is out: keep the connection, or take leave of it."""
        if self._state != OPEN:
            return
        if not self._keep_alive:
            self._last = True
            self._queue = None
            if self._reading is None and not self._held:
                self._close()
            else:
                self._linger()
        elif cycle.arrived:
            self._next()
        else:
            # The rest of the body is read and dropped, within bounds of size and time.
            self._discarded = 0
            self._deadline = self.server_state.now + LINGER
            self._unclog()

    def cut(self, cycle: Cycle) -> None:
        """End the connection without ending the response."""
        self._last = True
        self._close()

    def taken(self, cycle: Cycle) -> None:
        """The app took the body so far."""
        if self._paused:
            self._unclog()

    async def drain(self) -> None:
        """Wait until the transport takes more, or is gone."""
        while self.write_paused and self._state != CLOSED:
            waiter: asyncio.Future[None] = self.server_state.loop.create_future()
            if self._drains is None:
                self._drains = []
            self._drains.append(waiter)
            await waiter

    # -- refusals and leave-taking

    def _refuse(self, refusal: Refusal) -> None:
        """Answer nothing more than what came before the refused bytes, and then why."""
        if self._last and self._reading is None:
            return  # after "close", whatever follows is of no interest
        self._last = True
        self._refusal = refusal
        reading, self._reading = self._reading, None
        active = self._active
        if reading is not None and reading is active:
            # Its own body is broken. The app cannot know, but that nobody waits for its answer any more.
            started = reading.state == SENDING
            complete = reading.state == COMPLETE
            self._active = None
            self._pending = b""
            reading.disconnect()
            if started:
                self._close()
            elif complete:
                self._linger()
            else:
                self._answer_refusal(refusal)
        elif active is None:
            self._answer_refusal(refusal)
        elif reading is not None and self._queue:
            self._queue.pop()  # not begun, and never to be

    def _answer_refusal(self, refusal: Refusal) -> None:
        server_state = self.server_state
        peer = f"{self.client[0]}:{self.client[1]}" if self.client else "unix socket"
        server_state.log.warning("%s refused with %d: %s", peer, refusal.status, refusal.reason)
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

    def _linger(self) -> None:
        """Close our side, and listen on for a while, so that the client gets to read the answer."""
        self._state = LINGERING
        self._last = True
        self._held = b""
        self._discarded = 0
        self._deadline = self.server_state.now + LINGER
        if self.tls is None:
            self._transport.write_eof()
        else:
            # No side can be closed alone, and after ours is, another byte from there would end all: the
            # answer says where it ends, and a client that has it leaves, or falls silent.
            self.server_state.loop.call_later(HUSH, self._hush, 0)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _hush(self, before: int) -> None:
        """Over TLS: a client that has sent nothing more since we looked has nothing more to send."""
        if self._state == LINGERING:
            if self._discarded == before:
                self._close()
            else:
                self.server_state.loop.call_later(HUSH, self._hush, self._discarded)

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._state == OPEN:
            if (
                self._discarded > DISCARD_BYTES
                and self._active is not None
                and self._active.state == COMPLETE
            ):
                self._linger()
        elif self._discarded > LINGER_BYTES:
            self._close()

    def _close(self) -> None:
        """Send what is written, then be gone."""
        if self._state < CLOSING:
            if self._burst is not None:
                self._burst.flush()
            self._state = CLOSING
            self._last = True
            self._deadline = self.server_state.now + LINGER
            if self.tls is not None:
                # Once all is delivered, nobody need wait for the client's good-bye (RFC 8446, section 6.1).
                self._deadline = self.server_state.now + HUSH
                if self._paused:
                    # What lies there unread would make OpenSSL's good-bye fail, and cost the response.
                    self._paused = False
                    self._transport.resume_reading()
            self._transport.close()

    def leave(self) -> None:
        """Close at once unless a request is being answered, and take no further one."""
        active = self._active
        if active is not None and active.state != COMPLETE:
            self._queue = None  # came after it: the client asks again
            self._last = True
        elif self._keep_alive is not None:
            self._close()
        # Else it has just been accepted, with its first request on the way.

    def on_drain(self) -> None:
        """Nothing to do: each response tells its client, and an idle connection waits out its time."""

    def cancel(self) -> None:
        """Close as soon as nothing runs on it any more."""
        active = self._active
        if active is None or active.state == COMPLETE:
            self._close()

    def abort(self) -> None:
        """Cut it off, whatever is still to be sent."""
        self._transport.abort()

    def check(self, settled: float) -> None:
        """The clock moved: see to a deadline that lies at or before `settled`."""
        if self._deadline > settled:
            return
        if self._state == OPEN and self._in_head:
            self._refuse(Refusal(408, "The request head took too long."))
            return
        # Not idle, but slow: a client still fetching what was written has its time from the last progress.
        taken = progress(self._transport, tls=self.tls is not None, closing=self._state != OPEN)
        if 0 < taken != self._taken:
            self._taken = taken
            self._deadline = self.server_state.now + LINGER
        elif self._state == OPEN:
            self._close()
        else:
            self._transport.abort()
