"""The one face of both parsers, and of what they push into."""

from __future__ import annotations

from typing import Protocol

from ostler.worker.http.request import Fields, RequestHead

PIECE = 16 * 1024
"""Most bytes fed to a parser at once: bounds the heads that one feed of pipelined requests can yield."""


class RequestSink(Protocol):
    """Where a parser pushes what it finds, in order: a head, any number of bodies, an end; the next head."""

    def on_head(self, method: bytes, target: bytes, version: str, headers: Fields) -> RequestHead:
        """Take a complete head; field names are lower case, values without white space around them.

        Where the length of what is returned is ENDLESS, every later byte is passed to `on_body` as it is.

        Raises:
            Refusal: nothing more is to be parsed on this connection.
        """

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body, chunk framing removed."""

    def on_end(self) -> None:
        """The request is complete; trailer fields were dropped."""


class Parser(Protocol):
    """Turns bytes into heads, bodies and ends: adapters translate, the connection decides."""

    in_head: bool
    """A head has begun to arrive and is not complete."""

    def feed(self, data: bytes | memoryview) -> None:
        """Parse the next bytes of the connection, PIECE at most, pushing into the sink meanwhile.

        Raises:
            Refusal: the bytes are not HTTP, or the sink refused the request. The parser is spent.
        """

    def close(self) -> None:
        """Let go of what refers back to the parser; nothing is fed any more."""


class PassthroughParser:
    """Stands in for a connection's parser once an upgrade is under way: what comes is no longer HTTP."""

    __slots__ = ("_parser", "_sink", "in_head")

    def __init__(self, parser: Parser, sink: RequestSink) -> None:
        self._parser = parser
        self._sink = sink
        self.in_head = False

    def feed(self, data: bytes | memoryview) -> None:
        self._sink.on_body(bytes(data))

    def close(self) -> None:
        self._parser.close()
