"""Renders and checks the head of an HTTP/1.1 response, in one pass over its fields."""

from __future__ import annotations

import http
from collections.abc import Iterable
from types import MappingProxyType

from ostler.settings.field_grammar import CONTROLS, is_token
from ostler.worker.http.request import RequestHead

UNKNOWN = -1
"""Length of a body that the app did not announce."""
BODILESS = -2
"""Length of a body that must not be sent, even if the app gives one (RFC 9110, section 6.4.1)."""
FILE = -3
"""Stands for the length while a file is being sent: no piece of the body may be sent then."""

# Kinds of response fields, by what the server does with them. PLAIN, the kind of most, is falsy: such a field
# costs one look-up and one test.
PLAIN, CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING, SERVER, DATE = range(6)
_KINDS = MappingProxyType(
    {
        b"content-length": CONTENT_LENGTH,
        b"connection": CONNECTION,
        b"transfer-encoding": TRANSFER_ENCODING,
        # Hop-by-hop, and for the server to send, like Connection itself (RFC 9110, section 7.6.1).
        b"keep-alive": TRANSFER_ENCODING,
        b"server": SERVER,
        b"date": DATE,
    }
)
_MOST_NAMES = 1024


def status_line(status: int) -> bytes:
    """Return the status line of a response; the phrase is empty where RFC 9110 has none.

    Raises:
        RuntimeError: it is no status. A client takes one of no known class for 500 (RFC 9110, section 15).
    """
    if not isinstance(status, int) or not 100 <= status <= 599:
        raise RuntimeError(f"The response status must be a number from 100 to 599, not {status!r}.")
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {int(status)} {phrase}\r\n".encode()


_STATUS_LINES = MappingProxyType({int(status): status_line(status) for status in http.HTTPStatus})


FieldNameCache = dict[bytes, tuple[bytes, int]]
"""Field names that were found valid, each with the beginning of its line and its kind."""


def _learn(names: FieldNameCache, name: bytes) -> tuple[bytes, int]:
    """Check a field name; return the beginning of its line and its kind, and keep both in `names`.

    Raises:
        RuntimeError: it is no token (RFC 9110, section 5.6.2).
    """
    if not isinstance(name, bytes) or not is_token(name):
        raise RuntimeError(f"Invalid HTTP header name: {name!r}.")
    sent = name.lower()
    known = sent + b": ", _KINDS.get(sent, PLAIN)
    if len(names) < _MOST_NAMES:  # an app that invents names must not fill the memory
        names[name] = known
    return known


RenderedFields = tuple[bytes, int, int, bool]
"""An app's fields as they are sent, the length that they announce, which of the server's own fields they
replace (1 for Server, 2 for Date, 3 for both), and whether they ask to close the connection."""

# The bytes of the head, the length of the body to come (or UNKNOWN, or BODILESS), whether that is chunked,
# and whether the connection is kept. A bare tuple, as it is made for every request.
RenderedHead = tuple[bytes, int, bool, bool]

HeadCache = dict[object, RenderedHead]
"""Heads that were rendered before, by status and fields: most responses repeat the head of another one."""
_MOST_HEADS = 256
_LONGEST_HEAD = 1024


def render_head(
    status: int,
    fields: Iterable[tuple[bytes, bytes]],
    request: RequestHead,
    keep_alive: bool,
    names: FieldNameCache,
    heads: HeadCache,
    static: tuple[bytes, bytes, bytes, bytes],
) -> RenderedHead:
    """Render the head of the response to `request`.

    `static` holds the server's own fields: all of them, without Server, without Date, without both. `heads`
    must be cleared when `static` changes: it keeps the heads for HTTP/1.1 on a connection that is kept.

    Raises:
        RuntimeError: the app gave a status, a name or a value that cannot be sent.
    """
    fields = tuple(fields)
    if not keep_alive or request.version != "1.1" or request.method == "HEAD":
        return _render(status, fields, request, keep_alive, names, static)
    key = status, fields
    try:
        known = heads.get(key)
    except TypeError:  # not hashable: a field is a list, or a value a bytearray
        return _render(status, fields, request, keep_alive, names, static)
    if known is None:
        known = _render(status, fields, request, keep_alive, names, static)
        if len(known[0]) <= _LONGEST_HEAD:
            if len(heads) >= _MOST_HEADS:
                heads.clear()
            heads[key] = known
    return known


def _render(
    status: int,
    fields: tuple[tuple[bytes, bytes], ...],
    request: RequestHead,
    keep_alive: bool,
    names: FieldNameCache,
    static: tuple[bytes, bytes, bytes, bytes],
) -> RenderedHead:
    line = _STATUS_LINES.get(status) or status_line(status)
    bodiless = status < 200 or status == 204
    block, length, own, closing = _render_fields(fields, names, bodiless=bodiless)
    if bodiless or status == 304 or request.method == "HEAD":
        length = BODILESS
    if closing or status < 200:  # a client waits for the final response after an interim one
        keep_alive = False
    chunked = False
    framing = b"\r\n"
    if length == UNKNOWN:
        if request.version == "1.1":
            chunked = True
            framing = b"transfer-encoding: chunked\r\n\r\n"
        else:
            keep_alive = False  # in HTTP/1.0 the end of the connection is the end of the body
    if not keep_alive:
        framing = b"connection: close\r\n" + framing
    elif request.version == "1.0":
        framing = b"connection: keep-alive\r\n" + framing
    return line + static[own] + block + framing, length, chunked, keep_alive


def _render_fields(
    fields: tuple[tuple[bytes, bytes], ...], names: FieldNameCache, *, bodiless: bool
) -> RenderedFields:
    length = UNKNOWN
    own = 0
    closing = False
    parts: list[bytes] = []
    for name, value in fields:
        beginning, kind = names.get(name) or _learn(names, name)
        if kind:
            if kind == CONTENT_LENGTH:
                repeated, length = length, _content_length(value, length)
                if bodiless or repeated != UNKNOWN:
                    continue
            elif kind == SERVER:
                own |= 1
            elif kind == DATE:
                own |= 2
            else:
                # Connection and Transfer-Encoding are set by the server; the app can only ask to close.
                if kind == CONNECTION and b"close" in value.lower():
                    closing = True
                continue
        parts += (beginning, value, b"\r\n")
    block = b"".join(parts)
    # `is_field_value` for all values at once: each line has its CR and LF, and no other control character
    # may be there. One pass over the block costs less than one over each value.
    if len(block) - len(block.translate(None, CONTROLS)) != len(parts) // 3 * 2:
        raise RuntimeError("Invalid HTTP header value: a control character is in it.")
    return block, length, own, closing


def _content_length(value: bytes, before: int) -> int:
    # The same length twice says the same, and is sent once (RFC 9110, section 8.6).
    if not value.isdigit() or before not in (UNKNOWN, int(value)):
        raise RuntimeError(f"Invalid Content-Length in the response: {value!r}.")
    return int(value)


def render_refusal(
    status: int, reason: str, static: bytes, *, body: bool = True, upgrade: bytes = b""
) -> bytes:
    """Return a whole response that says why a request is not served, and that the connection closes.

    `static` are the server's own fields; `upgrade` are fields that name the protocol to ask for instead.
    """
    text = f"{reason}\n".encode() if body else b""
    # RFC 9110, section 7.8: Upgrade is announced by an option of Connection, in a response as well.
    option = b"close, upgrade" if upgrade else b"close"
    return (
        b"%b%b%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: %b\r\n\r\n%b"
        % (_STATUS_LINES[status], static, upgrade, len(text), option, text)
    )
