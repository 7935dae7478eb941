"""Checks the header of every frame that comes in (RFC 6455, section 5).

A frame that must not be is refused as soon as its length is known: nothing waits for a payload that is longer
than a message may be.
"""

from __future__ import annotations

from ostler.worker.websocket.codec import Failure

_MASKED = 0x80
_FIN = 0x80
_RSV1 = 0x40
_RSV = 0x70
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_DATA = (_TEXT, _BINARY)
_CONTROL = (_CLOSE, _PING, _PONG)
_LONGEST_CONTROL = 125
MASK_SIZE = 4
LONGEST_HEADER = 14
MOST_EMPTY_FRAGMENTS = 1024
"""How many fragments a message may have beyond one for each of its bytes: without such a limit, a message of
empty fragments never ends, and is never too big."""


def compressed_limit(max_size: int) -> int:
    """Return how many bytes a compressed message of `max_size` may have: zlib's deflateBound at its worst."""
    return max_size + max_size // 8 + 64


class FrameHeaders:
    """Tracks which frames may come."""

    __slots__ = (
        "_compressed_limit", "_deflate", "_fragments", "_max_size", "_room", "compressed", "in_message",
    )  # fmt: skip

    def __init__(self, max_size: int, *, deflate: bool) -> None:
        """`max_size` is the limit of a message in bytes; with `deflate`, messages may be compressed."""
        self._max_size = max_size
        self._compressed_limit = compressed_limit(max_size)
        self._deflate = deflate
        self._room = 0
        """How many bytes the current message may still get, as they are sent."""
        self._fragments = 0
        """Fragments of the current message, less its bytes."""
        self.in_message = False
        """A message has begun, and its next frame is still to come."""
        self.compressed = False
        """The current message is compressed."""

    def check(self, header: bytes) -> int:
        """Check the header of the next frame, and return the length of its payload.

        Not needed for a frame that is a whole message, uncompressed, within the limit and not in a message.

        Raises:
            Failure: the frame must not come here.
        """
        opcode = header[0] & 0x0F
        fin = bool(header[0] & _FIN)
        length = _length(header)
        if not header[1] & _MASKED:
            raise Failure(1002, "a client's frame is not masked")  # section 5.1
        if opcode in _CONTROL:
            _check_control(header, fin, length)
        else:
            self._check_data(header, opcode)
            self._count(length, fin)
        return length

    def _check_data(self, header: bytes, opcode: int) -> None:
        reserved = header[0] & _RSV
        if opcode in _DATA:
            if self.in_message:
                raise Failure(1002, "a message begins within another one")  # section 5.4
            # RFC 7692, section 6: RSV1 of a message's first frame says that it is compressed.
            if reserved & (_RSV & ~_RSV1 if self._deflate else _RSV):
                raise Failure(1002, "a reserved bit is set")
            self.compressed = bool(reserved)
            self._room = self._compressed_limit if reserved else self._max_size
            self._fragments = 0
        elif opcode != _CONTINUATION:
            raise Failure(1002, f"unknown opcode {opcode}")
        elif not self.in_message:
            raise Failure(1002, "a continuation of no message")
        elif reserved:
            raise Failure(1002, "a reserved bit is set")

    def _count(self, length: int, fin: bool) -> None:
        if length > self._room:
            raise Failure(1009, "message too big")
        self._room -= length
        self.in_message = not fin
        if not fin:
            self._fragments += 1 - length
            if self._fragments > MOST_EMPTY_FRAGMENTS:
                raise Failure(1009, "message of too many empty fragments")


def _check_control(header: bytes, fin: bool, length: int) -> None:
    """Check the header of a control frame (RFC 6455, section 5.5)."""
    if header[0] & _RSV:
        raise Failure(1002, "a reserved bit is set")
    if not fin:
        raise Failure(1002, "a control frame is fragmented")
    if length > _LONGEST_CONTROL:
        raise Failure(1002, "a control frame is too long")


def header_size(header: bytes) -> int:
    """Return the size of the header that `header` begins, with its mask; the least one if it is too short."""
    length = header[1] & 0x7F if len(header) > 1 else 0
    return MASK_SIZE + (4 if length == 126 else 10 if length == 127 else 2)


def _length(header: bytes) -> int:
    """Return the length of the payload.

    Raises:
        Failure: it takes more bytes than it needs, or its highest bit is set (RFC 6455, section 5.2).
    """
    length = header[1] & 0x7F
    if length == 126:
        length = int.from_bytes(header[2:4], "big")
        if length < 126:
            raise Failure(1002, "a length takes more bytes than it needs")
    elif length == 127:
        length = int.from_bytes(header[2:10], "big")
        if length < 1 << 16:
            raise Failure(1002, "a length takes more bytes than it needs")
        if length >> 63:
            raise Failure(1002, "a length has its highest bit set")
    return length
