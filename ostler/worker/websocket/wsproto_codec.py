"""Adapter from wsproto (https://python-hyper.org/projects/wsproto) to the codec interface."""

from __future__ import annotations

from collections.abc import Sequence

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits
from wsproto.handshake import server_extensions_handshake

from ostler.worker.websocket.codec import BINARY, TEXT, CodecOptions, Failure, MessageSink, header
from ostler.worker.websocket.fast_path import FastPath, unmask

_STEP = 4096
"""Bytes of compressed input per step. wsproto inflates without a bound, up to a thousandfold; sizes are
checked after each step."""


class WsprotoCodec:
    """One per connection."""

    __slots__ = ("_connection", "_fast_path", "_max_size", "_parts", "_plain", "_sink", "_size", "agreed")

    def __init__(self, sink: MessageSink, options: CodecOptions, offers: Sequence[str]) -> None:
        self.agreed, extensions = _negotiate(offers) if options.deflate else ("", [])
        self._connection = Connection(ConnectionType.SERVER, extensions)
        self._plain = not extensions
        self._fast_path = FastPath(options.max_size, unmask)
        self._sink = sink
        self._max_size = options.max_size
        self._parts: list[str | bytes] = []
        """What has arrived of a message, and its size in bytes."""
        self._size = 0

    def feed(self, data: bytes | memoryview) -> bytes:
        fast_path = self._fast_path
        if fast_path.between and (message := fast_path.take(data)) is not None:
            self._sink.on_message(message)
            return b""
        fast_path.track(data)
        if self._plain or len(data) <= _STEP:
            return self._feed(data)
        return b"".join([self._feed(data[start : start + _STEP]) for start in range(0, len(data), _STEP)])

    def _feed(self, data: bytes | memoryview) -> bytes:
        connection = self._connection
        if connection.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            return b""  # the peer's close frame came in an earlier step
        connection.receive_data(data)  # type: ignore[arg-type]  # it adds to a bytearray, which takes a view
        answer = b""
        for event in connection.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._take(event)
            else:
                answer += self._control(event)
        return answer

    def _control(self, event: Event) -> bytes:
        connection = self._connection
        if isinstance(event, Ping):
            return (
                bytes(connection.send(event.response())) if connection.state is ConnectionState.OPEN else b""
            )
        if isinstance(event, Pong):
            self._sink.on_pong(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            if connection.state not in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
                raise Failure(int(event.code), event.reason or "")  # wsproto's report of a broken frame
            self._sink.on_close(int(event.code), event.reason or "")
            if connection.state is ConnectionState.REMOTE_CLOSING:
                return bytes(connection.send(event.response()))
        return b""

    def _take(self, event: TextMessage | BytesMessage) -> None:
        piece = event.data
        if piece:
            if isinstance(piece, str):
                self._size += len(piece) if piece.isascii() else len(piece.encode())
            else:
                self._size += len(piece)
            if self._size > self._max_size:
                raise Failure(1009, "message too big")
            self._parts.append(piece if isinstance(piece, str) else bytes(piece))
        if event.message_finished:
            parts, self._parts = self._parts, []
            self._size = 0
            if isinstance(event, TextMessage):
                self._sink.on_message("".join(parts))  # type: ignore[arg-type]  # pieces are of one kind
            else:
                self._sink.on_message(b"".join(parts))  # type: ignore[arg-type]

    def text(self, data: str) -> bytes:
        if self._plain:
            payload = data.encode()
            return header(TEXT, len(payload)) + payload
        return bytes(self._connection.send(Message(data)))

    def binary(self, data: bytes) -> bytes:
        if self._plain:
            return header(BINARY, len(data)) + data
        return bytes(self._connection.send(Message(data)))

    def ping(self, payload: bytes) -> bytes:
        return bytes(self._connection.send(Ping(payload)))

    def close(self, code: int, reason: str) -> bytes:
        if self._connection.state is not ConnectionState.OPEN:
            return b""
        return bytes(self._connection.send(CloseConnection(code, reason)))


class _Deflate(PerMessageDeflate):
    """permessage-deflate that ignores control frames: one inside a message makes wsproto's lose its state."""

    def __init__(self) -> None:
        super().__init__()
        self._control = False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        self._control = opcode.iscontrol()
        if self._control:
            return RsvBits(False, False, False)
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        return data if self._control else super().frame_inbound_payload_data(proto, data)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        return None if self._control else super().frame_inbound_complete(proto, fin)


def _negotiate(offers: Sequence[str]) -> tuple[str, list[Extension]]:
    """Agree to the first offer that is well-formed and supported; return the agreement and the extensions."""
    for offer in ",".join(offers).split(","):
        deflate = _Deflate()
        try:
            agreed = server_extensions_handshake([offer.strip()], [deflate])
        except ValueError:
            continue
        if agreed is not None and deflate.enabled():
            return agreed.decode("ascii"), [deflate]
    return "", []
