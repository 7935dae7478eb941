"""The fast path around a library's parser, for the commonest input: one read that is one whole small message.

Measured for an echo of 64 bytes, the parser of websockets takes 6 µs for such a frame and wsproto's 23 µs,
out of 16 µs and more for the whole round trip. A frame that is a whole message, uncompressed and at most 64
KiB long, is parsed here in a fraction of that. All other input goes to the library, which checks it.
"""

from __future__ import annotations

from collections.abc import Callable

from ostler.worker.websocket.codec import BINARY, TEXT, Failure

_LONGEST_HEADER = 14
_MASKED = 0x80


class FastPath:
    """Tracks where frames begin, and parses whole messages where one begins for certain."""

    __slots__ = ("_fragmented", "_header", "_max_size", "_missing", "_unmask", "between")

    def __init__(self, max_size: int, unmask: Callable[[bytes, bytes], bytes]) -> None:
        self._max_size = max_size
        self._unmask = unmask
        self._header = b""
        """The beginning of a frame's header, too short to read its length."""
        self._missing = 0
        """Bytes of the current frame that are still to come."""
        self._fragmented = False
        """A message has begun, and its next frame is still to come."""
        self.between = True
        """The next byte is the first of a frame, outside of a fragmented message."""

    def take(self, data: bytes | memoryview) -> str | bytes | None:
        """Return the message that `data` is; None if it is more, less or something else.

        Call it only while `between`. Pass `data` to `track` if None is returned.

        Raises:
            Failure: it is a text message that is not UTF-8.
        """
        if type(data) is not bytes or len(data) < 6:
            return None
        start = 2
        size = data[1] - _MASKED
        if size == 126:
            start = 4
            size = int.from_bytes(data[2:4], "big")
            if size < 126:
                return None
        elif size == 127:
            return None
        if size < 0 or len(data) != start + 4 + size or size > self._max_size:
            return None
        first = data[0]
        if first != TEXT and first != BINARY:
            return None
        payload = self._unmask(data[start + 4 :], data[start : start + 4])
        return payload if first == BINARY else decode(payload)

    def track(self, data: bytes | memoryview) -> None:
        """Track the frames in `data`, which the library parses."""
        at, end = 0, len(data)
        while at < end:
            if self._missing:
                step = min(self._missing, end - at)
                self._missing -= step
                at += step
                continue
            header = self._header + bytes(data[at : at + _LONGEST_HEADER])
            size = _header_size(header)
            if size > len(header):
                self._header = header
                break
            at += size - len(self._header)
            self._header = b""
            self._begin(header)
        self.between = not (self._missing or self._header or self._fragmented)

    def _begin(self, header: bytes) -> None:
        length = header[1] & 0x7F
        if length == 126:
            length = int.from_bytes(header[2:4], "big")
        elif length == 127:
            length = int.from_bytes(header[2:10], "big")
        self._missing = length
        if not header[0] & 0x08:  # a control frame is not a part of a message
            self._fragmented = not header[0] & 0x80


def _header_size(header: bytes) -> int:
    """Return the size of the frame header that `header` begins; more than its length if it is too short."""
    if len(header) < 2:
        return 2
    length = header[1] & 0x7F
    extended = 2 if length == 126 else 8 if length == 127 else 0
    return 2 + extended + (4 if header[1] & _MASKED else 0)


def decode(payload: bytes | bytearray | memoryview) -> str:
    """Return a text message's payload as text.

    Raises:
        Failure: it is not UTF-8 (RFC 6455, section 8.1).
    """
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise Failure(1007, f"invalid UTF-8 at position {error.start}") from None


def unmask(data: bytes, mask: bytes) -> bytes:
    """Apply a frame's mask (RFC 6455, section 5.3) in Python, to the whole payload as one number."""
    size = len(data)
    stretched = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")
