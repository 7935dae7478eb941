"""Reads and checks the head of a request: framing, keep-alive, upgrade, target. The same for both parsers.

The parsers check the form of the bytes (tokens, line ends, the characters of a field). Everything that
follows from the content is decided here, in one pass over the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from ostler.worker.http.request_host import ABSOLUTE_FORM, is_host

MAX_FIELDS = 256
"""The most header fields of one request; more are answered with 431. Each field costs, besides its bytes."""

CHUNKED = -1
"""`RequestHead.length` of a chunked body."""
ENDLESS = -2
"""`RequestHead.length` where all that follows is of another protocol: the request was upgraded."""

Fields = list[tuple[bytes, bytes]]

MAX_METHOD = 64
"""The most characters of a method. The longest that IANA has registered, UPDATEREDIRECTREF, has 17."""

# The methods that most requests have, decoded. Every other token is a method as well (RFC 9110, section 9.1),
# in its own case. A plain dictionary: a look-up through a MappingProxyType takes three times as long.
METHODS: Mapping[bytes, str] = {
    name.encode(): name
    for name in """
        GET HEAD POST PUT DELETE OPTIONS PATCH TRACE CONNECT COPY LOCK MKCOL MOVE PROPFIND PROPPATCH
        SEARCH UNLOCK BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE
        UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK SOURCE QUERY
    """.split()  # noqa: SIM905 - forty quoted words are not easier to read
}

# The fields that frame or route a message, or name its origin; all others are passed to the app unread.
_SEMANTIC = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"expect",
        b"upgrade",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"forwarded",
    )
)

_MOST_HOSTS = 1024
_LONGEST_HOST = 256


class Refusal(Exception):
    """A request is not served: it is answered with `status` and `reason`, then the connection closes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.has_body = True
        """Whether the answer has a body; False for HEAD."""
        self.upgrade = b""
        """Fields of the answer that name the protocol, or the version of it, to ask for instead."""


class RequestHead:
    """The head of one request. It is small, as many may be queued: the ASGI scope is built later."""

    __slots__ = (
        "expect", "forwarded", "headers", "keep_alive", "length", "method", "target", "upgrade", "version",
    )  # fmt: skip

    def __init__(self, method: str, target: bytes, version: str, headers: Fields) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.keep_alive = version == "1.1"
        self.length = 0
        """Bytes of the body to come, CHUNKED or ENDLESS."""
        self.expect = False
        """The client waits for 100 Continue before it sends the body."""
        self.forwarded = False
        """There is a field in which a proxy names the request's origin (X-Forwarded-*, Forwarded)."""
        self.upgrade = b""
        """The protocol asked for, lower case, when the Connection field announces an upgrade."""

    def asks_for(self, path: bytes) -> bool:
        """Whether this is GET or HEAD of `path`, with or without a query."""
        target = self.target
        return (
            target.startswith(path)
            and self.method in ("GET", "HEAD")
            and target[len(path) : len(path) + 1] in (b"", b"?", b"#")
        )

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} {self.target!r} HTTP/{self.version}>"


def oversize(target_length: int, limit: int) -> Refusal:
    """Return the refusal of a head larger than `limit` bytes: 414 if the target is too long, else 431."""
    if target_length + 32 > limit:
        return Refusal(414, "The request target is too long.")
    return Refusal(431, "The request header fields are too large.")


def method_too_long() -> Refusal:
    """Return the refusal of a method of more than MAX_METHOD characters (RFC 9112, section 3)."""
    return Refusal(501, "The request method is too long.")


