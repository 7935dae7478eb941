"""What the parsers push does not depend on where the reads cut the stream, whichever parser reads a body."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ostler.worker.http.announced_body import AnnouncedBody
from ostler.worker.http.chunk_lines import ChunkLines
from ostler.worker.http.chunked_body import ChunkedBody
from ostler.worker.http.h11_parser import H11Parser
from ostler.worker.http.parser import NO_LIMIT, PIECE, Parser, RequestSink
from ostler.worker.http.request import Fields, Refusal, RequestHead, read_head
from tests.conftest import PURE

MakeParser = Callable[[RequestSink, int], Parser]


def httptools(sink: RequestSink, limit: int) -> Parser:
    from ostler.worker.http.httptools_parser import HttptoolsParser

    return HttptoolsParser(sink, limit)


PARSERS = [pytest.param(H11Parser, id="h11")]
if not PURE:
    PARSERS.append(pytest.param(httptools, id="httptools"))


class Sink:
    """Notes what is pushed, and feeds as a connection does."""

    def __init__(self, make_parser: MakeParser) -> None:
        self.requests: list[list[Any]] = []
        self.pieces: list[bytes] = []
        self.refused = ""
        self.parser = make_parser(self, 64 * 1024)

    def on_head(self, method: bytes, target: bytes, version: str, headers: Fields) -> RequestHead:
        head = read_head(method, target, version, headers, set())
        self.requests.append([head.method, target, b"", False])
        return head

    def replace_parser(self, parser: Parser) -> None:
        self.parser = parser

    def on_body(self, data: bytes) -> None:
        assert type(data) is bytes
        self.pieces.append(data)
        self.requests[-1][2] += data

    def on_end(self) -> None:
        assert not self.requests[-1][3]
        self.requests[-1][3] = True

    def feed(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest and not self.refused:
                taken = self.parser.feed(bytes(rest[: self.parser.takes]))
                assert taken == len(rest) or taken > PIECE or len(rest) > PIECE
                rest = rest[taken:]
        except Refusal as refusal:
            self.refused = f"{refusal.status}"


def chunks(body: bytes, size: int, end: bytes = b"0\r\n\r\n", extension: bytes = b";n=v") -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + end


def head(framing: bytes, method: bytes = b"POST") -> bytes:
    return b"%b /there HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % (method, framing)


CHUNKED = b"Transfer-Encoding: chunked"
BODY = random.Random(1).randbytes(70_000) + b"\r\n\r\n0\r\n\r\n" * 7 + b"x" * 1000
TAIL = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n" * 3
STREAMS = [
    pytest.param(head(b"Content-Length: %d" % len(BODY)) + BODY + TAIL, id="announced"),
    pytest.param(head(CHUNKED) + chunks(BODY, 16 * 1024) + TAIL, id="long chunks"),
    pytest.param(head(CHUNKED) + chunks(BODY, 300) + TAIL, id="short chunks"),
    pytest.param(head(CHUNKED) + chunks(BODY, 70_000, b"0;end\r\nX: y\r\nZ: \r\n\r\n") + TAIL, id="trailers"),
    pytest.param(b"\r\n" + head(CHUNKED) + chunks(BODY[:200], 1) + TAIL, id="chunks of one byte"),
    pytest.param(
        head(CHUNKED) + chunks(BODY, 7000, extension=b";n=" + b"v" * 2000) + TAIL, id="long extensions"
    ),
    pytest.param(TAIL + head(CHUNKED) + chunks(BODY, 9000) + TAIL, id="behind pipelined requests"),
    pytest.param(
        (head(b"Content-Length: %d" % len(BODY)) + BODY + head(CHUNKED) + chunks(BODY, 20_000)) * 2 + TAIL,
        id="one after the other",
    ),
    pytest.param(
        head(CHUNKED) + chunks(BODY, 5000) + head(b"X: y", b"BREW") + TAIL, id="then an unknown method"
    ),
    pytest.param(
        head(b"Content-Length: %d" % len(BODY), b"BREW") + BODY + head(CHUNKED) + chunks(BODY, 5000) + TAIL,
        id="after an unknown method",
    ),
    pytest.param(
        (TAIL + head(b"Content-Length: %d" % len(BODY), b"PLAY") + BODY + head(CHUNKED) + chunks(BODY, 5000))
        * 2,
        id="after a method of RTSP",
    ),
]


def pushed(make_parser: MakeParser, stream: bytes, cuts: Sequence[int]) -> list[list[Any]]:
    sink = Sink(make_parser)
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        sink.feed(stream[start:end])
    assert not sink.refused
    sink.parser.close()
    return sink.requests


@pytest.mark.parametrize("make_parser", PARSERS)
@pytest.mark.parametrize("stream", STREAMS)
def test_bodies_are_the_same_wherever_reads_cut_them(make_parser: MakeParser, stream: bytes) -> None:
    sizes = random.Random(2)
    whole = pushed(make_parser, stream, [])
    assert [request[3] for request in whole] == [True] * len(whole)
    assert {request[2] for request in whole} <= {b"", BODY, BODY[:200]}
    assert whole == pushed(H11Parser, stream, [])
    longest = len(stream)
    for size in (1460, 16 * 1024, 64 * 1024, 256_000):
        assert pushed(make_parser, stream, range(size, longest, size)) == whole
    for _ in range(60):
        some = sizes.randrange(1, 12)
        assert pushed(make_parser, stream, sorted(sizes.sample(range(1, longest), some))) == whole
    # Around the end of the head, and the ends of chunks and bodies.
    near = [at + by for at in places(stream) for by in range(-20, 6) if 0 < at + by < longest]
    for cut in near:
        assert pushed(make_parser, stream, [cut]) == whole
        assert pushed(make_parser, stream, sorted({cut, min(cut + 2, longest - 1)})) == whole


def places(stream: bytes) -> list[int]:
    """Return where heads, chunks and bodies may end; not too many."""
    found = []
    at = stream.find(b"\r\n\r\n")
    while at >= 0:
        found.append(at)
        at = stream.find(b"\r\n\r\n", at + 1)
    return [*found[:4], *found[-6:]]


@pytest.mark.parametrize("make_parser", PARSERS)
@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"g\r\n", "400"),
        (b"4000 \r\n", "400"),
        (b"4000\n", "400"),
        (b"1\r\nab", "400"),
        (b"0\r\nContent Length: 5\r\n\r\n", "400"),
        (b"0\r\n" + b"X: y\r\n" * 40_000, "431"),
        (b"1;" + b"x" * 200_000, "431"),
    ],
)
def test_a_malformed_chunk_is_refused_in_whichever_read_it_comes(
    make_parser: MakeParser, rest: bytes, status: str
) -> None:
    stream = head(CHUNKED) + chunks(BODY, 16 * 1024, b"") + rest
    for first in (40, 61, 1000, 20_000, len(stream) - len(rest)):
        sink = Sink(make_parser)
        sink.feed(stream[:first])
        for at in range(first, len(stream), 60_000):
            sink.feed(stream[at : at + 60_000])
        assert sink.refused == status
        assert sink.requests[0][3] is False


@pytest.mark.parametrize("make_parser", PARSERS)
def test_a_long_announced_body_is_passed_on_without_a_copy(make_parser: MakeParser) -> None:
    sink = Sink(make_parser)
    sink.feed(head(b"Content-Length: 1000000"))
    read = bytes(250_000)
    for _ in range(3):
        assert sink.parser.takes == NO_LIMIT
        assert isinstance(sink.parser, AnnouncedBody)
        sink.parser.feed(read)
    assert [piece is read for piece in sink.pieces] == [True] * 3
    assert sink.parser.feed(read + TAIL) == 250_000 + len(TAIL)
    assert [request[0] for request in sink.requests] == ["POST", "GET", "GET", "GET"]


@pytest.mark.parametrize("framing", ["announced", "chunked"])
@pytest.mark.parametrize("make_parser", PARSERS)
def test_empty_lines_are_counted_for_each_request(make_parser: MakeParser, framing: str) -> None:
    """RFC 9112, section 2.2: old clients send one after each body."""
    sink = Sink(make_parser)
    body = bytes(50_000)
    for count in range(1, 4):
        for _ in range(300):
            sink.feed(b"\r\n")
        sink.feed(head(b"Content-Length: 50000" if framing == "announced" else CHUNKED))
        sink.feed(body if framing == "announced" else chunks(body, 10_000))
        assert (sink.refused, len(sink.requests)) == ("", count)


@pytest.mark.skipif(PURE, reason="it is about httptools")
def test_all_chunks_of_one_read_are_one_piece() -> None:
    sink = Sink(httptools)
    sink.feed(head(CHUNKED))
    assert isinstance(sink.parser, ChunkedBody)
    sink.feed(chunks(bytes(160_000), 16_000, b""))
    assert [len(piece) for piece in sink.pieces] == [160_000]


@pytest.mark.parametrize("extension", [b"", b";n=v", b';n="v"'])
def test_short_chunks_do_not_cost_a_call_each(extension: bytes) -> None:
    """A read of 256 KiB may hold tens of thousands of chunks, and the event loop waits until it is parsed."""
    data = (b"1" + extension + b"\r\nx\r\n") * 2000
    lines = ChunkLines(64 * 1024)
    pieces: list[bytes | memoryview] = []
    calls = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        taken = lines.read(data, pieces)
    finally:
        sys.setprofile(None)
    assert (taken, b"".join(pieces)) == (len(data), b"x" * 2000)
    assert len(calls) < 50


@pytest.mark.parametrize("framing", ["announced", "chunked"])
@pytest.mark.parametrize("make_parser", PARSERS)
def test_a_body_reader_leaves_many_pipelined_requests_to_the_connection(
    make_parser: MakeParser, framing: str
) -> None:
    """One feed yields no more heads than PIECE bytes hold: the rest is not taken."""
    sink = Sink(make_parser)
    sink.feed(head(b"Content-Length: 100000" if framing == "announced" else CHUNKED))
    body = bytes(100_000)
    body = body if framing == "announced" else chunks(body, 10_000)
    data = body + TAIL * 2000
    takes = sink.parser.takes
    taken = sink.parser.feed(data[:takes])
    assert len(sink.requests) <= 1 + PIECE // 30
    assert taken <= len(body) + PIECE
