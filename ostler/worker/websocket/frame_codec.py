"""Turns bytes into messages and back (RFC 6455, section 5), the same for both libraries.

Theory of operation: `feed` walks through what one read has brought. A whole text or binary frame that is a
message of its own, by far the commonest input, is unmasked where it lies. The header of any other frame is
checked by `FrameHeaders` as soon as its length is known; then each read of its payload is unmasked as it
comes, and the pieces are joined once and given to the `FrameReceiver`. Nothing is allocated for what a header
only announces. The adapters bring two parts of this: the function that unmasks, and the compression.
What must never happen: a read of many tiny frames that keeps the loop, or fills the memory; so `feed` stops
when the sink is full, and after FRAMES_PER_FEED frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from ostler.worker.pieces import Pieces
from ostler.worker.websocket.codec import (
    BINARY,
    COMPRESSED,
    PING,
    TEXT,
    CodecOptions,
    MessageSink,
    header,
)
from ostler.worker.websocket.frame_headers import LONGEST_HEADER, MASK_SIZE, FrameHeaders, header_size
from ostler.worker.websocket.frame_receiver import FrameReceiver, decode

FRAMES_PER_FEED = 256
"""So many frames are taken at once: one read may bring 40,000, which would take a tenth of a second."""
_MASKED = 0x80
_CONTINUATION, _CLOSE = 0, 8
_MESSAGES = (TEXT, BINARY)
_VIEWED = 2048
"""Bytes of a payload from which a view of it costs less than a copy."""

Unmask = Callable[[bytes | memoryview, bytes], bytes]
"""Returns a payload without its mask (RFC 6455, section 5.3)."""


class Compression(Protocol):
    """permessage-deflate (RFC 7692), as it was agreed to."""

    response: str
    """The value of Sec-WebSocket-Extensions for the response."""

    def decompress(self, opcode: int, payload: bytes, *, fin: bool) -> Iterator[bytes]:
        """Yield what the payload of a frame of a compressed message holds, in one piece or more.

        Raises:
            Failure: it cannot be decompressed, or is too big.
        """

    def compress(self, opcode: int, payload: bytes) -> bytes:
        """Return a whole message compressed."""


class FrameCodec:
    """A `Codec`. One per connection."""

    __slots__ = (
        "_between", "_compression", "_first", "_header", "_headers", "_length", "_mask", "_max_size",
        "_missing", "_pieces", "_receiver", "_sink", "_unmask", "agreed", "answers",
    )  # fmt: skip

    def __init__(
        self, sink: MessageSink, options: CodecOptions, unmask: Unmask, compression: Compression | None
    ) -> None:
        self.agreed = "" if compression is None else compression.response
        self._sink = sink
        self._max_size = options.max_size
        self._unmask = unmask
        self._compression = compression
        self._headers = FrameHeaders(options.max_size, deflate=compression is not None)
        self._receiver = FrameReceiver(sink, options.max_size)
        self.answers = self._receiver.answers
        self._between = True
        """The next byte is the first of a frame, outside of a fragmented message."""
        self._header = b""
        """The beginning of a frame's header and mask."""
        self._length = -1
        """The length that this header has; -1 until it is read."""
        self._first = 0
        """The first byte of the current frame."""
        self._mask = b""
        """The current frame's mask, turned to where its payload goes on."""
        self._missing = -1
        """Bytes of the current frame's payload that are still to come; -1 in its header."""
        self._pieces = Pieces()
        """Those that have come, if not all came at once."""

    def feed(self, data: bytes, at: int = 0) -> int:
        """Take frames from `data[at:]`; see `Codec.feed`."""
        sink = self._sink
        end = len(data)
        frames = 0
        while at < end:
            start = at + 6
            if self._between and start <= end:
                first = data[at]
                size = data[at + 1] - _MASKED
                if size == 126:
                    size = int.from_bytes(data[at + 2 : at + 4], "big")
                    start += 2
                    if size < 126:
                        size = -1
                elif size == 127:
                    size = -1
                stop = start + size
                if first in _MESSAGES and 0 <= size <= self._max_size and stop <= end:
                    masked = data[start:stop] if size < _VIEWED else memoryview(data)[start:stop]
                    payload = self._unmask(masked, data[start - 4 : start])
                    sink.on_message(payload if first == BINARY else decode(payload))
                    at = stop
                else:
                    at = self._read_frame(data, at)
            else:
                at = self._read_frame(data, at)
            frames += 1
            if frames == FRAMES_PER_FEED or sink.is_full:
                break
        return at

    def _read_frame(self, data: bytes, at: int) -> int:
        """Begin a frame or go on with it, to its end or that of `data`; return where the next one begins."""
        end = len(data)
        if self._receiver.closed:
            return end  # what follows a close frame is not read (RFC 6455, section 1.4)
        self._between = False
        if self._missing < 0:
            at = self._read_header(data, at)
            if self._missing < 0:
                return end
        stop = min(at + self._missing, end)
        payload = self._unmask(memoryview(data)[at:stop], self._mask)
        self._missing -= stop - at
        if self._missing:
            turned = (stop - at) % MASK_SIZE
            self._mask = self._mask[turned:] + self._mask[:turned]
            self._pieces.add(payload)
            return end
        if self._pieces:
            self._pieces.add(payload)
            payload = self._pieces.take()
        self._missing = -1
        self._take(payload)
        self._between = not (self._headers.in_message or self._receiver.closed)
        return stop

    def _read_header(self, data: bytes, at: int) -> int:
        """Begin a header or go on with it, to its end or that of `data`; return where the payload begins."""
        held = self._header
        head = held + data[at : at + LONGEST_HEADER]
        size = header_size(head)
        if self._length < 0 and len(head) >= size - MASK_SIZE:
            self._length = self._headers.check(head)
        if len(head) < size:
            self._header = head
            return len(data)
        self._first = head[0]
        self._mask = head[size - MASK_SIZE : size]
        self._missing = self._length
        self._length = -1
        self._header = b""
        return at + size - len(held)

    def _take(self, payload: bytes) -> None:
        """Take the current frame, which is complete."""
        opcode, fin = self._first & 0x0F, self._first >= 0x80
        if opcode >= _CLOSE:
            self._receiver.take_control(opcode, payload)
        elif self._headers.compressed:
            assert self._compression is not None
            pieces = self._compression.decompress(opcode, payload, fin=fin)
            last = next(pieces)
            for piece in pieces:
                self._receiver.take_data(opcode, last, last=False)
                opcode, last = _CONTINUATION, piece
            self._receiver.take_data(opcode, last, last=fin)
        else:
            self._receiver.take_data(opcode, payload, last=fin)

    def encode(self, first: int, payload: bytes) -> tuple[bytes, bytes]:
        """Return header and payload of a message as one frame."""
        if self._compression is None:
            size = len(payload)
            return bytes((first, size)) if size < 126 else header(first, size), payload
        packed = self._compression.compress(first & 0x0F, payload)
        return header(first | COMPRESSED, len(packed)), packed

    def ping(self, payload: bytes) -> bytes:
        """Return a ping."""
        return header(PING, len(payload)) + payload

    def take_answers(self) -> bytes:
        """Return the frames that answer what has come since the last call."""
        return self._receiver.take_answers()

    def close(self, code: int, reason: str) -> bytes:
        """Return our close frame, behind the answers that are due; nothing if it is sent already."""
        return self._receiver.close(code, reason)
