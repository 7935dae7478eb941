"""One open WebSocket: bytes in, messages to its cycle, messages out; pings, limits, the closing handshake.

Theory of operation: the codec pushes messages, pongs and the peer's close frame into the connection
(`on_message`, `on_pong`, `on_close`). Messages wait in the cycle's queue until the app receives them; too
many of them, or too many bytes, pause reading; what a read has brought beyond them waits in `_unparsed`, and
is parsed in a turn of the event loop of its own. The connection is ACTIVE from `begin` on, CLOSING from the
first close frame on, in either direction, and CLOSED when the transport is lost. In the phase CLOSE_SENT
frames are still read, for the peer's close frame; messages are dropped, and pings are answered. If the
transport is lost while ACTIVE, what waits in `_unparsed` is still parsed, as the app receives. The deadline
means, in ACTIVE: send a ping, or give up on the pong; later: go on to the next phase of closing. What must
never happen: a message after our close frame; a second disconnect for the app; a peer that reads nothing and
fills the memory with pongs; a peer whose messages keep the event loop from the other connections; the server
waiting longer than CLOSE_TIMEOUT for a peer that does nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from math import inf
from typing import Any, Protocol

from ostler.worker.asgi import Message
from ostler.worker.http.closing import LINGER_BYTES, ClosingMixin
from ostler.worker.http.connection_state import ACTIVE, CLOSE_SENT, CLOSED, CLOSING, FLUSHING
from ostler.worker.http.flow_control import HIGH_WATER
from ostler.worker.http.write_buffer import JOIN
from ostler.worker.server_state import ServerState
from ostler.worker.websocket.codec import Codec, Failure

CLOSE_TIMEOUT = 4.0
"""Seconds that a peer has to answer a close frame, or to close after it broke the protocol. The deadline
passes with a tick, up to one second later: no closing takes more than 5 s, unless the peer still reads."""
_LONGEST_REASON = 123
"""RFC 6455, section 5.5: a control frame holds 125 bytes, two of which are the code."""


class MessageReceiver(Protocol):
    """The cycle, as its connection sees it."""

    messages: deque[Message]
    """What the app has not received yet."""

    def on_message_queued(self) -> None:
        """`messages` has one more."""

    def on_disconnect(self, code: int, reason: str) -> None:
        """The WebSocket is closed or lost; only the first call counts."""


class WebSocket(ClosingMixin):
    """Takes over the transport of an HTTP connection. Its codec pushes messages into it."""

    __slots__ = (
        "_closed_by_peer", "_codec", "_cycle", "_feed_scheduled", "_heard", "_limit", "_outlived", "_parsed",
        "_ping", "_pinged_at", "_queue", "_replies_blocked", "_size", "is_full", "low_water",
    )  # fmt: skip

    _codec: Codec
    _cycle: MessageReceiver

    def __init__(self, server_state: ServerState, cycle: MessageReceiver, tls: dict[str, Any] | None) -> None:
        super().__init__(server_state)
        self.tls = tls
        self._cycle = cycle
        self._queue = cycle.messages
        self._limit = server_state.settings.ws_max_queue
        self.low_water = self._limit // 4
        """So few messages have to be left before the socket is read again."""
        self._size = 0
        """Bytes of the messages in the queue, or more: what the app receives is not subtracted. While the
        connection closes, bytes of the messages that were dropped in this turn of the event loop."""
        self.is_full = False
        self._parsed = 0
        """Bytes of `_unparsed` that are parsed already."""
        self._feed_scheduled = False
        """The loop calls `_feed_unparsed` in its next turn."""
        self._replies_blocked = False
        """The peer does not read the pongs that answer its pings."""
        self._ping = b""
        """The payload of the ping that is not answered yet."""
        self._pinged_at = 0.0
        self._heard = False
        """Something has come since the last ping."""
        self._closed_by_peer = False
        self._outlived = False
        """The transport is lost, and `_unparsed` holds what came before: the app is to receive it first."""
        self._deadline = server_state.now + (server_state.settings.ws_ping_interval or inf)

    def __repr__(self) -> str:
        return f"<WebSocket {self._describe_state()}, {len(self._queue)} messages held>"

    def begin(self, transport: asyncio.Transport, codec: Codec, data: bytes, write_paused: bool) -> None:
        """Speak WebSocket from now on; `data` has arrived already."""
        self._transport = transport
        self._codec = codec
        self._state = ACTIVE
        self.write_paused = write_paused
        if data:
            self.data_received(data)
        if self.server_state.draining:
            self.on_drain()

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._state is not ACTIVE and not self._reads_frames():
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self._flush_and_close()
        elif self.reading_paused:
            # At most what one read brought after the pause; over TLS, asyncio of Python 3.10 brings it in
            # pieces.
            self._unparsed = self._unparsed[self._parsed :] + data
            self._parsed = 0
        else:
            self._feed(data, 0)

    def eof_received(self) -> None:
        """There is no half-closed WebSocket: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self.tls is not None:
            self._transport.close()  # else asyncio of Python 3.10 warns that the transport was not closed
        unparsed = self._unparsed if self._state is ACTIVE else b""
        self._mark_closed()
        if unparsed:
            # Seen over TLS, where the end may come with the last bytes, and after a write that failed.
            self._unparsed = unparsed
            self._outlived = True
            self.resume_input()
        else:
            self._end_input()
        self.server_state.left(self)

    def resume_writing(self) -> None:
        self._replies_blocked = False
        super().resume_writing()
        if self.reading_paused:
            self.resume_input()

    # -- input

    def _feed(self, data: bytes, at: int) -> None:
        """Take frames out of `data[at:]`, as many as there is room for in this turn of the event loop."""
        codec = self._codec
        try:
            parsed = codec.feed(data, at)
        except Failure as failure:
            self._fail(failure.code, failure.reason)
            return
        if codec.answers:
            self._answer(codec.take_answers())
        if self._closed_by_peer:
            self._note_progress()
            self._flush_and_close()  # RFC 6455, section 7.1.1: the server closes the connection
        elif parsed < len(data):
            self._unparsed = data
            self._parsed = parsed
            if not self.reading_paused:
                self._pause_reading()
            self.resume_input()
        elif self.is_full and not self._has_room() and not self.reading_paused:
            self._pause_reading()

    def _feed_unparsed(self) -> None:
        self._feed_scheduled = False
        if self._outlived:
            self._feed_outlived()
        elif self._unparsed and self._has_room() and self._reads_frames():
            unparsed, self._unparsed = self._unparsed, b""
            self._feed(unparsed, self._parsed)
            self.resume_input()

    def _feed_outlived(self) -> None:
        """Take frames that came before the transport was lost. Nobody can be answered."""
        if self.server_state.draining:
            # As in `on_drain`, which is not called for what has left.
            self._cycle.on_disconnect(1012, "")
            self._end_input()
            return
        if not self._has_room():
            return
        codec = self._codec
        try:
            self._parsed = codec.feed(self._unparsed, self._parsed)
        except Failure as failure:
            self._cycle.on_disconnect(failure.code, truncate_reason(failure.reason))
            self._end_input()
            return
        codec.answers.clear()
        if self._closed_by_peer or self._parsed == len(self._unparsed):
            self._end_input()
        else:
            self.resume_input()

    def _end_input(self) -> None:
        """Report the loss of the transport to the app: nothing more comes."""
        self._unparsed = b""
        self._outlived = False
        # RFC 6455, section 7.1.5: lost without a close frame.
        self._cycle.on_disconnect(1006, "")
        # Both refer to this object: without these references there is no reference cycle that only the
        # garbage collector could free.
        del self._codec, self._cycle

    def _answer(self, answers: bytes) -> None:
        if self.write_paused and self._state is not ACTIVE:
            return  # pongs, to a peer that does not read: all that counts is its close frame
        self._transport.write(answers)
        # A peer that sends pings without end, and reads nothing, must not fill the memory with pongs.
        self._replies_blocked = self.write_paused
        self.is_full |= self._replies_blocked

    def _delivers(self) -> bool:
        """Whether messages are for the app; else they are dropped."""
        return self._state is ACTIVE or self._outlived

    def _reads_frames(self) -> bool:
        return self._state is ACTIVE or self._closing_phase is CLOSE_SENT

    def _has_room(self) -> bool:
        """Whether less is held than may be, of messages and of answers; note it in `is_full`."""
        self.is_full = False
        if not self._delivers():
            self._size = 0
        elif self._replies_blocked or len(self._queue) >= self._limit:
            self.is_full = True
        elif self._size > HIGH_WATER:
            # It was only ever added to: most of these bytes may have been received.
            self._size = sum(_size(message) for message in self._queue)
            self.is_full = self._size > HIGH_WATER
        return not self.is_full

    def resume_input(self) -> None:
        """Parse and read on after a pause, if there is room again."""
        if not self._has_room() or self._closing_phase is FLUSHING:
            return
        if self._state is CLOSED and not self._outlived:
            return
        if self._unparsed:
            # Not at once: an app that receives without waiting would take all in this turn of the loop.
            if not self._feed_scheduled:
                self._feed_scheduled = True
                self.server_state.loop.call_soon(self._feed_unparsed)
        elif self.reading_paused:
            self._heard = True  # what the peer sent meanwhile is only read now
            self._resume_reading()

    def on_message(self, message: str | bytes) -> None:
        self._size += len(message)
        if self._state is ACTIVE or self._outlived:
            queue = self._queue
            if type(message) is str:
                queue.append({"type": "websocket.receive", "text": message})
            else:
                queue.append({"type": "websocket.receive", "bytes": message})
            self._cycle.on_message_queued()
            if len(queue) >= self._limit or self._size > HIGH_WATER:
                self._has_room()
        elif self._size > HIGH_WATER:
            self.is_full = True

    def on_pong(self, payload: bytes) -> None:
        if payload == self._ping and self._state is ACTIVE and payload:
            self._ping = b""
            self._deadline = self._pinged_at + self.server_state.settings.ws_ping_interval

    def on_close(self, code: int, reason: str) -> None:
        if self._delivers():
            self._cycle.on_disconnect(code, reason)
        self._closed_by_peer = True

    # -- output

    def send(self, first: int, payload: bytes) -> None:
        """Write a message, only while it is open; `first` is TEXT or BINARY."""
        header, payload = self._codec.encode(first, payload)
        if len(payload) <= JOIN:
            self._transport.write(header + payload)
        elif not self._transport.is_closing():
            # What a lost transport is given is dropped, but each message may be two writes: asyncio logs a
            # warning at the fifth.
            self.server_state.write_gathered(self._transport, (header, payload))

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._state is ACTIVE

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, unless it has begun."""
        if self._outlived:
            self._end_input()  # the app has ended, and receives nothing more
        if self._state is not ACTIVE:
            return
        self._state = CLOSING
        self._closing_phase = CLOSE_SENT
        self._deadline = self.server_state.now + CLOSE_TIMEOUT
        self._transport.write(self._codec.close(code, truncate_reason(reason)))
        self._note_progress()
        # The peer's answer is behind whatever else it has sent: all that is read, and dropped.
        if self.reading_paused:
            self.resume_input()

    def _fail(self, code: int, reason: str) -> None:
        """Report to the peer what it did wrong, and read no more of it (RFC 6455, section 7.1.7)."""
        reason = truncate_reason(reason)
        self._cycle.on_disconnect(code, reason)
        # A failure after our own close frame gives no more time.
        deadline = self.server_state.now + CLOSE_TIMEOUT if self._state is ACTIVE else self._deadline
        self._transport.write(self._codec.close(code, reason))
        # Closed at once, with input unread, the connection would be reset, and the reason lost.
        self._linger()
        self._deadline = deadline
        self._note_progress()

    # -- called by the server

    def check(self, settled: float) -> None:
        """The clock moved: act on the deadline if it lies at or before `settled`."""
        if self._deadline > settled:
            return
        if self._state is ACTIVE:
            self._send_ping_or_close()
        elif self._extend_deadline():
            pass  # the peer is still fetching what was written
        elif self._closing_phase is FLUSHING or self._last_progress > 0:
            self._transport.abort()  # it has stopped to fetch it
        else:
            # RFC 6455, section 7.1.1: the server closes the connection, whatever the client does.
            self._flush_and_close()
            self._deadline = self.server_state.now  # over TLS, the client's close_notify is not waited for

    def _send_ping_or_close(self) -> None:
        """It is time for a ping, or for the answer to the last one."""
        now, settings = self.server_state.now, self.server_state.settings
        if self._ping and settings.ws_ping_timeout:
            # A busy peer is alive: its pong may be behind other messages, or behind input that we do not
            # read, and our ping behind what the peer has yet to read.
            alive = self._heard or self.reading_paused or self._client_reads()
            if not alive:
                reason = "keepalive ping timeout"
                self._cycle.on_disconnect(1006, reason)
                self._transport.write(self._codec.close(1011, reason))
                self._flush_and_close()
                return
        self._ping = os.urandom(4)
        self._pinged_at = now
        self._heard = False
        self._deadline = now + (settings.ws_ping_timeout or settings.ws_ping_interval)
        self._transport.write(self._codec.ping(self._ping))
        self._note_progress()

    def on_drain(self) -> None:
        """Close, as the server is to stop; the peer may come back, to another worker."""
        if self._state is ACTIVE:
            self._cycle.on_disconnect(1012, "")
            self.close(1012, "")

    def limit_idle(self, latest: float) -> None:
        """Do nothing: a WebSocket is never idle, and its closing handshake has a deadline."""

    def leave(self) -> None:
        """Close: another worker answers from now on."""
        self.on_drain()

    def cancel(self) -> None:
        """Close without waiting for the peer."""
        self._flush_and_close()


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or b"")


def truncate_reason(reason: str) -> str:
    """Return as much of a reason as a close frame has room for."""
    encoded = reason.encode()
    return reason if len(encoded) <= _LONGEST_REASON else encoded[:_LONGEST_REASON].decode(errors="ignore")