def read_head(method: bytes, target: bytes, version: str, headers: Fields, hosts: set[bytes]) -> RequestHead:
    """Read a complete head.

    The parser has checked that `method` is a token. Names in `headers` are lower case; the Host field may be
    replaced in it. `hosts` are values of Host that were found valid, so that each is checked once.

    Raises:
        Refusal: RFC 9110 or 9112 demands it, or the request needs something that ostler does not have.
    """
    known = METHODS.get(method) or method.decode("ascii")
    if version != "1.1" and version != "1.0":
        if not version.startswith("1."):
            raise Refusal(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        version = "1.1"  # RFC 9110, section 2.5: a higher minor version is taken for the highest one known
    if len(headers) > MAX_FIELDS:
        raise Refusal(431, "There are too many request header fields.")
    head = RequestHead(known, target, version, headers)
    host_fields = 0
    for name, value in headers:
        if name in _SEMANTIC:
            if name == b"host":
                host_fields += 1
                if value not in hosts:
                    _check_host(value, hosts)
            else:
                _read_field(head, name, value)
    # RFC 9112, section 3.2: exactly one Host in 1.1, and never more than one.
    if host_fields != 1 and (host_fields or version == "1.1"):
        raise Refusal(400, "The Host header field must be there exactly once.")
    if known == "CONNECT":
        raise Refusal(501, "This server is not a tunnel.")
    if target[0] != 47:  # "/"
        _read_unusual_target(head)
    return head


def _check_host(value: bytes, hosts: set[bytes]) -> None:
    # RFC 9112, section 3.2. An empty value is that of a target URI without an authority.
    if value and not is_host(value):
        raise Refusal(400, "The Host header field is not a host name or address.")
    if len(value) <= _LONGEST_HOST:  # a client that invents names must not fill the memory
        if len(hosts) >= _MOST_HOSTS:
            hosts.clear()
        hosts.add(value)


def _read_field(head: RequestHead, name: bytes, value: bytes) -> None:
    """Read one of the fields that frame the message."""
    if name == b"content-length":
        _read_length(head, value)
    elif name == b"transfer-encoding":
        _read_coding(head, value)
    elif name == b"connection":
        for option in value.lower().split(b","):
            option = option.strip()
            if option == b"close":
                head.keep_alive = False
            elif option == b"keep-alive" and not _says_close(head):
                head.keep_alive = True
            elif option == b"upgrade" and not head.upgrade:
                head.upgrade = _first(head.headers, b"upgrade")
    elif name == b"expect":
        # RFC 9110, section 10.1.1: an HTTP/1.0 client's expectation is ignored.
        head.expect = head.version == "1.1" and value.lower() == b"100-continue"
    elif name != b"upgrade":
        head.forwarded = True


def _read_length(head: RequestHead, value: bytes) -> None:
    # RFC 9112, section 6.3: anything but one plain number allows request smuggling.
    if [name for name, _ in head.headers].count(b"content-length") > 1:
        raise Refusal(400, "The Content-Length header field is there more than once.")
    if not value.isdigit() or len(value) > 18:
        raise Refusal(400, "The Content-Length header field is not a number.")
    if head.length == CHUNKED:
        raise Refusal(400, "Content-Length and Transfer-Encoding exclude each other.")
    head.length = int(value)


def _read_coding(head: RequestHead, value: bytes) -> None:
    # RFC 9112, section 6.1. HTTP/1.0 has no transfer codings: there the framing cannot be trusted.
    if head.version == "1.0":
        raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding.")
    if any(name == b"content-length" for name, _ in head.headers):
        raise Refusal(400, "Content-Length and Transfer-Encoding exclude each other.")
    if head.length == CHUNKED:
        raise Refusal(400, "The Transfer-Encoding header field is there more than once.")
    codings = [coding.strip(b" \t") for coding in value.lower().split(b",")]
    # RFC 9112, section 6.3: else the end of the body is not known.
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        raise Refusal(400, "The last transfer coding must be chunked, and it alone.")
    if len(codings) > 1:
        raise Refusal(501, "The only transfer coding understood is chunked.")
    head.length = CHUNKED


def _says_close(head: RequestHead) -> bool:
    # "close" wins over "keep-alive", in whatever order and in however many fields they come.
    return any(
        option.strip() == b"close"
        for name, value in head.headers
        if name == b"connection"
        for option in value.lower().split(b",")
    )


def _first(headers: Fields, wanted: bytes) -> bytes:
    return next((value.lower() for name, value in headers if name == wanted), b"")


def _read_unusual_target(head: RequestHead) -> None:
    """Reduce the absolute form of a target to the origin form; accept the asterisk form for OPTIONS only."""
    if head.target == b"*" and head.method == "OPTIONS":
        return
    match = ABSOLUTE_FORM.match(head.target)
    if match is None or not is_host(match[1]):
        raise Refusal(400, "The request target is malformed.")
    authority, rest = match.groups()
    head.target = rest if rest and rest[0] == 47 else b"/" + (rest or b"")
    # RFC 9112, section 3.2.2: the authority of the target replaces the value of Host.
    head.headers[:] = [(n, authority if n == b"host" else v) for n, v in head.headers]


def split_target(target: bytes, root_path: str) -> tuple[str, bytes, bytes]:
    """Return an ASGI scope's `path`, `raw_path` and `query_string` for an origin- or asterisk-form target.

    With a root path, both paths begin with it, as in uvicorn and the ASGI specification.
    """
    if 35 in target:  # "#" as a number: for bytes in bytes, Python first raises and drops a TypeError
        # A fragment is not for servers, yet some clients send it: it is cut, as uvicorn does.
        target = target.partition(b"#")[0]
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    if "%" in path:
        path = unquote(path)
    if root_path and raw_path != b"*":
        path = root_path + path
        raw_path = root_path.encode() + raw_path
    return path, raw_path, query
