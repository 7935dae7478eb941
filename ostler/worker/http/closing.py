"""Closes a connection so that the client gets what was sent: lingering, flushing, and their deadline.

To close a socket with input unread resets the connection, and a client that is still sending loses the
answer (RFC 9112, section 9.6). So where a client may still be sending, the connection lingers: our sending
side is closed, and input is discarded until the client closes its side, falls silent or has had its time.
Where the client has sent all, the transport is closed, which first sends what is written.
"""

from __future__ import annotations

import asyncio
import select
from contextlib import suppress
from math import inf
from typing import Any

from ostler.worker.http.connection_state import CLOSED, CLOSING, FLUSHING, LINGERING, ClosingPhase
from ostler.worker.http.flow_control import FlowControlMixin, read_tls_socket
from ostler.worker.http.send_progress import progress
from ostler.worker.server_state import ServerState

LINGER_TIMEOUT = 5.0
"""Seconds that closing may take, counted from the last progress that the client made in reading."""
LINGER_BYTES = 4 * 1024 * 1024
"""Bytes discarded while lingering; then the connection is closed."""
QUIET_TIME = 0.5
"""Seconds without another byte after which a client that was refused is taken to have stopped sending.
Over TLS only: asyncio's TLS transports have no half-closed state."""


def has_input(transport: asyncio.Transport) -> bool:
    """Return whether bytes of the client have arrived, or its end, that the transport has not read."""
    poll = select.poll()  # not select.select, which takes no descriptor above 1023
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


class ClosingMixin(FlowControlMixin):
    """Closes a connection in order; holds its one deadline."""

    __slots__ = (
        "_closing_phase", "_deadline", "_discarded", "_last_progress", "_socket_paused", "last_request",
        "tls",
    )  # fmt: skip

    def __init__(self, server_state: ServerState) -> None:
        super().__init__(server_state)
        self._closing_phase: ClosingPhase | None = None
        """None unless the state is CLOSING."""
        self._deadline = inf
        """When the clock of `server_state` passes it, `check` acts; what it means depends on the state."""
        self._discarded = 0
        """Bytes of input discarded since the last request was answered, or since lingering began."""
        self._last_progress = -1
        """What `progress` returned when it was last asked."""
        self._socket_paused = False
        """Over TLS: the socket is not read, either."""
        self.last_request = 0
        """The number of its last request; counted only where `limit_connections` is set."""
        self.tls: dict[str, Any] | None = None
        """What the ASGI TLS extension reports; None without TLS."""

    def _describe_state(self) -> str:
        """Return the state in lower case, for `repr`."""
        phase = self._closing_phase
        name = self._state.name if phase is None else f"{self._state.name}/{phase.name}"
        return name.lower()

    @property
    def idle_until(self) -> float:
        """When the keep-alive time ends of a connection that is idle between two requests; else infinity."""
        return inf

    def give_way(self) -> bool:
        """Close an idle connection to make room; False if there is none."""
        return False

    def abort(self) -> None:
        """Cut the connection off, whatever is still to be sent."""
        self._transport.abort()

    # -- for the classes that inherit this

    def _pause_reading(self) -> None:
        super()._pause_reading()
        if self.tls is not None:
            # Not at once: the transport may be reading, and would start again when it has done so.
            self.server_state.loop.call_soon(self._pause_socket)

    def _pause_socket(self) -> None:
        if self.reading_paused and not self._socket_paused and self._state is not CLOSED:
            self._socket_paused = True
            read_tls_socket(self._transport, False)

    def _resume_reading(self) -> None:
        if self._socket_paused:
            self._socket_paused = False
            if not self._transport.is_closing():  # as in FlowControlMixin
                read_tls_socket(self._transport, True)
        super()._resume_reading()

    def _linger(self) -> None:
        """Close our sending side and discard input for a while, so that the client can read the answer."""
        self._state = CLOSING
        self._closing_phase = LINGERING
        self._unparsed = b""
        self._discarded = 0
        self._deadline = self.server_state.now + LINGER_TIMEOUT
        if self.tls is None:
            with suppress(OSError):  # asyncio shuts down at once, and the answer may have met a closed socket
                self._transport.write_eof()
        else:
            # In TLS neither side can be closed alone, and after ours is, another byte of the client's would
            # end the connection. The answer says where it ends: a client that has it leaves, or falls silent.
            self.server_state.loop.call_later(QUIET_TIME, self._close_if_quiet, 0)
        self._resume_reading()

    def _close_if_quiet(self, discarded_before: int) -> None:
        """Over TLS: close once the client has sent nothing more for QUIET_TIME."""
        if self._closing_phase is LINGERING:
            if self._discarded == discarded_before:
                self._flush_and_close()
            else:
                self.server_state.loop.call_later(QUIET_TIME, self._close_if_quiet, self._discarded)

    def _flush_and_close(self) -> None:
        """Close the transport, which first sends what is written."""
        if self._closing_phase is FLUSHING or self._state is CLOSED:
            return
        self._state = CLOSING
        self._closing_phase = FLUSHING
        self._deadline = self.server_state.now + LINGER_TIMEOUT
        if self.tls is not None:
            # Once all is delivered, the client's close_notify need not be waited for (RFC 8446, section 6.1).
            self._deadline = self.server_state.now + QUIET_TIME
            # Unread input would make OpenSSL's close_notify fail, and cost the response.
            self._resume_reading()
        self._transport.close()

    def _client_reads(self) -> bool:
        """Return whether the client has read some of what waits to be sent since this was last asked."""
        before = self._last_progress
        self._note_progress()
        return 0 < self._last_progress != before

    def _note_progress(self) -> None:
        self._last_progress = progress(
            self._transport, tls=self.tls is not None, closing=self._state is CLOSING
        )

    def _extend_deadline(self) -> bool:
        """Give a client that still reads what was sent LINGER_TIMEOUT more; return whether it does."""
        if self._client_reads():
            self._deadline = self.server_state.now + LINGER_TIMEOUT
            return True
        return False

    def _mark_closed(self) -> None:
        """The transport is lost, or another protocol's: clear the deadline and wake all that wait to send."""
        self._state = CLOSED
        self._closing_phase = None
        self._deadline = inf
        self._unparsed = b""
        self.resume_writing()
