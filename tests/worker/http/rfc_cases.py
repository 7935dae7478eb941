"""What HTTP/1.1 demands of a server: a table of requests and of what must come back.

Each row says which section decides, what is sent, and which answers are right. The expectations are those of
RFC 9110 and RFC 9112, not what ostler happens to do. Where the RFCs leave a choice, the row lists every
answer that they permit; `test_rfc_cases.py` then checks as well that both parsers make the same choice.

To add a case, append a `Case` to the group that fits. `raw` are the bytes; `request` writes the usual ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Statuses = int | tuple[int, ...]
"""One status, or those that the RFCs leave the choice of."""


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    section: str
    """Of which RFC and section the expectation is, such as "9112 3.2"."""
    name: str
    raw: bytes
    """All that the client sends."""
    answers: tuple[Statuses, ...]
    """The status of each response that must come, in order. The app gives 200, 204 and 304; it must have been
    called once for each of these, and for nothing else."""
    closes: bool | None = None
    """Whether the server must close the connection after the last answer; None: if that is a refusal."""
    got: tuple[str, ...] | None = None
    """What the app must have got: method, target and body of each request."""
    may_differ: bool = False
    """The parsers may make different choices: this cannot be helped."""

    @property
    def id(self) -> str:
        return f"{self.section}: {self.name}"


def request(
    line: bytes = b"GET / HTTP/1.1", *fields: bytes, host: bytes | None = b"Host: a", body: bytes = b""
) -> bytes:
    """Return a request with a Host field, unless `host` is None."""
    lines = [line, *(() if host is None else (host,)), *fields]
    return b"\r\n".join([*lines, b"", b""]) + body


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """Return a POST with these fields, and whatever is to follow its head."""
    return request(b"POST /post HTTP/1.1", *fields, body=body)


def chunked(body: bytes) -> bytes:
    """Return a POST with a chunked body."""
    return post(b"Transfer-Encoding: chunked", body=body)


NEXT = request(b"GET /next HTTP/1.1")
"""A request behind the one that a case is about: it shows where the server finds the end of that."""


def methods() -> Iterator[Case]:
    for method in (  # noqa: SIM905 - thirty quoted words are not easier to read
        "GET POST PUT DELETE OPTIONS PATCH TRACE PROPFIND MKCALENDAR M-SEARCH REPORT SEARCH PURGE LINK QUERY "
        "SOURCE FOO M-SEARCH2 BREW get Post head GETX GE X FLUSH DESCRIBE PLAY SETUP VERSION-CONTROL "
        "UPDATEREDIRECTREF !#$%&'*+-.^_`|~09"
    ).split():
        yield Case(
            "9110 9.1",
            f"any token is a method: {method}",
            request(f"{method} /m HTTP/1.1".encode()) + NEXT,
            (200, 200),
            got=(f"{method} /m ", "GET /next "),
        )
    yield Case("9110 9.3.6", "a tunnel", request(b"CONNECT a:80 HTTP/1.1"), ((400, 405, 501),))
    yield Case("9112 3.2.3", "CONNECT with a path", request(b"CONNECT / HTTP/1.1"), ((400, 405, 501),))
    for character in b'()<>@,;:\\"/[]?={}\t\x00\x7f\x80':
        line = b"G%cT / HTTP/1.1" % character
        yield Case("9110 9.1", f"no token is no method: {line!r}", request(line), (400,))
    yield Case("9112 3", "no method", request(b" / HTTP/1.1"), (400,))
    yield Case("9112 3", "a method of 64 characters", request(b"F" * 64 + b" / HTTP/1.1"), ((200, 501),))
    yield Case("9112 3", "a method of 2,000", request(b"F" * 2000 + b" / HTTP/1.1"), (501,))
    yield Case("9112 3", "a method without end", b"F" * 100_000, ((400, 414, 431, 501),))


def request_lines() -> Iterator[Case]:
    rows: list[tuple[str, str, bytes, Statuses]] = [
        ("9112 3", "a method alone", b"GET\r\n\r\n", 400),
        ("9112 3", "a method and a space", b"GET \r\n\r\n", 400),
        ("9112 3", "no version", b"GET /\r\n\r\n", (400, 505)),
        ("9112 3", "two spaces between the words", request(b"GET  /  HTTP/1.1"), (200, 400)),
        ("9112 3", "a tab between the words", request(b"GET\t/ HTTP/1.1"), (200, 400)),
        ("9112 3", "a space at the end", request(b"GET / HTTP/1.1 "), (200, 400)),
        ("9112 3", "a space at the beginning", request(b" GET / HTTP/1.1"), (200, 400)),
        ("9112 3.2", "a space in the target", request(b"GET /a b HTTP/1.1"), 400),
        ("9112 3", "four words", request(b"GET / HTTP/1.1 HTTP/1.1"), 400),
        ("9112 2.2", "a line that ends with LF", b"GET / HTTP/1.1\nHost: a\r\n\r\n", (200, 400)),
        ("9112 2.2", "lines that end with LF", b"GET / HTTP/1.1\nHost: a\n\n", (200, 400)),
        ("9112 2.2", "a line that ends with CR", b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
        ("9112 2.2", "CR CR LF", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", (200, 400)),
        ("9112 2.2", "a bare CR in the target", request(b"GET /a\rb HTTP/1.1"), 400),
        ("9112 2.2", "an empty line first", b"\r\n" + request(), 200),
        ("9112 2.2", "three empty lines first", b"\r\n" * 3 + request(), (200, 400)),
        ("9112 2.2", "an empty line of LF first", b"\n" + request(), (200, 400)),
        ("9112 2.2", "2,000 empty lines first", b"\r\n" * 2000 + request(), (200, 400)),
        ("9112 2.2", "empty lines without end", b"\r\n" * 50_000, 400),
        ("9112 2.2", "empty lines of LF without end", b"\n" * 100_000, 400),
        ("9112 2.2", "a space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("9112 2.2", "a line of spaces after it", b"GET / HTTP/1.1\r\n  \r\nHost: a\r\n\r\n", (200, 400)),
        ("9112 2.2", "noise", bytes(range(128, 256)) + b"\r\n\r\n", 400),
        ("9112 2.2", "a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ("9112 2.2", "a response", b"HTTP/1.1 200 OK\r\n\r\n", 400),
        ("9113 3.4", "HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 505)),
    ]
    for section, name, raw, status in rows:
        yield Case(section, name, raw, (status,))


def versions() -> Iterator[Case]:
    yield Case("9112 2.3", "HTTP/1.0", request(b"GET / HTTP/1.0"), (200,), closes=True)
    yield Case("9110 2.5", "a higher minor version", request(b"GET / HTTP/1.2") + NEXT, (200, 200))
    yield Case("9110 2.5", "the highest minor version", request(b"GET / HTTP/1.9") + NEXT, (200, 200))
    for version in ("HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/9.9"):
        status = (400, 505)
        yield Case("9110 15.6.6", version, request(f"GET / {version}".encode()), (status,))
    for version in (
        "http/1.1",
        "Http/1.1",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/11.1",
        "HTTP/1.10",
        "HTTP/1,1",
        "HTTP-1.1",
        "HTTPS/1.1",
        "HTP/1.1",
        "HTTP/-1.1",
        "HTTP/1.1x",
        "HTTP//1.1",
        "HTTP/1.1/",
        "ICE/1.0",
        "HTTP",
        "1.1",
        "HTTP/a.b",
        "XHTTP/1.1",
    ):
        yield Case("9112 2.3", f"no version is {version}", request(f"GET / {version}".encode()), (400,))
    # llhttp takes this for HTTP/1.0, and does not report it. The application gets a harmless request.
    rtsp = request(b"GET / RTSP/1.0")
    yield Case("9112 2.3", "no version is RTSP/1.0", rtsp, ((200, 400),), closes=True, may_differ=True)


def targets() -> Iterator[Case]:
    for target in (
        "/",
        "/a?b",
        "/a//b",
        "//x",
        "/a%20b",
        "/a;p=1",
        "/a:b@c",
        "/~!$&'()*+,;=-._",
        "/?a=/b?c",
        "/.",
        "/a/../b",
        "/a%2Fb",
    ):
        raw = request(f"GET {target} HTTP/1.1".encode())
        yield Case("9112 3.2.1", f"origin form: {target}", raw, (200,), got=(f"GET {target} ",))
    for wrong in (b"/a#b", b"/%", b"/%zz", b'/"', b"/<>", b"/{}", b"/|", b"/\\", b"/^`"):
        raw = request(b"GET %b HTTP/1.1" % wrong)
        yield Case("9112 3.2", f"characters that no URI has: {wrong!r}", raw, ((200, 400),))
    for wrong in (
        b"/\x00",
        b"/\x7f",
        b"/\x80",
        b"/\xc3\xa9",
        b"/\x01",
        b"/\t",
        b"?a",
        b"a",
        b"a/b",
        b"**",
        b"*/",
    ):
        yield Case("9112 3.2", f"no target: {wrong!r}", request(b"GET %b HTTP/1.1" % wrong), (400,))
    yield Case("9112 3.2.3", "authority form for GET", request(b"GET a:80 HTTP/1.1"), (400,))
    yield Case("9112 3.2.4", "asterisk form", request(b"OPTIONS * HTTP/1.1"), (200,), got=("OPTIONS * ",))
    yield Case("9112 3.2.4", "asterisk form for GET", request(b"GET * HTTP/1.1"), (400,))
    absolute = {
        "http://b/": "/",
        "http://b/x?y": "/x?y",
        "http://b": "/",
        "http://b:80/": "/",
        "HTTP://B/": "/",
        "https://b/": "/",
        "http://[::1]/x": "/x",
        "http://[::1]:8080/x": "/x",
        "http://b?y": "/?y",
        "http://b:/": "/",
        "http://b%2dc/": "/",
        "http://b_c./": "/",
    }
    for uri, target in absolute.items():
        raw = request(f"GET {uri} HTTP/1.1".encode())
        yield Case("9112 3.2.2", f"absolute form: {uri}", raw, (200,), got=(f"GET {target} ",))
    for uri in (
        "http:///x",
        "http://:80/",
        "http://u@b/",
        "http://u:p@b/",
        "http://b:x/",
        "http://b,c/",
        "http://[::1/",
        "http://[x]/",
        "http://::1/",
        "http:/b",
        "http:b",
        "://b/",
        "http://b\\c/",
        "http://b|c/",
        "http://b%/",
    ):
        yield Case("9110 4.2.1", f"no URI: {uri}", request(f"GET {uri} HTTP/1.1".encode()), (400,))
    yield Case("9112 3.2.2", "absolute form in 1.0", request(b"GET http://b/ HTTP/1.0"), (200,), closes=True)
    yield Case(
        "9112 3.2.2", "absolute form without Host", request(b"GET http://b/ HTTP/1.1", host=None), (400,)
    )
    yield Case("9112 3", "a target of 8,000 octets", request(b"GET /" + b"x" * 8000 + b" HTTP/1.1"), (200,))
    yield Case("9112 3", "a target without end", b"GET /" + b"x" * 100_000, ((400, 414),))


def fields() -> Iterator[Case]:
    fine = {
        "no white space": b"X:y",
        "an empty value": b"X:",
        "an empty value after a space": b"X: ",
        "white space around the value": b"X: \t y \t ",
        "a tab in the value": b"X: a\tb",
        "a colon": b"X: a:b",
        "obs-text": b"X: \xe9",
        "every character of a token": b"!#$%&'*+-.^_`|~09Az: y",
        "an X": b"x: y",
        "a quoted string": b'X: "a, b"',
        "two of a name": b"X: y\r\nX: z",
        "a long value": b"X: " + b"y" * 8000,
        "a long name": b"x" * 1000 + b": y",
        "a hundred": b"X: y\r\n" * 99 + b"X: y",
    }
    for name, line in fine.items():
        yield Case("9112 5", f"a field: {name}", request(b"GET / HTTP/1.1", line) + NEXT, (200, 200))
    yield Case("9112 5.1", "a space before the colon", request(b"GET / HTTP/1.1", b"X : y"), (400,))
    yield Case("9112 5.1", "a tab before the colon", request(b"GET / HTTP/1.1", b"X\t: y"), (400,))
    yield Case("9112 5.1", "a field without a colon", request(b"GET / HTTP/1.1", b"X"), (400,))
    yield Case("9112 5.1", "a field without a name", request(b"GET / HTTP/1.1", b": y"), (400,))
    yield Case("9112 5.1", "a colon alone", request(b"GET / HTTP/1.1", b":"), (400,))
    for character in b'()<>@,;\\"/[]?={}\x00\x01\x7f\x80\xe9':
        line = b"X%cY: z" % character
        yield Case("9110 5.1", f"a name that is no token: {line!r}", request(b"GET / HTTP/1.1", line), (400,))
    yield Case("9112 5.2", "a folded line, space", request(b"GET / HTTP/1.1", b"X: a\r\n b"), ((200, 400),))
    yield Case("9112 5.2", "a folded line, tab", request(b"GET / HTTP/1.1", b"X: a\r\n\tb"), ((200, 400),))
    yield Case("9112 5.2", "a folded empty line", request(b"GET / HTTP/1.1", b"X: a\r\n "), ((200, 400),))
    yield Case("9110 5.5", "NUL in a value", request(b"GET / HTTP/1.1", b"X: a\x00b"), ((200, 400),))
    yield Case("9110 5.5", "a bare CR in a value", request(b"GET / HTTP/1.1", b"X: a\rb"), ((200, 400),))
    yield Case(
        "9110 5.5", "a bare CR that ends a value", request(b"GET / HTTP/1.1", b"X: a\r"), ((200, 400),)
    )
    yield Case("9110 5.5", "a bare LF in a value", request(b"GET / HTTP/1.1", b"X: a\nb"), (400,))
    yield Case("9110 5.5", "a control character", request(b"GET / HTTP/1.1", b"X: a\x01b"), ((200, 400),))
    yield Case("9110 5.5", "DEL", request(b"GET / HTTP/1.1", b"X: a\x7fb"), ((200, 400),))
    yield Case("9110 5.4", "5,000 fields", request(b"GET / HTTP/1.1", *[b"X: y"] * 5000), ((400, 431),))
    yield Case("9110 5.4", "a value without end", b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000, ((400, 431),))
    yield Case("9110 5.4", "a name without end", b"GET / HTTP/1.1\r\n" + b"y" * 100_000, ((400, 431),))
    yield Case("9112 2.2", "a bare LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", ((200, 400),))
    yield Case("9112 2.2", "CR and no LF end the head", b"GET / HTTP/1.1\r\nHost: a\r\n\rX", (400,))


def hosts() -> Iterator[Case]:
    for value in (
        "a",
        "a.b",
        "A.B",
        "a.b.",
        "a_b",
        "a-b",
        "1",
        "a:80",
        "a:",
        "a:0",
        "a:65535",
        "127.0.0.1",
        "1.2.3.4:80",
        "[::1]",
        "[::1]:80",
        "[2001:db8::1]",
        "[::ffff:1.2.3.4]",
        "[v1.x:y]",
        "xn--e1afmkfd.example",
        "a%2Db",
        "a!$&'()*+;=~b",
        "  a  ",
        "",
        "x" * 250,
    ):
        raw = request(host=f"Host: {value}".encode()) + NEXT
        yield Case("9112 3.2", f"Host: {value!r}", raw, (200, 200))
    for wrong in (
        b"a b",
        b"a/b",
        b"a,b",
        b"a, b",
        b"a?b",
        b"a#b",
        b"a@b",
        b"u:p@a",
        b"a:80:80",
        b"a:b",
        b"a:-1",
        b"a:+1",
        b"a:8 0",
        b"[::1",
        b"::1",
        b"[::1]x",
        b"[]",
        b"[:::]",
        b"[1.2.3.4]",
        b"[::g]",
        b"[::1]:x",
        b"a\\b",
        b"a\tb",
        b"a%",
        b"a%zz",
        b"http://a",
        b'"a"',
        b"<a>",
        b"a|b",
        b"a^b",
        b"a`b",
        b"{a}",
        b"\xc3\xa9",
        b"[a",
        b"a]",
        b"/",
        b",",
        b"@",
        b"a:80/",
        b"a:80,b",
        b"[::1],a",
    ):
        yield Case("9112 3.2", f"not a host: {wrong!r}", request(host=b"Host: " + wrong), (400,))
    yield Case("9112 3.2", "a port alone", request(host=b"Host: :80"), ((200, 400),))
    yield Case("9112 3.2", "no Host in 1.1", request(host=None), (400,))
    yield Case("9112 3.2", "no Host in 1.0", request(b"GET / HTTP/1.0", host=None), (200,), closes=True)
    yield Case("9112 3.2", "two", request(b"GET / HTTP/1.1", b"Host: b"), (400,))
    yield Case("9112 3.2", "two that are the same", request(b"GET / HTTP/1.1", b"host: a"), (400,))
    yield Case("9112 3.2", "two in 1.0", request(b"GET / HTTP/1.0", b"Host: b"), (400,))
    yield Case("9112 3.2", "not a host in 1.0", request(b"GET / HTTP/1.0", host=b"Host: a b"), (400,))
    raw = request(b"GET http://b/ HTTP/1.1", host=b"Host: a b")
    yield Case("9112 3.2", "not a host, and an absolute target", raw, (400,))


def lengths() -> Iterator[Case]:
    for value in (b"5", b"05", b"0000000005", b" 5 ", b"\t5"):
        raw = post(b"Content-Length:" + value, body=b"abcde") + NEXT
        got = ("POST /post abcde", "GET /next ")
        yield Case("9110 8.6", f"Content-Length: {value!r}", raw, (200, 200), got=got)
    for value in (
        b"+5",
        b"-5",
        b"-0",
        b"5x",
        b"x5",
        b"0x5",
        b"5.0",
        b"5e0",
        b"5 5",
        b"5;",
        b"5,",
        b",5",
        b"",
        b"1_0",
        b'"5"',
        b"\xd9\xa5",
        b"5\x0b",
        b"5, 6",
        b"five",
        b"99999999999999999999",
        b"18446744073709551621",
        b"1" + b"0" * 100,
    ):
        raw = post(b"Content-Length: " + value, body=b"abcde") + NEXT
        status = (400, 413) if len(value) > 15 else 400
        yield Case("9112 6.3", f"no Content-Length: {value[:30]!r}", raw, (status,))
    once = (200, 400)
    two = post(b"Content-Length: 5, 5", body=b"abcde")
    yield Case("9112 6.3", "a list of the same", two, (once,))
    two = post(b"Content-Length: 5", b"Content-Length: 5", body=b"abcde")
    yield Case("9112 6.3", "two of the same", two, (once,))
    two = post(b"Content-Length: 5", b"Content-Length: 6", body=b"abcde")
    yield Case("9112 6.3", "two that differ", two, (400,))
    two = post(b"Content-Length: 0", b"Content-Length: 5", body=b"abcde")
    yield Case("9112 6.3", "two, the first zero", two, (400,))
    yield Case("9112 6.3", "none: no body", post() + NEXT, (200, 200), got=("POST /post ", "GET /next "))
    body = request(b"GET / HTTP/1.1", b"Content-Length: 5", body=b"abcde")
    yield Case("9110 9.3.1", "GET with a body", body + NEXT, (200, 200), got=("GET / abcde", "GET /next "))
    head = request(b"HEAD / HTTP/1.1", b"Content-Length: 5", body=b"abcde")
    yield Case("9110 9.3.2", "HEAD with a body", head + NEXT, (200, 200), got=("HEAD / abcde", "GET /next "))
    old = request(b"POST / HTTP/1.0", b"Content-Length: 5", body=b"abcde")
    yield Case("9112 6.3", "in HTTP/1.0", old, (200,), closes=True, got=("POST / abcde",))
    yield Case(
        "9112 5.1", "a space before the colon of it", post(b"Content-Length : 5", body=b"abcde"), (400,)
    )
    yield Case("9110 5.1", "in capitals", post(b"CONTENT-LENGTH: 5", body=b"abcde") + NEXT, (200, 200))
    other = post(b"Content_Length: 5") + NEXT
    yield Case(
        "9110 5.1", "another field with an underscore", other, (200, 200), got=("POST /post ", "GET /next ")
    )


EMPTY = b"0\r\n\r\n"
ABC = b"3\r\nabc\r\n" + EMPTY


def codings() -> Iterator[Case]:
    for line in (b"chunked", b"Chunked", b"CHUNKED", b" chunked ", b"\tchunked"):
        raw = post(b"Transfer-Encoding:" + line, body=ABC) + NEXT
        got = ("POST /post abc", "GET /next ")
        yield Case("9112 7", f"Transfer-Encoding: {line!r}", raw, (200, 200), got=got)
    not_last = (
        b"gzip",
        b"identity",
        b"xchunked",
        b"chunkedx",
        b"chunked, gzip",
        b"chunked, identity",
        b"x",
        b"cow",
        b"chunked x",
        b"chun ked",
    )
    for value in not_last:
        raw = post(b"Transfer-Encoding: " + value, body=ABC) + NEXT
        yield Case("9112 6.3", f"chunked is not the last coding: {value!r}", raw, (400,))
    for value in (b"gzip, chunked", b"deflate,chunked", b"identity, chunked", b"x, chunked"):
        raw = post(b"Transfer-Encoding: " + value, body=ABC) + NEXT
        yield Case("9112 6.1", f"a coding that is not understood: {value!r}", raw, ((400, 501),))
    for value in (b"chunked, chunked", b"chunked,chunked", b"Chunked, chunked"):
        raw = post(b"Transfer-Encoding: " + value, body=ABC) + NEXT
        yield Case("9112 6.1", f"chunked twice: {value!r}", raw, (400,))
    for value in (
        b"",
        b",",
        b"chunked,",
        b", chunked",
        b"chunked;a=b",
        b'"chunked"',
        b"chunked\x0b",
        b"\x0bchunked",
    ):
        raw = post(b"Transfer-Encoding: " + value, body=ABC) + NEXT
        yield Case("9112 6.1", f"a malformed coding: {value!r}", raw, ((400, 501),))
    twice = post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=ABC) + NEXT
    yield Case("9112 6.1", "two fields, chunked twice", twice, (400,))
    two = post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=ABC) + NEXT
    yield Case("9112 6.1", "two fields, another coding first", two, ((400, 501),))
    two = post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", body=ABC) + NEXT
    yield Case("9112 6.3", "two fields, another coding last", two, (400,))
    both = post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=ABC)
    yield Case("9112 6.1", "after Content-Length", both, ((200, 400),), closes=True)
    both = post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=ABC)
    yield Case("9112 6.1", "before Content-Length", both, ((200, 400),), closes=True)
    both = post(b"Content-Length: 3", b"Transfer-Encoding: identity", body=b"abc")
    yield Case("9112 6.3", "Content-Length and another coding", both, (400,))
    old = request(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked", body=ABC)
    yield Case("9112 6.1", "in HTTP/1.0", old, ((200, 400),), closes=True)
    old = request(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked", b"Connection: keep-alive", body=ABC)
    yield Case("9112 6.1", "in HTTP/1.0, to be kept", old + NEXT, ((200, 400),), closes=True)
    yield Case("9112 5.1", "a space before its colon", post(b"Transfer-Encoding : chunked", body=ABC), (400,))
    yield Case("9112 5.2", "folded", post(b"Transfer-Encoding:\r\n chunked", body=ABC), ((200, 400),))
    other = post(b"Transfer_Encoding: chunked") + NEXT
    yield Case("9110 5.1", "another field with an underscore, chunked", other, (200, 200))
    get = request(b"GET / HTTP/1.1", b"Transfer-Encoding: chunked", body=ABC)
    yield Case("9112 6.3", "GET with chunks", get + NEXT, (200, 200), got=("GET / abc", "GET /next "))
    yield Case(
        "9110 10.1.4", "TE", request(b"GET / HTTP/1.1", b"TE: trailers, chunked;q=0") + NEXT, (200, 200)
    )


def chunks() -> Iterator[Case]:
    fine = {
        "one": ABC,
        "none": EMPTY,
        "two": b"3\r\nabc\r\n2\r\nde\r\n" + EMPTY,
        "zeros first": b"003\r\nabc\r\n000\r\n\r\n",
        "hexadecimal": b"a\r\n0123456789\r\n" + EMPTY,
        "in capitals": b"A\r\n0123456789\r\n" + EMPTY,
        "CRLF as data": b"4\r\n\r\n\r\n\r\n" + EMPTY,
        "what looks like the end": b"5\r\n0\r\n\r\n\r\n" + EMPTY,
        "an extension": b"3;a=b\r\nabc\r\n" + EMPTY,
        "an extension without a value": b"3;a\r\nabc\r\n" + EMPTY,
        "two extensions": b"3;a=b;c=d\r\nabc\r\n" + EMPTY,
        "a quoted value": b'3;a="b c"\r\nabc\r\n' + EMPTY,
        "a quoted semicolon": b'3;a="b;c"\r\nabc\r\n' + EMPTY,
        "a quoted pair": b'3;a="b\\"c"\r\nabc\r\n' + EMPTY,
        "an extension of the last": b"3\r\nabc\r\n0;a=b\r\n\r\n",
        "16 digits": b"0000000000000003\r\nabc\r\n" + EMPTY,
        "a long extension": b"3;a=" + b"x" * 1000 + b"\r\nabc\r\n" + EMPTY,
    }
    for name, body in fine.items():
        yield Case("9112 7.1", f"chunks: {name}", chunked(body) + NEXT, (200, 200))
    for name, line in {
        "after the size": b"3 ",
        "a tab after the size": b"3\t",
        "before ;": b"3 ;a=b",
        "after ;": b"3; a=b",
        "before =": b"3;a =b",
        "after =": b"3;a= b",
    }.items():
        # White space around ";" and "=" is bad, and to be parsed; RFC 9112, 11.2 wants care. 400 is safe.
        raw = chunked(line + b"\r\nabc\r\n" + EMPTY) + NEXT
        yield Case("9112 7.1.1", f"white space {name}", raw, ((200, 400),))
    wrong = {
        "no number": b"x",
        "nothing": b"",
        "a sign": b"+3",
        "a minus": b"-3",
        "minus zero": b"-0",
        "0x": b"0x3",
        "an underscore": b"3_0",
        "a space first": b" 3",
        "a comma": b"3,3",
        "a point": b"3.0",
        "g": b"g",
        "17 digits": b"10000000000000003",
        "an overflow": b"f" * 24,
        "quotes": b'"3"',
        "an h": b"3h",
        "NUL": b"3\x00",
        "a bare CR in an extension": b"3;a\rb",
        "NUL in an extension": b"3;a\x00b",
        "a bare CR in a quoted value": b'3;a="\rb"',
        "NUL in a quoted value": b'3;a="\x00"',
        "a control character in an extension": b"3;a\x01",
        "DEL in an extension": b"3;a\x7f",
        "no end of a quoted value": b'3;a="b',
        "CR": b"3\r",
        "a bare LF in an extension": b"3;a\nb",
        "no token in an extension": b"3;(a)",
    }
    for name, line in wrong.items():
        raw = chunked(line + b"\r\nabc\r\n" + EMPTY) + NEXT
        yield Case("9112 7.1", f"no chunk: {name}", raw, (400,))
    broken = {
        "LF after the size": b"3\nabc\r\n" + EMPTY,
        "LF after the data": b"3\r\nabc\n" + EMPTY,
        "CR after the size": b"3\rabc\r\n" + EMPTY,
        "CR after the data": b"3\r\nabc\r" + EMPTY,
        "no CRLF after the data": b"3\r\nabc" + EMPTY,
        "more data than announced": b"3\r\nabcd\r\n" + EMPTY,
        "less data than announced": b"3\r\nab\r\n" + EMPTY,
        "LF after the last": b"0\n\r\n",
        "LF at the end": b"0\r\n\n",
    }
    for name, body in broken.items():
        yield Case("9112 7.1", f"broken chunks: {name}", chunked(body) + NEXT, (400,))
    yield Case("9112 7.1.1", "an extension without end", chunked(b"3;" + b"a" * 200_000), ((400, 413, 431),))
    yield Case(
        "9112 7.1", "21 digits", chunked(b"0" * 20 + b"3\r\nabc\r\n" + EMPTY), ((200, 400),), may_differ=True
    )


def trailers() -> Iterator[Case]:
    fine = {
        "one": b"X: y",
        "two": b"X: y\r\nZ: a",
        "empty": b"X:",
        "white space around": b"X: \t y \t",
        "obs-text": b"X: \xe9",
        "of a name that the head has": b"Host: b",
        "that would authorize": b"Authorization: x",
    }
    for name, lines in fine.items():
        raw = chunked(b"3\r\nabc\r\n0\r\n" + lines + b"\r\n\r\n") + NEXT
        got = ("POST /post abc", "GET /next ")
        yield Case("9112 7.1.2", f"a trailer field: {name}", raw, (200, 200), got=got)
    for name, lines in {
        "a space before the colon": b"X : y",
        "no colon": b"X",
        "no name": b": y",
        "NUL": b"X: a\x00b",
        "a bare CR": b"X: a\rb",
        "a bare LF": b"X: a\nb",
        "no token": b"X(y): z",
        "a space first": b" X: y",
    }.items():
        raw = chunked(b"3\r\nabc\r\n0\r\n" + lines + b"\r\n\r\n") + NEXT
        yield Case("9112 7.1.2", f"no trailer field: {name}", raw, (400,))
    for name, lines in {
        "Content-Length": b"Content-Length: 5",
        "Transfer-Encoding": b"Transfer-Encoding: chunked",
        "folded": b"X: y\r\n z",
    }.items():
        raw = chunked(b"3\r\nabc\r\n0\r\n" + lines + b"\r\n\r\n")
        yield Case("9110 6.5.1", f"in a trailer: {name}", raw, ((200, 400),))
    yield Case(
        "9112 7.1.2", "trailers without end", chunked(b"0\r\n" + b"X: y\r\n" * 50_000), ((400, 413, 431),)
    )
    yield Case(
        "9112 7.1.2", "a trailer without end", chunked(b"0\r\nX: " + b"y" * 200_000), ((400, 413, 431),)
    )


def expectations() -> Iterator[Case]:
    expect = b"Expect: 100-continue"
    length = b"Content-Length: 3"
    yield Case(
        "9110 10.1.1", "100-continue, the body is there", post(expect, length, body=b"abc") + NEXT, (200, 200)
    )
    yield Case("9110 10.1.1", "100-continue, no body", request(b"GET / HTTP/1.1", expect) + NEXT, (200, 200))
    old = request(b"POST / HTTP/1.0", expect, length, body=b"abc")
    yield Case("9110 10.1.1", "100-continue in HTTP/1.0 is ignored", old, (200,), closes=True)
    other = post(b"Expect: something", length, body=b"abc")
    yield Case("9110 10.1.1", "another expectation", other, ((200, 417),), closes=None)
    yield Case(
        "9110 10.1.1", "in capitals", post(b"Expect: 100-Continue", length, body=b"abc") + NEXT, (200, 200)
    )


def bodiless() -> Iterator[Case]:
    for line in (
        b"HEAD / HTTP/1.1",
        b"GET /204 HTTP/1.1",
        b"GET /304 HTTP/1.1",
        b"HEAD /204 HTTP/1.1",
        b"HEAD /304 HTTP/1.1",
        b"HEAD /stream HTTP/1.1",
        b"POST /204 HTTP/1.1",
    ):
        status = int(line.split(b" ")[1][1:]) if b"04" in line else 200
        yield Case("9112 6.3", f"no body: {line!r}", request(line) + NEXT, (status, 200))
    yield Case("9112 6.3", "a stream has an end", request(b"GET /stream HTTP/1.1") + NEXT, (200, 200))
    old = request(b"GET /stream HTTP/1.0", b"Connection: keep-alive")
    yield Case("9112 6.3", "a stream for HTTP/1.0 ends with the connection", old, (200,), closes=True)


def persistence() -> Iterator[Case]:
    for name, line in {
        "close": b"close",
        "in capitals": b"CLOSE",
        "among others": b"foo, close",
        "first": b"close, foo",
        "with keep-alive": b"keep-alive, close",
        "before keep-alive": b"close, keep-alive",
        "a tab": b"foo,\tclose",
    }.items():
        raw = request(b"GET / HTTP/1.1", b"Connection: " + line) + NEXT
        yield Case("9112 9.6", f"close: {name}", raw, (200,), closes=True)
    two = request(b"GET / HTTP/1.1", b"Connection: keep-alive", b"Connection: close") + NEXT
    yield Case("9112 9.6", "close in a second field", two, (200,), closes=True)
    for name, line in {
        "keep-alive": b"Connection: keep-alive",
        "another option": b"Connection: closed",
        "none": b"Connection:",
        "empty elements": b"Connection: , ,",
        "Proxy-Connection": b"Proxy-Connection: close",
        "Keep-Alive": b"Keep-Alive: 5",
    }.items():
        yield Case("9112 9.3", f"kept: {name}", request(b"GET / HTTP/1.1", line) + NEXT, (200, 200))
    old = request(b"GET / HTTP/1.0", b"Connection: keep-alive") + NEXT
    yield Case("9112 9.3", "1.0 with keep-alive", old, (200, 200))
    old = request(b"GET / HTTP/1.0", b"Connection: Keep-Alive") + NEXT
    yield Case("9112 9.3", "1.0 with Keep-Alive", old, (200, 200))
    yield Case("9112 9.3", "1.0 without", request(b"GET / HTTP/1.0") + NEXT, (200,), closes=True)
    old = request(b"GET / HTTP/1.0", b"Connection: keep-alive, close") + NEXT
    yield Case("9112 9.3", "1.0 with both", old, (200,), closes=True)


def pipelines() -> Iterator[Case]:
    get = request(b"GET /a HTTP/1.1")
    many = b"".join(request(b"GET /%d HTTP/1.1" % n) for n in range(20))
    yield Case("9112 9.3.2", "twenty", many, (200,) * 20, got=tuple(f"GET /{n} " for n in range(20)))
    yield Case("9112 9.3.2", "after a body", post(b"Content-Length: 3", body=b"abc") + get + NEXT, (200,) * 3)
    yield Case("9112 9.3.2", "after chunks", chunked(ABC) + get + NEXT, (200,) * 3)
    yield Case("9112 9.3.2", "after HEAD", request(b"HEAD / HTTP/1.1") + get, (200, 200))
    yield Case("9112 9.3.2", "a malformed one", get + b"BAD\r\n\r\n" + NEXT, (200, 400))
    yield Case("9112 9.3.2", "an unknown method", get + request(b"FOO / HTTP/1.1") + NEXT, (200,) * 3)
    yield Case("9112 9.3.2", "two unknown ones", request(b"FOO / HTTP/1.1") * 2 + NEXT, (200,) * 3)
    yield Case("9112 9.3.2", "one without Host", get + request(host=None) + NEXT, (200, 400))
    yield Case("9112 2.2", "an empty line between", get + b"\r\n" + NEXT, (200, 200))
    extra = post(b"Content-Length: 3", body=b"abc") + b"\r\n" + NEXT
    yield Case("9112 2.2", "an empty line after a body", extra, (200, 200))
    yield Case(
        "9112 9.3.2",
        "after a body that is too long",
        post(b"Content-Length: 2", body=b"ab\x00") + NEXT,
        (200, 400),
    )


def upgrades() -> Iterator[Case]:
    h2c = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    yield Case("9110 7.8", "h2c is ignored", request(b"GET / HTTP/1.1", *h2c) + NEXT, (200, 200))
    body = post(*h2c, b"Content-Length: 3", body=b"abc") + NEXT
    yield Case("9110 7.8", "h2c with a body", body, (200, 200), got=("POST /post abc", "GET /next "))
    body = post(*h2c, b"Transfer-Encoding: chunked", body=ABC) + NEXT
    yield Case("9110 7.8", "h2c with chunks", body, (200, 200), got=("POST /post abc", "GET /next "))
    rows = {
        "an unknown protocol": (b"Connection: upgrade", b"Upgrade: foo/1"),
        "two protocols": (b"Connection: upgrade", b"Upgrade: foo, bar"),
        "without Connection": (b"Upgrade: foo",),
        "without Upgrade": (b"Connection: upgrade",),
        "an empty Upgrade": (b"Connection: upgrade", b"Upgrade:"),
        "websocket without Connection": (b"Upgrade: websocket",),
        "TLS": (b"Connection: upgrade", b"Upgrade: TLS/1.0"),
    }
    for name, lines in rows.items():
        yield Case("9110 7.8", f"an upgrade: {name}", request(b"GET / HTTP/1.1", *lines) + NEXT, (200, 200))
    old = request(b"GET / HTTP/1.0", b"Connection: upgrade", b"Upgrade: websocket")
    yield Case("9110 7.8", "in HTTP/1.0 it is ignored", old, (200,), closes=True)
    foo = request(b"FOO / HTTP/1.1", b"Connection: upgrade", b"Upgrade: foo") + NEXT
    yield Case("9110 7.8", "by an unknown method", foo, (200, 200))


def smuggling() -> Iterator[Case]:
    """What has let a request hide in another one, on some server."""
    hidden = b"0\r\n\r\n" + request(b"GET /hidden HTTP/1.1")
    length = b"Content-Length: %d" % len(hidden)
    variants = {
        "chunked after a bare LF": b"X: y\nTransfer-Encoding: chunked",
        "chunked after a bare CR": b"X: y\rTransfer-Encoding: chunked",
        "a vertical tab": b"Transfer-Encoding:\x0bchunked",
        "a folded line": b"X: y\r\n Transfer-Encoding: chunked",
        "a space before the colon": b"Transfer-Encoding : chunked",
        "a quoted coding": b"Transfer-Encoding: 'chunked'",
        "another coding, too": b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "NUL before it": b"\x00Transfer-Encoding: chunked",
        "a space before it": b" Transfer-Encoding: chunked",
        "no colon": b"Transfer-Encoding chunked",
        "a byte above 127": b"Transfer-Encoding: \xffchunked",
        "a length with a plus": b"Content-Length: +0",
        "a length with a space": b"Content-Length: 0 0",
        "a length, folded": b"Content-Length:\r\n 0",
        "another length": b"Content-Length: 0",
    }
    for name, line in variants.items():
        yield Case("9112 11.2", name, post(length, line, body=hidden), ((400, 501),))
    zero = post(b"Content-Length: 0", body=request(b"GET /next HTTP/1.1"))
    yield Case("9112 11.2", "CL.0 is two requests", zero, (200, 200), got=("POST /post ", "GET /next "))


GROUPS = (
    methods,
    request_lines,
    versions,
    targets,
    fields,
    hosts,
    lengths,
    codings,
    chunks,
    trailers,
    expectations,
    bodiless,
    persistence,
    pipelines,
    upgrades,
    smuggling,
)
CASES = [each for group in GROUPS for each in group()]
