"""The states of a client's connection, for HTTP/1.1 and WebSocket; named as in httpcore."""

from __future__ import annotations

from enum import Enum, auto


class ConnectionState(Enum):
    """Where a connection is. The order of the members is the order in which they can follow one another,
    but that ACTIVE and IDLE alternate."""

    NEW = auto()
    """Made, and no request is served yet."""
    ACTIVE = auto()
    """A request is served, or the WebSocket is open."""
    IDLE = auto()
    """Between two requests. A WebSocket is never idle."""
    CLOSING = auto()
    """No further request or message is taken. `ClosingPhase` says how far this has come."""
    CLOSED = auto()
    """The transport is lost, or another protocol has taken it over."""


class ClosingPhase(Enum):
    """How far the closing of a connection has come, in order; each phase may be skipped."""

    CLOSE_SENT = auto()
    """WebSocket only: our close frame is sent. Frames are still read, for the peer's close frame."""
    LINGERING = auto()
    """All is written and our sending side is closed. Input is discarded until the client closes its side."""
    FLUSHING = auto()
    """`transport.close()` was called: what is written is still sent, nothing is read."""


# Module constants: looked up on an enum class, each would cost two look-ups more, for every request.
NEW = ConnectionState.NEW
ACTIVE = ConnectionState.ACTIVE
IDLE = ConnectionState.IDLE
CLOSING = ConnectionState.CLOSING
CLOSED = ConnectionState.CLOSED
CLOSE_SENT = ClosingPhase.CLOSE_SENT
LINGERING = ClosingPhase.LINGERING
FLUSHING = ClosingPhase.FLUSHING
