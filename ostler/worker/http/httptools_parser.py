"""Adapter from httptools (llhttp) to the parser interface.

llhttp knows some forty methods and refuses every other one. From the first such request on, the h11 adapter
reads the connection in its place (`_hand_over`). For that the place is needed where the request begins, which
httptools does not tell. It is found by feeding the same bytes again, one by one (`_start_of_refused`). This
works if what is fed begins with a request. So a feed that begins inside a request is cut where that may end
(`_feed_inside`).

What follows the first read of a long body is not fed to llhttp, which would copy it: `AnnouncedBody` reads
it, or `ChunkedBody`.

One known difference from the h11 adapter: llhttp also accepts `RTSP/1.0` in place of `HTTP/1.0`, and
`ICE/1.0` for SOURCE, and does not report which it was.
"""

from __future__ import annotations

import httptools

from ostler.worker.http.announced_body import AnnouncedBody
from ostler.worker.http.chunk_lines import ChunkLines
from ostler.worker.http.chunked_body import ChunkedBody
from ostler.worker.http.parser import EMPTY_LINES, PIECE, Parser, RequestSink, too_many_empty_lines
from ostler.worker.http.request import CHUNKED, ENDLESS, Fields, Refusal, RequestHead, oversize

_FOREIGN = frozenset(
    b"""
    DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH PRI
    """.split()
)
"""Methods that llhttp knows of RTSP and of HTTP/2, and refuses in HTTP/1.1, where they are unknown ones."""


