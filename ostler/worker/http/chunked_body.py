"""Reads a chunked body (RFC 9112, section 7.1) that comes in several reads; each read yields one piece."""

from __future__ import annotations

from ostler.worker.http.chunk_lines import ChunkLines
from ostler.worker.http.parser import NO_LIMIT, PIECE, RequestSink, Resumable


class ChunkedBody:
    """Takes the parser's place until the body has ended."""

    __slots__ = ("_lines", "_parser", "_sink", "in_head", "takes")

    def __init__(self, parser: Resumable, sink: RequestSink, lines: ChunkLines) -> None:
        """Pass what follows to `sink`, and then let `parser` read on; `lines` has read the body so far."""
        self._parser = parser
        self._sink = sink
        self._lines = lines
        self.in_head = False
        self.takes = NO_LIMIT

    def feed(self, data: bytes | memoryview) -> int:
        sink, lines = self._sink, self._lines
        pieces: list[bytes | memoryview] = []
        taken = lines.read(bytes(data), pieces)
        if pieces:
            sink.on_body(b"".join(pieces))
        if not lines.ended:
            return taken
        parser = self._parser
        parser.body_ended()
        sink.replace_parser(parser)
        sink.on_end()
        if 0 < len(data) - taken <= PIECE:
            taken += parser.feed(data[taken:])
        return taken

    def close(self) -> None:
        self._parser.close()
        del self._parser  # it refers to this one
