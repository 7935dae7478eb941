"""The interface of the HTTP/1.1 parsers, and of what they push requests into."""

from __future__ import annotations

import sys
from typing import Protocol

from ostler.worker.http.request import Fields, Refusal, RequestHead

PIECE = 16 * 1024
"""The most bytes fed to a parser at once, unless it reads only one body (`Parser.takes`): bounds the heads
that one feed of pipelined requests can yield."""

NO_LIMIT = sys.maxsize
"""What a parser takes that reads one body and no head."""

EMPTY_LINES = 1024
"""The most bytes of empty lines before a request line, besides PIECE that may come together with it
(RFC 9112, section 2.2 wants one empty line to be ignored)."""


def too_many_empty_lines() -> Refusal:
    """Return the refusal of more than EMPTY_LINES."""
    return Refusal(400, "Invalid HTTP request received: there are too many empty lines.")


class RequestSink(Protocol):
    """What a parser pushes into, in order: a head, any number of body pieces, an end; the next head."""

    def on_head(self, method: bytes, target: bytes, version: str, headers: Fields) -> RequestHead:
        """Take a complete head; field names are lower case, values have no white space around them.

        If the length of the returned head is ENDLESS, every later byte is passed to `on_body` unparsed.

        Raises:
            Refusal: nothing more is to be parsed on this connection.
        """

    def replace_parser(self, parser: Parser) -> None:
        """Let `parser` read on, in place of the one that calls this."""

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body, chunk framing removed."""

    def on_end(self) -> None:
        """Take the end of the request. Trailer fields were dropped."""


class Parser(Protocol):
    """Turns bytes into heads, bodies and ends. It only translates: the connection decides."""

    in_head: bool
    """A head has begun to arrive and is not complete."""

    takes: int
    """The most bytes that may be fed at once: PIECE or NO_LIMIT."""

    def feed(self, data: bytes | memoryview) -> int:
        """Parse the next bytes of the connection, and push what they hold into the sink.

        Returns how many bytes were parsed: all, if they are no more than PIECE. The rest is to be fed to the
        connection's parser, which is another one then.

        Raises:
            Refusal: the bytes are not HTTP, or the sink refused the request. It must not be fed again.
        """

    def close(self) -> None:
        """Drop the references back to the parser; nothing is fed any more."""


class Resumable(Parser, Protocol):
    """A parser that another one stands in for while a body is read."""

    def body_ended(self) -> None:
        """The body has ended: the next byte is the first after it."""


class PassthroughParser:
    """Takes the parser's place once an upgrade has begun: passes on all bytes, which are not HTTP."""

    __slots__ = ("_parser", "_sink", "in_head", "takes")

    def __init__(self, parser: Parser, sink: RequestSink) -> None:
        self._parser = parser
        self._sink = sink
        self.in_head = False
        self.takes = PIECE

    def feed(self, data: bytes | memoryview) -> int:
        self._sink.on_body(bytes(data))
        return len(data)

    def close(self) -> None:
        self._parser.close()
