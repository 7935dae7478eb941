"""The messages from a worker to the arbiter, and their form on the heartbeat pipe. Pure.

On the pipe a message is one frame: a kind, a length and the body. A frame is never longer than PIPE_BUF (4096
bytes on Linux). So one write of it is atomic (pipe(7)), even if two threads of a worker write at once.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from ostler.records import record

_FRAME = struct.Struct("!BH")
_BEAT = struct.Struct("!QQQQIId?QQ")

MAX_TEXT = 3000
"""Bytes of text in one message at the most; longer texts are cut."""


@record
class Ready:
    """The worker accepts connections: lifespan start-up is done."""


@record
class BootFailed:
    """The worker cannot serve, for this reason; it exits by itself after this."""

    reason: str


@record
class RetireAsked:
    """The worker has reached a limit and asks to be replaced; it serves on until its successor is ready."""

    reason: str


@record
class Blocked:
    """The worker's event loop is blocked in this place of the application."""

    where: str


@record
class Beat:
    """A heartbeat, about once a second."""

    loop: int
    """A count that the worker's event loop increases, about once a second."""
    thread: int
    """A count that a thread of the worker increases: it stays the same only if the process does not run, or
    if the GIL is never free."""
    waited: int
    """Nanoseconds that the loop's thread has waited for a CPU, when `loop` was last increased (schedstat)."""
    served: int
    """Requests answered since the start."""
    in_flight: int
    """Requests being answered now."""
    connections: int
    """Connections open now."""
    lag: float
    """Seconds by which the loop's last timer came late."""
    draining: bool
    ran: int = 0
    """Nanoseconds that the loop's thread had been on a CPU, when `loop` was last increased (schedstat)."""
    throttled: int = 0
    """Nanoseconds for which a quota of its cgroups had kept CPUs from it, when `loop` was last increased."""


Message: TypeAlias = Ready | BootFailed | RetireAsked | Beat | Blocked

_KINDS = range(1, 6)
_TEXTS: dict[int, type[BootFailed] | type[RetireAsked] | type[Blocked]] = {
    2: BootFailed,
    3: RetireAsked,
    5: Blocked,
}


def encode(message: Message) -> bytes:
    """Return the frame that carries `message`."""
    match message:
        case Ready():
            kind, body = 1, b""
        case BootFailed(reason=reason):
            kind, body = 2, _text(reason)
        case RetireAsked(reason=reason):
            kind, body = 3, _text(reason)
        case Beat():
            kind, body = 4, _BEAT.pack(*vars(message).values())
        case Blocked(where=where):
            kind, body = 5, _text(where)
    return _FRAME.pack(kind, len(body)) + body


class Decoder:
    """Turns the bytes from a worker's pipe into messages; keeps an unfinished frame for the next call."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes, in order.

        Raises:
            ValueError: no worker of ours has written these bytes.
        """
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= _FRAME.size:
            kind, length = _FRAME.unpack_from(self._buffer)
            if kind not in _KINDS or length > MAX_TEXT:
                raise ValueError(f"frame of unknown kind {kind} with {length} bytes")
            end = _FRAME.size + length
            if len(self._buffer) < end:
                break
            messages.append(_decode(kind, self._buffer[_FRAME.size : end]))
            self._buffer = self._buffer[end:]
        return messages


def _decode(kind: int, body: bytes) -> Message:
    if kind == 1 and not body:
        return Ready()
    if kind in _TEXTS:
        return _TEXTS[kind](body.decode("utf-8", "replace"))
    if kind == 4 and len(body) == _BEAT.size:
        return Beat(*_BEAT.unpack(body))
    raise ValueError(f"frame of unknown kind {kind} with {len(body)} bytes")


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:MAX_TEXT]
