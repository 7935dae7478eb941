"""Adapter from h11 to the parser interface.

h11 is used as a parser only, one `h11.Connection` per request. It is laxer than llhttp in some places and
stricter in others, so each line of a head is checked here first: both adapters accept and refuse the same
requests.
"""

from __future__ import annotations

import re

import h11

from ostler.settings.field_grammar import TOKEN_CHARACTERS
from ostler.worker.http.announced_body import AnnouncedBody
from ostler.worker.http.chunk_lines import ChunkLines
from ostler.worker.http.parser import EMPTY_LINES, PIECE, RequestSink, too_many_empty_lines
from ostler.worker.http.request import CHUNKED, ENDLESS, MAX_METHOD, Refusal, method_too_long, oversize

_REQUEST_LINE = re.compile(
    rb"([%b]+) +([/*][!-~]*|[A-Za-z]+://[!-~]+|(?<=CONNECT )[!-~]+)(?: +HTTP/([0-9])\.([0-9]))?\r\n\Z"
    % TOKEN_CHARACTERS
)
_FIELD_LINE = re.compile(rb"[%b]+:[\t\x20-\x7e\x80-\xff]*\r\n\Z" % TOKEN_CHARACTERS)
_PARTIAL_REQUEST_LINE = re.compile(rb"[%b]+(?: +(?:[!-~]+(?:\r| +[HTP/0-9.]*\r?)?)?)?\Z" % TOKEN_CHARACTERS)
_PARTIAL_FIELD_LINE = re.compile(rb"(?:\r|[%b]+(?::[\t\x20-\x7e\x80-\xff]*\r?)?)\Z" % TOKEN_CHARACTERS)
_PARTIAL_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\r?\Z")
_SHORT = 1024


