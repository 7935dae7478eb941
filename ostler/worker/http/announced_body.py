"""Passes on a long body whose length is announced, without a parser: that would copy each byte of it."""

from __future__ import annotations

from ostler.worker.http.parser import NO_LIMIT, PIECE, RequestSink, Resumable


class AnnouncedBody:
    """Takes the parser's place until the body has ended (RFC 9112, section 6.3, rule 6)."""

    __slots__ = ("_left", "_parser", "_sink", "in_head", "takes")

    def __init__(self, parser: Resumable, sink: RequestSink, left: int) -> None:
        """Pass `left` bytes to `sink`, and then let `parser` read on."""
        self._parser = parser
        self._sink = sink
        self._left = left
        self.in_head = False
        self.takes = NO_LIMIT

    def feed(self, data: bytes | memoryview) -> int:
        left = self._left
        size = len(data)
        if size < left:
            self._left = left - size
            self._sink.on_body(bytes(data))  # the same object, unless it is a view
            return size
        sink, parser = self._sink, self._parser
        parser.body_ended()
        sink.replace_parser(parser)
        sink.on_body(bytes(data[:left]))
        sink.on_end()
        if 0 < size - left <= PIECE:
            return left + parser.feed(data[left:])
        return left

    def close(self) -> None:
        self._parser.close()
        del self._parser  # it refers to this one
