"""The one face of both libraries, and of what they push into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ostler.records import record


class Failure(Exception):
    """The peer broke the protocol or a limit: to be closed with `code` and `reason` (RFC 6455, 7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@record
class CodecOptions:
    """What the settings say about messages."""

    max_size: int
    """Bytes of a message, decompressed."""
    deflate: bool
    """Agree to permessage-deflate (RFC 7692)."""


class MessageSink(Protocol):
    """Where a codec pushes what it finds, in order."""

    def on_message(self, message: str | bytes) -> None:
        """Take a whole message."""

    def on_pong(self, payload: bytes) -> None:
        """Take a pong, asked for or not."""

    def on_close(self, code: int, reason: str) -> None:
        """The peer closes; 1005 stands for no code. Nothing is pushed after it."""


class Codec(Protocol):
    """Turns bytes into messages and back: adapters translate, the connection decides."""

    agreed: str
    """The value of Sec-WebSocket-Extensions for the response, or nothing."""

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take the next bytes of the connection, push what they complete; return what answers them at once:
        pongs, the peer's own close frame.

        Raises:
            Failure: nothing more can be fed.
        """

    def text(self, data: str) -> bytes:
        """Return a text message as one frame."""

    def binary(self, data: bytes) -> bytes:
        """Return a binary message as one frame."""

    def ping(self, payload: bytes) -> bytes:
        """Return a ping."""

    def close(self, code: int, reason: str) -> bytes:
        """Return a close frame. Nothing can be sent after it."""


MakeCodec = Callable[[MessageSink, CodecOptions, Sequence[str]], Codec]
"""From sink, limits and what the client has in Sec-WebSocket-Extensions, to an open connection's codec."""


def header(first: int, size: int) -> bytes:
    """Return the header of an unmasked frame; `first` is its first byte (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return b"%c~%b" % (first, size.to_bytes(2, "big"))
    return b"%c\x7f%b" % (first, size.to_bytes(8, "big"))


TEXT = 0x81
BINARY = 0x82
"""First bytes of frames that are whole messages."""