class H11Parser:
    """One per connection. Holds the lines of a head until it is complete, up to `limit` bytes."""

    __slots__ = (
        "_buffer",
        "_chunk_lines",
        "_empty",
        "_h11",
        "_limit",
        "_lines",
        "_scanned",
        "_sink",
        "_successor",
        "_taken",
        "in_head",
        "takes",
    )

    def __init__(self, sink: RequestSink, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        self.in_head = False
        self.takes = PIECE
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        """The lines of the head that are complete and checked."""
        self._taken = 0
        """Their size in bytes."""
        self._scanned = 0
        """Bytes of the buffer that are known to hold no line end."""
        self._empty = 0
        """Bytes of the empty lines since the last request, as far as nothing else came with them."""
        self._h11: h11.Connection | None = None
        """The request whose body is being read."""
        self._chunk_lines: ChunkLines | None = None
        """Checks its body, if that is chunked."""
        self._successor: AnnouncedBody | None = None
        """Reads a long body in place of this parser."""

    def feed(self, data: bytes | memoryview) -> int:
        if self._successor is not None:  # HttptoolsParser feeds it the rest of what was to be fed
            return self._successor.feed(data)
        if self._h11 is None:
            self._buffer += data
        else:
            self._to_h11(self._h11, bytes(data))
        try:
            while self._read_head() if self._h11 is None else self._read_body(self._h11):
                pass
        except h11.RemoteProtocolError as error:
            raise Refusal(error.error_status_hint, f"Invalid HTTP request received: {error}.") from None
        return len(data)

    def close(self) -> None:
        self._buffer.clear()
        self._h11 = None
        self._successor = None

    def _read_head(self) -> bool:
        """Take the lines of a head that have arrived; return whether a head was passed on."""
        buffer = self._buffer
        if not self._lines and buffer[:1].strip() == b"" and buffer:
            # RFC 9112, section 2.2: empty lines before a request line are skipped.
            empty = len(buffer) - len(buffer.lstrip(b"\r\n"))
            del buffer[:empty]
            if not buffer:
                self._empty += empty
                if self._empty > EMPTY_LINES:
                    raise too_many_empty_lines()
        while (end := buffer.find(b"\n", self._scanned) + 1) > 0:
            line = bytes(buffer[:end])
            del buffer[:end]
            self._scanned = 0
            if self._lines and line == b"\r\n":
                self._check_size(line)
                return self._finish_head()
            self._check_line(line)
            self._lines.append(line)
        self.in_head = bool(buffer or self._lines)
        if buffer:
            self._check_partial()
        self._scanned = len(buffer)
        return False

    def _check_line(self, line: bytes) -> None:
        if self._lines:
            if not _FIELD_LINE.match(line):
                raise Refusal(400, "Invalid HTTP request received: malformed header field.")
        elif not (match := _REQUEST_LINE.match(line)):
            raise Refusal(400, "Invalid HTTP request received: malformed request line.")
        elif len(match[1]) > MAX_METHOD:
            raise method_too_long()
        self._check_size(line)
        self._taken += len(line)

    def _check_partial(self) -> None:
        """Refuse at once what no further bytes can make valid: another protocol need not wait for a 408."""
        line = self._buffer
        if self._lines:
            # A long line that arrives byte by byte is not scanned from its start each time.
            new = line[self._scanned :]
            valid: object = (
                _PARTIAL_FIELD_LINE.match(line) if len(line) < _SHORT else _PARTIAL_VALUE.match(new)
            )
        else:
            start = bytes(line[:_SHORT])
            if len(start.partition(b" ")[0]) > MAX_METHOD and _PARTIAL_REQUEST_LINE.match(start):
                raise method_too_long()
            valid = _PARTIAL_REQUEST_LINE.match(start)
        if not valid:
            raise Refusal(400, "Invalid HTTP request received: malformed head.")
        self._check_size(line)

    def _check_size(self, line: bytes | bytearray) -> None:
        if self._taken + len(line) > self._limit:
            request_line = self._lines[0] if self._lines else line
            raise oversize(len(request_line.split(b" ")[1]) if b" " in request_line else 0, self._limit)

    def _finish_head(self) -> bool:
        match = _REQUEST_LINE.match(self._lines[0])
        assert match is not None  # `_check_line` has matched it
        method, target, major, minor = match.groups()
        # Without a version it is HTTP/0.9, which the sink refuses as that.
        version = f"{int(major)}.{int(minor)}" if major else "0.9"
        headers = [_split(line) for line in self._lines[1:]]
        self._lines.clear()
        self._taken = 0
        self._empty = 0
        self.in_head = False
        head = self._sink.on_head(method, target, version, headers)
        if head.length == ENDLESS:
            if self._buffer:
                self._sink.on_body(bytes(self._buffer))
                self._buffer.clear()
            return False
        if head.length - len(self._buffer) > PIECE:
            self._stand_in(head.length)
            return False
        framing = (
            b"transfer-encoding: chunked" if head.length == CHUNKED else b"content-length: %d" % head.length
        )
        # h11 is given the framing of the body and nothing else: the rest has passed stricter checks already.
        self._h11 = connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limit)
        connection.receive_data(b"POST / HTTP/1.1\r\nhost: h11\r\n%b\r\n\r\n" % framing)
        connection.next_event()
        self._chunk_lines = ChunkLines(self._limit) if head.length == CHUNKED else None
        if self._buffer:  # to h11, no bytes mean the end of the connection
            self._to_h11(connection, bytes(self._buffer))
            self._buffer.clear()
        return True

    def _stand_in(self, length: int) -> None:
        """Let an AnnouncedBody read the rest of a body of `length` bytes: h11 would copy each of them."""
        if self._buffer:
            self._sink.on_body(bytes(self._buffer))
        self._successor = AnnouncedBody(self, self._sink, length - len(self._buffer))
        self._sink.replace_parser(self._successor)
        self._buffer.clear()

    def body_ended(self) -> None:
        """The body has ended that was read in place of this parser, which now reads on."""
        self._successor = None

    def _to_h11(self, connection: h11.Connection, data: bytes) -> None:
        if self._chunk_lines is not None:
            self._chunk_lines.read(data)
        connection.receive_data(data)

    def _read_body(self, connection: h11.Connection) -> bool:
        """Take what has arrived of a body; return whether the request has ended."""
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                self._sink.on_body(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._buffer += connection.trailing_data[0]
                self._h11 = None
                self._sink.on_end()
                return True
            else:
                return False


def _split(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t\r\n")
