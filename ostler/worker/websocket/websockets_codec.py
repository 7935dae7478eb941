"""Adapter from websockets' frame parser (https://websockets.readthedocs.io) to the codec interface."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Sequence

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader
from websockets.utils import apply_mask

from ostler.worker.websocket.codec import (
    BINARY,
    PING,
    TEXT,
    CodecOptions,
    Failure,
    MessageSink,
    header,
)
from ostler.worker.websocket.extension_offers import Deflate, agree_to_deflate
from ostler.worker.websocket.fast_path import take_message
from ostler.worker.websocket.frame_headers import FrameHeaders, compressed_limit
from ostler.worker.websocket.frame_receiver import FrameReceiver


class WebsocketsCodec:
    """One per connection."""

    __slots__ = (
        "_extensions", "_frames", "_headers", "_max_size", "_parser", "_reader", "_receiver", "_sink",
        "agreed",
    )  # fmt: skip

    def __init__(self, sink: MessageSink, options: CodecOptions, offers: Sequence[str]) -> None:
        deflate = agree_to_deflate(offers) if options.deflate and offers else None
        self.agreed = "" if deflate is None else deflate.response
        self._extensions = [] if deflate is None else [_Deflate(deflate)]
        self._sink = sink
        self._max_size = options.max_size
        self._headers = FrameHeaders(options.max_size, deflate=deflate is not None)
        self._receiver = FrameReceiver(sink, options.max_size)
        self._reader = StreamReader()
        self._frames: list[Frame] = []
        """What the parser has made of the input."""
        limit = options.max_size if deflate is None else compressed_limit(options.max_size)
        self._parser = _parse(self._reader, self._frames, self._extensions, limit)
        next(self._parser)

    def feed(self, data: bytes | memoryview) -> bytes:
        headers, receiver = self._headers, self._receiver
        if headers.between and (message := take_message(data, self._max_size, apply_mask)) is not None:
            self._sink.on_message(message)
            return b""
        valid = headers.read(data)
        self._reader.feed_data(data[:valid])  # type: ignore[arg-type]  # its bytearray takes a view
        failure = headers.failure
        try:
            next(self._parser)
        except PayloadTooBig:
            failure = Failure(1009, "message too big")
        except ProtocolError as error:
            failure = Failure(1007 if isinstance(error.__cause__, zlib.error) else 1002, str(error))
        frames = self._frames
        for frame in frames:
            if receiver.closed:
                break
            if frame.opcode >= Opcode.CLOSE:
                receiver.take_control(frame.opcode, frame.data)
            else:
                receiver.take_data(frame.opcode, frame.data, last=frame.fin)
        frames.clear()
        if failure is not None and not receiver.closed:
            raise failure
        return receiver.take_answers()

    def text(self, data: str) -> bytes:
        payload = data.encode()
        if self._extensions:
            return Frame(Opcode.TEXT, payload).serialize(mask=False, extensions=self._extensions)
        return header(TEXT, len(payload)) + payload

    def binary(self, data: bytes) -> bytes:
        if self._extensions:
            return Frame(Opcode.BINARY, data).serialize(mask=False, extensions=self._extensions)
        return header(BINARY, len(data)) + data

    def ping(self, payload: bytes) -> bytes:
        return header(PING, len(payload)) + payload

    def close(self, code: int, reason: str) -> bytes:
        return self._receiver.close(code, reason)


def _parse(
    reader: StreamReader, frames: list[Frame], extensions: Sequence[PerMessageDeflate], max_size: int
) -> Generator[None, None, None]:
    """Append to `frames` what is in `reader`. A function: as a method it would be a reference cycle."""
    while True:
        frame = yield from Frame.parse(reader.read_exact, mask=True, max_size=max_size, extensions=extensions)
        frames.append(frame)


class _Deflate(PerMessageDeflate):
    """permessage-deflate as it was agreed to, which also goes on after a message with a final block."""

    def __init__(self, agreed: Deflate) -> None:
        super().__init__(
            remote_no_context_takeover=agreed.client_no_context_takeover,
            local_no_context_takeover=agreed.server_no_context_takeover,
            remote_max_window_bits=agreed.inflate_bits,
            local_max_window_bits=agreed.server_bits,
            compress_settings={"memLevel": 5},
        )

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        decoded = super().decode(frame, max_size=max_size)
        if frame.fin and not self.remote_no_context_takeover and self.decoder.eof:
            # RFC 7692, section 7.2.3.4: BFINAL ends zlib's stream, but not the messages.
            self.decoder = zlib.decompressobj(wbits=-self.remote_max_window_bits)
        return decoded
