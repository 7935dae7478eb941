"""One open WebSocket: bytes in, messages to its cycle, messages out; pings, limits, the closing handshake."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from math import inf
from typing import Protocol

from ostler.worker.asgi import Message
from ostler.worker.http.parser import PIECE
from ostler.worker.http.send_progress import HUSH, progress
from ostler.worker.server_state import ServerState
from ostler.worker.websocket.codec import Codec, Failure

HIGH_WATER = 64 * 1024
"""Bytes of whole messages held for an app that does not receive; above it, the socket is not read either."""
CLOSING_TIME = 10.0
"""Seconds that a peer has to answer a close frame; so much it has from uvicorn, too."""
LINGER = 5.0
"""Seconds for which a connection that is over may take to go, counted from its last progress."""
_LONGEST_REASON = 123
"""RFC 6455, section 5.5: a control frame holds 125 bytes, two of which are the code."""

# Where the connection is. OPEN and CLOSING ones read frames; in CLOSING our close frame is out, and messages
# are of no interest any more. A LINGERING one only waits for the end of its peer's input.
OPEN, CLOSING, LINGERING, LEAVING, CLOSED = range(5)


class Peer(Protocol):
    """The cycle, as its connection sees it."""

    messages: deque[Message]
    """What the app has not received yet."""

    def notice(self) -> None:
        """There is a message more."""

    def over(self, code: int, reason: str) -> None:
        """The WebSocket is closed or lost; only the first call counts."""


class WebSocket(asyncio.Protocol):
    """Takes a transport over from HTTP. A sink to its codec."""

    __slots__ = (
        "_choked", "_closed_by_peer", "_codec", "_cycle", "_deadline", "_drains", "_heard", "_held", "_limit",
        "_ping", "_pinged_at", "_queue", "_size", "_state", "_taken", "_tls", "_transport", "low", "paused",
        "server_state", "write_paused",
    )  # fmt: skip

    _codec: Codec
    _cycle: Peer
    _tls: bool
    _transport: asyncio.Transport

    def __init__(self, server_state: ServerState, cycle: Peer) -> None:
        self.server_state = server_state
        self._cycle = cycle
        self._queue = cycle.messages
        self._limit = server_state.settings.ws_max_queue
        self.low = self._limit // 4
        """So few messages have to be left before the socket is read again."""
        self._state = OPEN
        self._held = b""
        """Bytes that must not be looked into yet."""
        self._size = 0
        """Bytes of the messages in the queue, or more: what is received is not subtracted."""
        self._drains: list[asyncio.Future[None]] | None = None
        self._choked = False
        """The peer does not read what answers it."""
        self._ping = b""
        """The payload of the ping that is not answered yet."""
        self._pinged_at = 0.0
        self._heard = False
        """Something has come since the last ping."""
        self._taken = 0
        self._closed_by_peer = False
        self._deadline = server_state.now + (server_state.settings.ws_ping_interval or inf)
        self.paused = False
        self.write_paused = False

    def __repr__(self) -> str:
        state = ("open", "closing", "lingering", "leaving", "closed")[self._state]
        return f"<WebSocket {state} {len(self._queue)} messages held>"

    def begin(self, transport: asyncio.Transport, codec: Codec, data: bytes, write_paused: bool) -> None:
        """Speak WebSocket from now on; `data` has arrived already."""
        self._transport = transport
        self._tls = transport.get_extra_info("ssl_object") is not None
        self._codec = codec
        self.write_paused = write_paused
        if data:
            self.data_received(data)
        if self.server_state.draining:
            self.on_drain()

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._state > CLOSING:
            return
        if self._held or self.paused:
            # At most what one read brought after the pause; over TLS asyncio of 3.10 brings it in pieces.
            self._held += data
        else:
            self._feed(data)

    def eof_received(self) -> None:
        """There is no half-closed WebSocket: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = CLOSED
        self._deadline = inf
        self._held = b""
        if self._tls:
            self._transport.close()  # or asyncio of 3.10 warns that nobody has
        # RFC 6455, section 7.1.5: lost without a close frame.
        self._cycle.over(1006, "")
        self.resume_writing()
        # Both hold this object, as it holds them: let no cycle wait for the garbage collector.
        del self._codec, self._cycle
        self.server_state.left(self)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = self._choked = False
        drains, self._drains = self._drains, None
        for drain in drains or ():
            if not drain.done():
                drain.set_result(None)
        if self.paused:
            self.unclog()

    # -- input

    def _feed(self, data: bytes) -> None:
        """Take frames out of `data`, as long as the app keeps up with them."""
        try:
            if len(data) <= PIECE:
                if answers := self._codec.feed(data):
                    self._answer(answers)
            else:
                self._feed_piecewise(data)
        except Failure as failure:
            self._fail(failure.code, failure.reason)
            return
        if self._closed_by_peer:
            self._leave()  # RFC 6455, section 7.1.1: it is the server who closes the connection
        elif not self.paused and self._clogged():
            self.paused = True
            self._transport.pause_reading()

    def _feed_piecewise(self, data: bytes) -> None:
        # A piece at a time: one read of tiny or compressed messages can weigh a thousand times its size.
        view = memoryview(data)
        answers: list[bytes] = []
        try:
            while view and not self._closed_by_peer:
                if self._clogged():
                    self._held = bytes(view)
                    return
                answers.append(self._codec.feed(view[:PIECE]))
                view = view[PIECE:]
        finally:
            # At once: asyncio complains of the fifth write to a peer that is gone, before it says that it is.
            if together := b"".join(answers):
                self._answer(together)

    def _answer(self, answers: bytes) -> None:
        self._transport.write(answers)
        # A peer that pings on and on, and reads nothing, must not fill the memory with pongs.
        self._choked = self.write_paused

    def _clogged(self) -> bool:
        """Whether there is as much as may be held, of messages or of answers."""
        if self._state != OPEN:
            return False
        queue = self._queue
        if len(queue) >= self._limit or self._choked:
            return True
        if self._size > HIGH_WATER:
            # It was only ever added to: most of it has long been received.
            self._size = sum(_size(message) for message in queue)
        return self._size > HIGH_WATER

    def unclog(self) -> None:
        """Take up reading where it stopped, if there is room again."""
        if self._held and not self._clogged() and self._state <= CLOSING:
            held, self._held = self._held, b""
            self._feed(held)
        if self.paused and not self._held and not self._clogged() and self._state < LEAVING:
            self.paused = False
            self._heard = True  # what the peer sent meanwhile is only coming in now
            self._transport.resume_reading()

    def on_message(self, message: str | bytes) -> None:
        if self._state != OPEN:
            return
        self._size += len(message)
        if type(message) is str:
            self._queue.append({"type": "websocket.receive", "text": message})
        else:
            self._queue.append({"type": "websocket.receive", "bytes": message})
        self._cycle.notice()

    def on_pong(self, payload: bytes) -> None:
        if payload == self._ping and self._state == OPEN and payload:
            self._ping = b""
            self._deadline = self._pinged_at + self.server_state.settings.ws_ping_interval

    def on_close(self, code: int, reason: str) -> None:
        if self._state == OPEN:
            self._cycle.over(code, reason)
        self._closed_by_peer = True

    # -- output

    def send_text(self, data: str) -> None:
        """Write a message; only while it is open."""
        self._transport.write(self._codec.text(data))

    def send_bytes(self, data: bytes) -> None:
        """Write a message; only while it is open."""
        self._transport.write(self._codec.binary(data))

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._state == OPEN

    async def writable(self) -> None:
        """Wait until the peer has read enough to send it more, or is gone."""
        while self.write_paused and self._state != CLOSED:
            waiter: asyncio.Future[None] = self.server_state.loop.create_future()
            if self._drains is None:
                self._drains = []
            self._drains.append(waiter)
            await waiter

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, unless it has begun."""
        if self._state != OPEN:
            return
        self._state = CLOSING
        self._deadline = self.server_state.now + CLOSING_TIME
        self._transport.write(self._codec.close(code, cut(reason)))
        # The peer's answer is behind whatever else it has sent; that is read, and dropped.
        if self.paused:
            self.unclog()

    def _fail(self, code: int, reason: str) -> None:
        """Say what the peer did wrong, and hear no more of it (RFC 6455, section 7.1.7)."""
        reason = cut(reason)
        self._cycle.over(code, reason)
        self._transport.write(self._codec.close(code, reason))
        self._held = b""
        # Closed at once, with input unread, the connection would be reset, and the reason with it.
        self._state = LINGERING
        self._deadline = self.server_state.now + LINGER
        if self._tls:
            # No side can be closed alone, and after ours is, another byte from there would end all.
            self._heard = False
            self.server_state.loop.call_later(HUSH, self._hush)
        else:
            self._transport.write_eof()
        self._resume()

    def _hush(self) -> None:
        """Over TLS: leave once a peer that was refused has sent nothing more since we looked."""
        if self._state == LINGERING:
            if not self._heard:
                self._leave()
            else:
                self._heard = False
                self.server_state.loop.call_later(HUSH, self._hush)

    def _resume(self) -> None:
        if self.paused:
            self.paused = False
            self._transport.resume_reading()

    def _leave(self) -> None:
        """Send what is written, then be gone."""
        if self._state < LEAVING:
            self._state = LEAVING
            self._deadline = self.server_state.now + LINGER
            if self._tls:
                # Once all is delivered, nobody need wait for the peer's good-bye (RFC 8446, section 6.1).
                self._deadline = self.server_state.now + HUSH
                self._resume()  # what lies there unread would make OpenSSL's good-bye fail
            self._transport.close()

    # -- told by the service

    def check(self, settled: float) -> None:
        """The clock moved: see to a deadline that lies at or before `settled`."""
        if self._deadline > settled:
            return
        if self._state == OPEN:
            self._keep_alive()
        elif self._state == CLOSING:
            self._leave()
        elif self._progresses():
            self._deadline = self.server_state.now + LINGER
        elif self._state == LINGERING:
            self._leave()
        else:
            self._transport.abort()

    def _keep_alive(self) -> None:
        """It is time for a ping, or for the answer to the last one."""
        now, settings = self.server_state.now, self.server_state.settings
        if self._ping and settings.ws_ping_timeout:
            # Busy is not dead: the pong may be behind other messages, or behind what we do not read
            # ourselves, and the ping behind what the peer has yet to read.
            alive = self._heard or self.paused or self._progresses()
            if not alive:
                reason = "keepalive ping timeout"
                self._cycle.over(1006, reason)
                self._transport.write(self._codec.close(1011, reason))
                self._leave()
                return
        self._ping = os.urandom(4)
        self._pinged_at = now
        self._heard = False
        self._deadline = now + (settings.ws_ping_timeout or settings.ws_ping_interval)
        self._transport.write(self._codec.ping(self._ping))
        self._taken = self._progress()

    def _progress(self) -> int:
        return progress(self._transport, tls=self._tls, closing=self._state > CLOSING)

    def _progresses(self) -> bool:
        """Whether the peer has read something since this was last asked, and not all."""
        before, self._taken = self._taken, self._progress()
        return 0 < self._taken != before

    def on_drain(self) -> None:
        """Close, as the server is to stop; the peer may come back, to another worker."""
        if self._state == OPEN:
            self._cycle.over(1012, "")
            self.close(1012, "")

    def leave(self) -> None:
        """Close, as other code will answer from now on."""
        self.on_drain()

    def cancel(self) -> None:
        """Close without waiting for the peer."""
        self._leave()

    def abort(self) -> None:
        """Cut it off, whatever is still to be sent."""
        self._transport.abort()


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or b"")


def cut(reason: str) -> str:
    """Return as much of a reason as a close frame has room for."""
    encoded = reason.encode()
    return reason if len(encoded) <= _LONGEST_REASON else encoded[:_LONGEST_REASON].decode(errors="ignore")
