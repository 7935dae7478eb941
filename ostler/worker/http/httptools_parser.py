"""Adapter from httptools (llhttp) to the parser interface.

One known difference from the h11 adapter: llhttp also accepts `RTSP/1.0` in place of `HTTP/1.0`, and does not
report which it was.
"""

from __future__ import annotations

import httptools

from ostler.worker.http.parser import PIECE, RequestSink
from ostler.worker.http.request import CHUNKED, ENDLESS, Fields, Refusal, RequestHead, oversize


class HttptoolsParser:
    """One per connection. llhttp calls the `on_` methods while `feed` runs."""

    __slots__ = (
        "_ended", "_fed", "_feeding", "_headers", "_limit", "_parser", "_reading_body", "_replaying",
        "_silent", "_sink", "_target", "_upgrading", "in_head",
    )  # fmt: skip

    def __init__(self, sink: RequestSink, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        self.in_head = False
        self._target = b""
        self._headers: Fields = []
        self._fed = 0
        """Bytes fed for a head that is still incomplete, as far as they surely belong to it."""
        self._feeding = 0
        self._ended = False
        self._reading_body = False
        self._silent = 0
        """Bytes fed since the last body piece or chunk header: bounds trailer fields and chunk extensions."""
        self._upgrading: RequestHead | None = None
        self._replaying = False
        self._parser = self._fresh()

    def _fresh(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # After "Connection: close" the sink ignores what follows; llhttp would report an error. Versions are
        # checked with the rest of the head, where a wrong one is answered with 505.
        parser.set_dangerous_leniencies(lenient_data_after_close=True, lenient_version=True)
        return parser

    def feed(self, data: bytes | memoryview) -> None:
        self._feeding = len(data)
        self._ended = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._resume(data, upgrade.args[0])
        except httptools.HttpParserError as error:
            raise _refusal(error) from None
        if self.in_head:
            self._measure(len(data))
        elif self._reading_body:
            self._silent += len(data)
            if self._silent > self._limit + PIECE:
                raise Refusal(431, "The trailer fields are too large.")

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
            if offset < len(data):
                self._sink.on_body(bytes(data[offset:]))
            return
        self._parser = self._fresh()
        if head.length:
            framing = (
                b"transfer-encoding:chunked" if head.length == CHUNKED else b"content-length:%d" % head.length
            )
            self._replaying = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        else:
            self._sink.on_end()
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
            self._reading_body = True
            return
        self.in_head = False
        self._silent = 0
        parser = self._parser
        if self._fed + self._feeding > self._limit:
            line = len(parser.get_method()) + len(self._target) + len("  HTTP/1.1\r\n")
            if line + sum(len(n) + len(v) + 4 for n, v in self._headers) + 2 > self._limit:
                raise oversize(len(self._target), self._limit)
        head = self._sink.on_head(parser.get_method(), self._target, parser.get_http_version(), self._headers)
        if head.upgrade and parser.should_upgrade():
            self._upgrading = head
        else:
            self._reading_body = True

    def on_body(self, data: bytes) -> None:
        self._silent = 0
        self._sink.on_body(data)

    def on_chunk_header(self) -> None:
        self._silent = 0

    def on_chunk_complete(self) -> None:
        self._silent = 0

    def on_message_complete(self) -> None:
        if self._upgrading is None:
            self._reading_body = False
            self._ended = True
            self._sink.on_end()


def _refusal(error: httptools.HttpParserError) -> Refusal:
    """Return the refusal that a callback raised and httptools wrapped, or one for the error of llhttp."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
        raise cause  # a defect of ostler must not be reported as the client's error
    return Refusal(400, f"Invalid HTTP request received: {error}.")
