"""Requests that are malformed, unusual or dangerous: refused, and with what, or accepted."""

from __future__ import annotations

from tests.replay.behaviours import get, http
from tests.replay.cases import notes_scope, reads_body

SEEN = ("status", "then", "app")
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"


def raw(name: str, data: bytes, key: str = "path") -> None:
    """Add a behaviour: these bytes as a request."""
    http(f"requests/{name}", notes_scope(key), data, see=SEEN)


def with_body(name: str, data: bytes) -> None:
    """Add a behaviour: these bytes as a request whose body is read."""
    http(f"requests/{name}", reads_body, data, see=SEEN)


http(
    "requests/nonsense: what the client sees",
    notes_scope("path"),
    b"nonsense\r\n\r\n",
    see=("responses", "then"),
)
http(
    "requests/nonsense: what the log says", notes_scope("path"), b"nonsense\r\n\r\n", see=("errors", "access")
)
raw("without a version", b"GET /\r\n\r\n")
raw("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: h\r\n\r\n")
raw("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: h\r\n\r\n")
raw("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: h\r\n\r\n")
raw("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
raw("lines that end with a bare LF", b"GET / HTTP/1.1\nHost: h\n\n")
raw("an empty line before the request", b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
raw("without Host", b"GET / HTTP/1.1\r\n\r\n")
raw("without Host in HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n")
raw("with an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n")
raw("with two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
raw("with a Host that has a blank", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
raw("with a port in Host", b"GET / HTTP/1.1\r\nHost: h:8000\r\n\r\n", "headers")
raw("a blank before the colon", b"GET / HTTP/1.1\r\nHost : h\r\n\r\n")
raw("a header without a colon", b"GET / HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n")
raw("a folded header", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n")
raw("a NUL in a header", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n")
raw("a bare CR in a header", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n")
raw("a blank in the target", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n")
raw("a target without a slash", b"GET a HTTP/1.1\r\nHost: h\r\n\r\n")
raw("an empty header name", b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n")
raw("a target of 8 kB", b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", "type")
raw("a header of 16 kB", b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 16000 + b"\r\n\r\n", "type")
raw("200 headers", b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * 200 + b"\r\n", "type")
raw("CONNECT", b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n")
raw("TRACE", b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n")
raw("an upgrade to something unknown", get("/", "Connection: Upgrade", "Upgrade: foo"))
raw(
    "an upgrade to h2c",
    get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
)
with_body("a length that is no number", POST + b"Content-Length: x\r\n\r\n")
with_body("a length below zero", POST + b"Content-Length: -1\r\n\r\n")
with_body("a length with a plus", POST + b"Content-Length: +3\r\n\r\nabc")
with_body("two lengths that differ", POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")
with_body("two lengths that are equal", POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc")
with_body(
    "a length and chunked",
    POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
)
with_body("a transfer coding that nobody knows", POST + b"Transfer-Encoding: foo\r\n\r\n")
with_body("chunked, not last", POST + b"Transfer-Encoding: chunked, foo\r\n\r\n0\r\n\r\n")
with_body("Chunked in other case", POST + b"Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
with_body(
    "a chunk size that is no number", POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n"
)
with_body("a chunk longer than it says", POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n")
with_body("neither length nor chunked", POST + b"\r\n")
http(
    "requests/100 kB of headers",
    notes_scope("type"),
    b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: aaaaaaaa\r\n" * 9000 + b"\r\n",
    see=("status",),
)
raw("a GET after a POST whose body was read", POST + b"Content-Length: 3\r\n\r\nabc")
http(
    "requests/a second request that is nonsense",
    notes_scope("path"),
    get() + b"nonsense\r\n\r\n",
    answers=2,
    see=("status", "then"),
)
