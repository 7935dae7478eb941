"""Adapter from websockets (https://websockets.readthedocs.io), its Sans-I/O part, to the codec interface."""

from __future__ import annotations

from collections.abc import Sequence

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, PayloadTooBig
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from ostler.worker.websocket.codec import BINARY, TEXT, CodecOptions, Failure, MessageSink, header
from ostler.worker.websocket.fast_path import FastPath, decode

_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
_PONG, _CLOSE = Opcode.PONG, Opcode.CLOSE


class WebsocketsCodec:
    """One per connection."""

    __slots__ = ("_fast_path", "_is_text", "_parts", "_plain", "_protocol", "_sink", "agreed")

    def __init__(self, sink: MessageSink, options: CodecOptions, offers: Sequence[str]) -> None:
        # A window of 4 KiB instead of 32 KiB costs little compression, and saves most of the memory that zlib
        # takes for each connection.
        deflate = ServerPerMessageDeflateFactory(
            server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
        )
        self._protocol = protocol = ServerProtocol(
            extensions=[deflate] if options.deflate and offers else None,
            state=OPEN,
            max_size=options.max_size,
        )
        self._sink = sink
        self.agreed = ""
        if protocol.available_extensions:
            headers = Headers([("Sec-WebSocket-Extensions", offer) for offer in offers])
            try:
                agreed, protocol.extensions = protocol.process_extensions(headers)
            except (InvalidHandshake, ValueError):
                # Malformed; or a window of 8 bits: websockets 13 agrees to it, but zlib does not have it.
                pass
            else:
                self.agreed = agreed or ""
        self._plain = not protocol.extensions
        self._fast_path = FastPath(options.max_size, apply_mask)
        self._is_text = False
        self._parts: bytearray | None = None
        """What has arrived of a message in several frames."""

    def feed(self, data: bytes | memoryview) -> bytes:
        fast_path = self._fast_path
        if fast_path.between and (message := fast_path.take(data)) is not None:
            self._sink.on_message(message)
            return b""
        fast_path.track(data)
        protocol = self._protocol
        protocol.receive_data(data)  # type: ignore[arg-type]  # it adds to a bytearray, which takes a view
        answers = False
        for frame in protocol.events_received():
            opcode = frame.opcode  # type: ignore[union-attr]  # no Request: the handshake is done
            payload = frame.data  # type: ignore[union-attr]
            if opcode is _TEXT or opcode is _BINARY:
                if frame.fin:  # type: ignore[union-attr]
                    self._push(payload, opcode is _TEXT)
                else:
                    self._is_text = opcode is _TEXT
                    self._parts = bytearray(payload)
            elif opcode is _CONT:
                assert self._parts is not None
                # One growing buffer: many fragments, or empty ones, take no more memory than their bytes.
                self._parts += payload
                if frame.fin:  # type: ignore[union-attr]
                    parts, self._parts = self._parts, None
                    self._push(parts, self._is_text)
            elif opcode is _PONG:
                self._sink.on_pong(bytes(payload))
            else:
                answers = True
                if opcode is _CLOSE:
                    close = protocol.close_rcvd
                    assert close is not None
                    self._sink.on_close(int(close.code), close.reason)
        if protocol.parser_exc is not None:
            raise self._failure(protocol.parser_exc)
        return b"".join(protocol.data_to_send()) if answers else b""

    def _push(self, payload: bytes | bytearray | memoryview, is_text: bool) -> None:
        if is_text:
            self._sink.on_message(decode(payload))
        else:
            self._sink.on_message(payload if type(payload) is bytes else bytes(payload))

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, PayloadTooBig):
            return Failure(1009, "message too big")
        sent = self._protocol.close_sent
        return Failure(int(sent.code), sent.reason) if sent is not None else Failure(1002, str(error))

    def text(self, data: str) -> bytes:
        payload = data.encode()
        if self._plain:
            return header(TEXT, len(payload)) + payload
        self._protocol.send_text(payload)
        return b"".join(self._protocol.data_to_send())

    def binary(self, data: bytes) -> bytes:
        if self._plain:
            return header(BINARY, len(data)) + data
        self._protocol.send_binary(data)
        return b"".join(self._protocol.data_to_send())

    def ping(self, payload: bytes) -> bytes:
        self._protocol.send_ping(payload)
        return b"".join(self._protocol.data_to_send())

    def close(self, code: int, reason: str) -> bytes:
        # After a failure, the library has its own close frame waiting here.
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
        return b"".join(self._protocol.data_to_send())
