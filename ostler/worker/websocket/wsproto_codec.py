"""Adapter from wsproto's frame parser (https://python-hyper.org/projects/wsproto) to the codec interface."""

from __future__ import annotations

from collections.abc import Sequence

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, ParseFailed, RsvBits

from ostler.worker.websocket.codec import (
    BINARY,
    COMPRESSED,
    PING,
    TEXT,
    CodecOptions,
    Failure,
    MessageSink,
    header,
)
from ostler.worker.websocket.extension_offers import Deflate, agree_to_deflate
from ostler.worker.websocket.fast_path import take_message, unmask
from ostler.worker.websocket.frame_headers import FrameHeaders
from ostler.worker.websocket.frame_receiver import FrameReceiver

_STEP = 4096
"""Bytes of compressed input per step. wsproto inflates without a bound, up to a thousandfold; sizes are
checked after each step."""
_NO_RSV = RsvBits(False, False, False)


class WsprotoCodec:
    """One per connection."""

    __slots__ = ("_decoder", "_deflate", "_headers", "_max_size", "_receiver", "_sink", "agreed")

    def __init__(self, sink: MessageSink, options: CodecOptions, offers: Sequence[str]) -> None:
        agreed = agree_to_deflate(offers) if options.deflate and offers else None
        self.agreed = "" if agreed is None else agreed.response
        self._deflate = None if agreed is None else _Deflate(agreed)
        self._decoder = FrameDecoder(
            client=False, extensions=[] if self._deflate is None else [self._deflate]
        )
        self._sink = sink
        self._max_size = options.max_size
        self._headers = FrameHeaders(options.max_size, deflate=agreed is not None)
        self._receiver = FrameReceiver(sink, options.max_size)

    def feed(self, data: bytes | memoryview) -> bytes:
        headers, receiver = self._headers, self._receiver
        if headers.between and (message := take_message(data, self._max_size, unmask)) is not None:
            self._sink.on_message(message)
            return b""
        valid = headers.read(data)
        step = valid if self._deflate is None else _STEP
        for start in range(0, valid, step or 1):
            self._parse(data[start : min(start + step, valid)])
        if headers.failure is not None and not receiver.closed:
            raise headers.failure
        return receiver.take_answers()

    def _parse(self, data: bytes | memoryview) -> None:
        decoder, receiver = self._decoder, self._receiver
        decoder.receive_bytes(data)  # type: ignore[arg-type]  # its bytearray takes a view
        try:
            while not receiver.closed and (frame := decoder.process_buffer()) is not None:
                payload = frame.payload
                assert not isinstance(payload, (str, tuple))  # as FrameProtocol would make of it
                if frame.opcode >= Opcode.CLOSE:
                    receiver.take_control(frame.opcode, payload)
                else:
                    # A frame comes in pieces, as they arrive.
                    last = frame.frame_finished and frame.message_finished
                    receiver.take_data(frame.opcode, payload, last=last)
        except ParseFailed as error:
            reason = "decompression failed" if error.code == 1007 else str(error)
            raise Failure(int(error.code), reason) from None

    def text(self, data: str) -> bytes:
        payload = data.encode()
        if self._deflate is not None:
            return self._compressed(Opcode.TEXT, payload)
        return header(TEXT, len(payload)) + payload

    def binary(self, data: bytes) -> bytes:
        if self._deflate is not None:
            return self._compressed(Opcode.BINARY, data)
        return header(BINARY, len(data)) + data

    def _compressed(self, opcode: Opcode, payload: bytes) -> bytes:
        assert self._deflate is not None
        _, packed = self._deflate.frame_outbound(self._decoder, opcode, _NO_RSV, payload, True)
        return header(0x80 | COMPRESSED | opcode, len(packed)) + packed

    def ping(self, payload: bytes) -> bytes:
        return header(PING, len(payload)) + payload

    def close(self, code: int, reason: str) -> bytes:
        return self._receiver.close(code, reason)


class _Deflate(PerMessageDeflate):
    """permessage-deflate as it was agreed to.

    It ignores control frames: one inside a message makes wsproto's lose its state. And it goes on after a
    message with a final block.
    """

    def __init__(self, agreed: Deflate) -> None:
        super().__init__(
            client_no_context_takeover=agreed.client_no_context_takeover,
            client_max_window_bits=agreed.inflate_bits,
            server_no_context_takeover=agreed.server_no_context_takeover,
            server_max_window_bits=agreed.server_bits,
        )
        self._control = False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        self._control = opcode.iscontrol()
        if self._control:
            return _NO_RSV
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        return data if self._control else super().frame_inbound_payload_data(proto, data)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        if self._control:
            return None
        rest = super().frame_inbound_complete(proto, fin)
        if fin and self._decompressor is not None and self._decompressor.eof:
            # RFC 7692, section 7.2.3.4: BFINAL ends zlib's stream, but not the messages.
            self._decompressor = None
        return rest
