"""The interface of the WebSocket libraries' adapters, and of what they push messages into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ostler.records import record


class Failure(Exception):
    """The peer broke the protocol or a limit: close with `code` and `reason` (RFC 6455, section 7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@record
class CodecOptions:
    """The settings of a codec."""

    max_size: int
    """The most bytes of a message, decompressed."""
    deflate: bool
    """Agree to permessage-deflate (RFC 7692)."""


class MessageSink(Protocol):
    """What a codec pushes into, in order."""

    is_full: bool
    """No more messages should be pushed for now."""

    def on_message(self, message: str | bytes) -> None:
        """Take a whole message."""

    def on_pong(self, payload: bytes) -> None:
        """Take a pong, whether or not a ping was sent."""

    def on_close(self, code: int, reason: str) -> None:
        """The peer closes; 1005 stands for no code. Nothing is pushed after it."""


class Codec(Protocol):
    """Turns bytes into messages and back. It only translates: the connection decides."""

    agreed: str
    """The value of Sec-WebSocket-Extensions for the response; empty for no extension."""
    answers: list[bytes]
    """The frames that `take_answers` returns."""

    def feed(self, data: bytes, at: int = 0) -> int:
        """Take the bytes of the connection from `data[at:]`, and push what they complete.

        Returns the position in `data` up to which they are taken. It is not the end if the sink became full,
        or if there are many frames: what is left has to be fed in another turn of the event loop.

        Raises:
            Failure: nothing more can be fed.
        """

    def take_answers(self) -> bytes:
        """Return the frames that answer what was fed: pongs, and the answer to the peer's close frame."""

    def encode(self, first: int, payload: bytes) -> tuple[bytes, bytes]:
        """Return header and payload of a message as one frame; `first` is TEXT or BINARY."""

    def ping(self, payload: bytes) -> bytes:
        """Return a ping."""

    def close(self, code: int, reason: str) -> bytes:
        """Return a close frame, behind the answers. No message may be sent after it."""


MakeCodec = Callable[[MessageSink, CodecOptions, Sequence[str]], Codec]
"""Makes a codec from its sink, its options and the values of the client's Sec-WebSocket-Extensions."""


def header(first: int, size: int) -> bytes:
    """Return the header of an unmasked frame; `first` is its first byte (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return b"%c~%b" % (first, size.to_bytes(2, "big"))
    return b"%c\x7f%b" % (first, size.to_bytes(8, "big"))


TEXT = 0x81
BINARY = 0x82
CLOSE = 0x88
PING = 0x89
PONG = 0x8A
"""First bytes of frames that are whole: FIN, and the opcode (RFC 6455, section 5.2)."""
COMPRESSED = 0x40
"""RSV1, in the first byte of a compressed message (RFC 7692, section 6)."""

_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))


def is_close_code(code: int) -> bool:
    """Whether a close frame may hold the code (RFC 6455, section 7.4; the IANA registry)."""
    return code in _CLOSE_CODES or 3000 <= code < 5000
