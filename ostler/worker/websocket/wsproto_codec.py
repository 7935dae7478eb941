"""Makes codecs with the compression of wsproto (https://python-hyper.org/projects/wsproto)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, Opcode, RsvBits

from ostler.worker.websocket.codec import Codec, CodecOptions, Failure, MessageSink
from ostler.worker.websocket.extension_offers import Deflate, agree_to_deflate
from ostler.worker.websocket.frame_codec import FrameCodec

_STEP = 4096
"""Bytes of compressed input per step. wsproto inflates without a bound, up to a thousandfold; sizes are
checked after each step."""
_NO_RSV = RsvBits(False, False, False)
_COMPRESSED = RsvBits(True, False, False)


def make_codec(sink: MessageSink, options: CodecOptions, offers: Sequence[str]) -> Codec:
    """Return a codec: a `MakeCodec`."""
    agreed = agree_to_deflate(offers) if options.deflate and offers else None
    return FrameCodec(sink, options, unmask, None if agreed is None else _Compression(agreed))


def unmask(data: bytes | memoryview, mask: bytes) -> bytes:
    """Apply a frame's mask (RFC 6455, section 5.3) to the whole payload as one number.

    wsproto has only a class that does this in several steps, and that is slower.
    """
    size = len(data)
    stretched = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")


class _Compression:
    def __init__(self, agreed: Deflate) -> None:
        self.response = agreed.response
        self._deflate = PerMessageDeflate(
            client_no_context_takeover=agreed.client_no_context_takeover,
            client_max_window_bits=agreed.inflate_bits,
            server_no_context_takeover=agreed.server_no_context_takeover,
            server_max_window_bits=agreed.server_bits,
        )
        self._server = FrameDecoder(client=False)
        """Only to tell the extension on which side it is."""

    def decompress(self, opcode: int, payload: bytes, *, fin: bool) -> Iterator[bytes]:
        """See `Compression`."""
        deflate, server = self._deflate, self._server
        rsv = _NO_RSV if opcode == Opcode.CONTINUATION else _COMPRESSED
        deflate.frame_inbound_header(server, Opcode(opcode), rsv, len(payload))
        for start in range(0, len(payload), _STEP):
            yield _checked(deflate.frame_inbound_payload_data(server, payload[start : start + _STEP]))
        yield _checked(deflate.frame_inbound_complete(server, fin) or b"")
        if fin and deflate._decompressor is not None and deflate._decompressor.eof:
            # RFC 7692, section 7.2.3.4: BFINAL ends zlib's stream, but not the messages.
            deflate._decompressor = None

    def compress(self, opcode: int, payload: bytes) -> bytes:
        """See `Compression`."""
        return self._deflate.frame_outbound(self._server, Opcode(opcode), _NO_RSV, payload, True)[1]


def _checked(decompressed: bytes | CloseReason) -> bytes:
    if isinstance(decompressed, CloseReason):
        raise Failure(1007, "decompression failed")
    return decompressed
