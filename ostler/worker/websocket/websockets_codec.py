"""Makes codecs with the unmasking and compression of websockets (https://websockets.readthedocs.io)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from ostler.worker.websocket.codec import Codec, CodecOptions, Failure, MessageSink
from ostler.worker.websocket.extension_offers import Deflate, agree_to_deflate
from ostler.worker.websocket.frame_codec import FrameCodec
from ostler.worker.websocket.frame_headers import compressed_limit

try:
    from websockets.speedups import apply_mask
except ImportError:  # not compiled, or PyPy
    from websockets.utils import apply_mask


def make_codec(sink: MessageSink, options: CodecOptions, offers: Sequence[str]) -> Codec:
    """Return a codec: a `MakeCodec`."""
    deflate = agree_to_deflate(offers) if options.deflate and offers else None
    compression = None if deflate is None else _Compression(deflate, options.max_size)
    return FrameCodec(sink, options, apply_mask, compression)


class _Compression:
    def __init__(self, agreed: Deflate, max_size: int) -> None:
        self.response = agreed.response
        self._agreed = agreed
        # More than a message may have: at exactly the limit, the library finds a message too big whose end
        # it has not read.
        self._limit = compressed_limit(max_size)
        self._deflate = PerMessageDeflate(
            remote_no_context_takeover=agreed.client_no_context_takeover,
            local_no_context_takeover=agreed.server_no_context_takeover,
            remote_max_window_bits=agreed.inflate_bits,
            local_max_window_bits=agreed.server_bits,
            compress_settings={"memLevel": 5},
        )

    def decompress(self, opcode: int, payload: bytes, *, fin: bool) -> Iterator[bytes]:
        """See `Compression`."""
        deflate = self._deflate
        frame = Frame(Opcode(opcode), payload, fin, rsv1=opcode != Opcode.CONT)
        try:
            yield bytes(deflate.decode(frame, max_size=self._limit).data)
        except PayloadTooBig:
            raise Failure(1009, "message too big") from None
        except ProtocolError as error:
            raise Failure(1007 if isinstance(error.__cause__, zlib.error) else 1002, str(error)) from None
        if fin and not self._agreed.client_no_context_takeover and deflate.decoder.eof:
            # RFC 7692, section 7.2.3.4: BFINAL ends zlib's stream, but not the messages.
            deflate.decoder = zlib.decompressobj(wbits=-self._agreed.inflate_bits)

    def compress(self, opcode: int, payload: bytes) -> bytes:
        """See `Compression`."""
        return bytes(self._deflate.encode(Frame(Opcode(opcode), payload)).data)