class HttptoolsParser:
    """One per connection. llhttp calls the `on_` methods while `feed` runs."""

    __slots__ = (
        "_empty", "_ended", "_fed", "_headers", "_inside", "_left", "_limit", "_parser", "_replaying",
        "_silent", "_sink", "_start", "_successor", "_surely_within", "_target", "_upgraded",
        "_upgrading", "in_head", "takes",
    )  # fmt: skip

    def __init__(self, sink: RequestSink, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        self._surely_within = limit - PIECE
        """What `_fed` may be so that a head is within the limit, whatever else the feed holds."""
        self.in_head = False
        self.takes = PIECE
        self._target = b""
        self._headers: Fields = []
        self._fed = 0
        """Bytes fed for a head that is still incomplete, as far as they surely belong to it."""
        self._ended = True
        """A message ended in this feed, or the last feed ended with one."""
        self._silent = 0
        """Bytes fed since the last body piece or chunk header: bounds trailer fields and chunk extensions."""
        self._left = 0
        """Bytes of the body to come; below zero if it is chunked."""
        self._empty = 0
        """Bytes of the empty lines since the last request, as far as nothing else came with them."""
        self._start = b""
        """What was fed since a request began, while its head is incomplete and its method may be unknown."""
        self._successor: Parser | None = None
        """Reads on in place of this one: h11, after a method that llhttp does not know, or for one body."""
        self._inside = False
        """`_feed_inside` is running."""
        self._upgraded = False
        """All that follows is of another protocol."""
        self._upgrading: RequestHead | None = None
        self._replaying = False
        self._parser = _new_parser(self)

    def feed(self, data: bytes | memoryview) -> int:
        size = len(data)
        if not self._ended:
            self._feed_inside(bytes(data))
            return size
        self._ended = False
        upgraded_at = -1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            upgraded_at = upgrade.args[0]
        except httptools.HttpParserError as error:
            if not self._does_not_know_method(error):
                raise _refusal(error) from None
            self._hand_over(self._start + bytes(data))
            return size
        if upgraded_at >= 0:
            # Not while the exception is handled: it would become the context of a refusal (`_refusal`).
            self._resume(data, upgraded_at)
        elif self.in_head:
            self._measure(size)
            if not self._target or self._parser.get_method() in _FOREIGN:
                self._start += bytes(data)
            self._ended = False
        elif self._left:
            self._silent += size
            if self._silent > self._limit + PIECE:
                raise Refusal(431, "The trailer fields are too large.")
            if self._left > PIECE:
                self._stand_in(AnnouncedBody(self, self._sink, self._left))
            elif self._left < 0 and not self._ended and not self._inside:
                self._leave_chunks(bytes(data))
            self._ended = False
        elif self._ended:
            self._empty = 0
        else:
            self._empty += size
            if self._empty > EMPTY_LINES:
                raise too_many_empty_lines()
        return size

    def _leave_chunks(self, data: bytes) -> None:
        """Let a ChunkedBody read on; `data` begins with a request, whose head is complete and body is not."""
        start = len(data) - len(data.lstrip(b"\r\n"))
        _, _, body = data[start:].partition(b"\r\n\r\n")
        lines = ChunkLines(self._limit)
        pieces: list[bytes | memoryview] = []
        lines.read(body, pieces)
        # llhttp reads on if it has found another body here, which it should not.
        if sum(map(len, pieces)) == CHUNKED - self._left:
            self._stand_in(ChunkedBody(self, self._sink, lines))

    def _stand_in(self, parser: Parser) -> None:
        """Let `parser` read the rest of the body in place of this one."""
        self._successor = parser
        self._sink.replace_parser(parser)

    def body_ended(self) -> None:
        """The body has ended that was read in place of this parser, which now reads on."""
        self._successor = None
        self._left = 0
        self._empty = 0
        self._ended = True
        self._parser = _new_parser(self)

    def _feed_inside(self, data: bytes) -> None:
        """Feed up to each place where the request may end that is being read, until it has ended."""
        self._inside = True
        while data and (self.in_head or self._left) and self._successor is None:
            if self._left > 0:
                end = self._left
            elif data.startswith((b"\n", b"\r\n")):
                end = data.index(b"\n") + 1
            else:
                # The empty line that ends a head, and a chunked body.
                end = data.find(b"\n\r\n") + 3
                if end < 3:
                    end = len(data)
            piece, data = data[:end], data[end:]
            self._ended = True
            self.feed(piece)
            if not self.in_head:
                self._start = b""
        self._inside = False
        if not data:
            return
        if self._upgraded:
            self._sink.on_body(data)
        elif self._successor is not None:
            self._successor.feed(data)
        else:
            self._ended = True
            self.feed(data)

    def _does_not_know_method(self, error: httptools.HttpParserError) -> bool:
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            return True
        return self.in_head and self._parser.get_method() in _FOREIGN

    def _hand_over(self, data: bytes) -> None:
        """Let h11 read on, from the beginning of the request whose method llhttp does not know.

        `data` begins with a request, and ends with what was fed.
        """
        from ostler.worker.http.h11_parser import H11Parser  # most servers never need it

        self._successor = successor = H11Parser(self._sink, self._limit)
        self._sink.replace_parser(successor)
        self.in_head = False
        self._left = 0
        self._start = b""
        self.close()
        successor.feed(data[_start_of_refused(data) :])

    def close(self) -> None:
        del self._parser  # it refers to the methods below

    def _resume(self, data: bytes | memoryview, offset: int) -> None:
        """Parse on after a request that asks for an upgrade which is not taken.

        llhttp ends such a message at its head, whatever body was announced. A fresh parser is fed the framing
        alone, and then the rest: to read the body as the next request would allow request smuggling.
        """
        head, self._upgrading = self._upgrading, None
        assert head is not None
        if head.length == ENDLESS:
            self._upgraded = True
            if offset < len(data):
                self._sink.on_body(bytes(data[offset:]))
            return
        self._parser = _new_parser(self)
        if head.length:
            framing = (
                b"transfer-encoding:chunked" if head.length == CHUNKED else b"content-length:%d" % head.length
            )
            self._replaying = True
            self._left = head.length
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        else:
            self._sink.on_end()
        self._ended = not head.length  # a request before it, in the same feed, may have ended
        if offset < len(data):
            self.feed(memoryview(data)[offset:])

    def _measure(self, size: int) -> None:
        # If another message ended in this feed, it is unknown how many of its bytes belong to the next head:
        # none is counted.
        if not self._ended:
            self._fed += size
            if self._fed > self._limit:
                raise oversize(len(self._target), self._limit)

    # -- called by httptools

    def on_message_begin(self) -> None:
        if not self._replaying:
            self.in_head = True
            self._fed = 0
            self._target = b""
            self._headers = []

    def on_url(self, url: bytes) -> None:
        if self._target:
            self._target += url
        else:
            self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:  # else a trailer field: dropped (RFC 9110, section 6.5.1)
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self._replaying:
            self._replaying = False
            return
        self.in_head = False
        self._silent = 0
        parser = self._parser
        if self._fed > self._surely_within:
            line = len(parser.get_method()) + len(self._target) + len("  HTTP/1.1\r\n")
            if line + sum(len(n) + len(v) + 4 for n, v in self._headers) + 2 > self._limit:
                raise oversize(len(self._target), self._limit)
        head = self._sink.on_head(parser.get_method(), self._target, parser.get_http_version(), self._headers)
        if head.upgrade and parser.should_upgrade():
            self._upgrading = head
        else:
            self._left = head.length

    def on_body(self, data: bytes) -> None:
        self._silent = 0
        self._left -= len(data)
        self._sink.on_body(data)

    def on_chunk_header(self) -> None:
        self._silent = 0

    def on_chunk_complete(self) -> None:
        self._silent = 0

    def on_message_complete(self) -> None:
        if self._upgrading is None:
            self._left = 0
            self._ended = True
            self._sink.on_end()


def _new_parser(callbacks: object) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(callbacks)
    # The sink decides whether anything follows, and ignores it after "Connection: close". llhttp would report
    # an error, and read Proxy-Connection like Connection. Versions are checked with the rest of the head,
    # where a wrong one is answered with 505.
    parser.set_dangerous_leniencies(
        lenient_data_after_close=True, lenient_keep_alive=True, lenient_version=True
    )
    return parser


class _Beginning:
    """Notes that a request begins."""

    def __init__(self) -> None:
        self.seen = False

    def on_message_begin(self) -> None:
        self.seen = True


def _start_of_refused(data: bytes) -> int:
    """Return where the request begins that llhttp refuses; `data` begins with a request."""
    beginning = _Beginning()
    parser = _new_parser(beginning)
    start = 0
    refused = False
    for at in range(len(data)):
        try:
            parser.feed_data(data[at : at + 1])
        except httptools.HttpParserError:
            refused = True
        if beginning.seen:
            beginning.seen = False
            start = at
        if refused:
            break
    return start


def _refusal(error: httptools.HttpParserError) -> Refusal:
    """Return the refusal that a callback raised and httptools wrapped, or one for the error of llhttp."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
        raise cause  # a defect of ostler must not be reported as the client's error
    return Refusal(400, f"Invalid HTTP request received: {error}.")
