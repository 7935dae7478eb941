"""The fast path around a library's parser, for the commonest input: one read that is one whole small message.

Measured for an echo of 64 bytes, the parser of websockets takes 6 µs for such a frame and wsproto's 23 µs,
out of 16 µs and more for the whole round trip. A frame that is a whole message, uncompressed and at most 64
KiB long, is parsed here in a fraction of that. All other input goes to the library, once its headers are
checked (`FrameHeaders`).
"""

from __future__ import annotations

from collections.abc import Callable

from ostler.worker.websocket.codec import BINARY, TEXT
from ostler.worker.websocket.frame_receiver import decode

_MASKED = 0x80


def take_message(
    data: bytes | memoryview, max_size: int, unmask: Callable[[bytes, bytes], bytes]
) -> str | bytes | None:
    """Return the message that `data` is; None if it is more, less or something else.

    Call it only between frames, and outside of a fragmented message.

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
    if size < 0 or len(data) != start + 4 + size or size > max_size:
        return None
    first = data[0]
    if first != TEXT and first != BINARY:
        return None
    payload = unmask(data[start + 4 :], data[start : start + 4])
    return payload if first == BINARY else decode(payload)


def unmask(data: bytes, mask: bytes) -> bytes:
    """Apply a frame's mask (RFC 6455, section 5.3) in Python, to the whole payload as one number."""
    size = len(data)
    stretched = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")
