"""Makes messages of frames, and answers control frames."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Callable

from ostler.worker.pieces import Pieces
from ostler.worker.websocket.codec import CLOSE, PONG, Failure, MessageSink, header, is_close_code

_TEXT, _BINARY, _PING, _PONG = 1, 2, 9, 10
"""Opcodes (RFC 6455, section 5.2)."""

_new_decoder = codecs.getincrementaldecoder("utf-8")

# PyPy's `str` takes surrogates for UTF-8 (seen in 8.0.1); CPython's is the faster of the two.
_to_text: Callable[[bytes, str], str] = codecs.decode if sys.implementation.name == "pypy" else str


class FrameReceiver:
    """Takes frames in order. Their headers are checked already (`FrameHeaders`)."""

    __slots__ = (
        "_binary", "_close_sent", "_decoder", "_max_size", "_sink", "_size", "_text", "answers", "closed",
    )  # fmt: skip

    def __init__(self, sink: MessageSink, max_size: int) -> None:
        self._sink = sink
        self._max_size = max_size
        self._size = 0
        """Bytes of the current message, decompressed."""
        self._binary = Pieces()
        self._text: io.StringIO | None = None
        self._decoder = _new_decoder()
        self.answers: list[bytes] = []
        """The frames that answer what has come."""
        self._close_sent = False
        self.closed = False
        """The peer's close frame has come: nothing more is taken."""

    def take_data(self, opcode: int, payload: bytes, *, last: bool) -> None:
        """Take the payload of a data frame, or a piece of it, which is not masked; `last` ends the message.

        Raises:
            Failure: the message is too big, or a text that is not UTF-8, as soon as that is known.
        """
        self._size += len(payload)
        if self._size > self._max_size:
            raise Failure(1009, "message too big")
        if opcode == _TEXT:
            if last:
                self._size = 0
                self._sink.on_message(decode(payload))
                return
            self._text = io.StringIO()
            self._decoder.reset()
        elif opcode == _BINARY and last:
            self._size = 0
            self._sink.on_message(payload)
            return
        if self._text is not None:
            self._add_text(self._text, payload, last)
        else:
            self._binary.add(payload)
            if last:
                self._size = 0
                self._sink.on_message(self._binary.take())

    def _add_text(self, text: io.StringIO, payload: bytes, last: bool) -> None:
        decoder = self._decoder
        try:
            text.write(decoder.decode(payload, last))
            # Python waits for the third byte of a surrogate, although none can follow.
            pending = decoder.getstate()[0]
            if len(pending) == 2 and pending >= b"\xed\xa0" and pending[0] == 0xED:
                decoder.decode(b"", True)
        except UnicodeDecodeError:
            raise Failure(1007, "invalid UTF-8") from None
        if last:
            self._text = None
            self._size = 0
            self._sink.on_message(text.getvalue())

    def take_control(self, opcode: int, payload: bytes) -> None:
        """Take a control frame, also between the fragments of a message.

        Raises:
            Failure: it is a close frame with a wrong payload.
        """
        if opcode == _PING:
            # RFC 6455, section 5.5.2: due until the peer's close frame has come, even after ours.
            self.answers.append(header(PONG, len(payload)) + payload)
        elif opcode == _PONG:
            self._sink.on_pong(payload)
        else:
            code, reason = _read_close(payload)
            self.closed = True
            self._sink.on_close(code, reason)
            if not self._close_sent:  # RFC 6455, section 5.5.1
                self._close_sent = True
                self.answers.append(header(CLOSE, len(payload)) + payload)

    def take_answers(self) -> bytes:
        """Return the frames that answer what has come since the last call."""
        answers = self.answers
        if not answers:
            return b""
        together = b"".join(answers)
        answers.clear()
        return together

    def close(self, code: int, reason: str) -> bytes:
        """Return our close frame, behind the answers that are due; nothing if it is sent already."""
        if not self._close_sent:
            self._close_sent = True
            payload = code.to_bytes(2, "big") + reason.encode()
            self.answers.append(header(CLOSE, len(payload)) + payload)
        return self.take_answers()


def _read_close(payload: bytes) -> tuple[int, str]:
    """Return code and reason of a close frame; 1005 stands for no code.

    Raises:
        Failure: neither may be there (RFC 6455, sections 5.5.1, 7.4 and 8.1).
    """
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise Failure(1002, "a close frame has half a code")
    code = int.from_bytes(payload[:2], "big")
    if not is_close_code(code):
        raise Failure(1002, f"a close frame cannot hold the code {code}")
    return code, decode(payload[2:])


def decode(payload: bytes) -> str:
    """Return a text message's payload as text.

    Raises:
        Failure: it is not UTF-8 (RFC 6455, section 8.1).
    """
    try:
        return _to_text(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise Failure(1007, f"invalid UTF-8 at position {error.start}") from None
