"""The opening handshake (RFC 6455, section 4.2): checks the request, renders the response that accepts it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

from ostler.settings.field_grammar import is_field_value, is_token
from ostler.worker.http.request import Refusal, RequestHead
from ostler.worker.websocket.extension_offers import parse_extensions

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# The fields of the handshake itself, which the server sends; those of an app are dropped.
_OWN = frozenset(
    (
        b"connection", b"content-length", b"keep-alive", b"sec-websocket-accept", b"sec-websocket-extensions",
        b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip


def is_handshake(head: RequestHead) -> bool:
    """Whether the request asks to upgrade to WebSocket; HTTP/1.0 has no upgrades (RFC 9110, section 7.8)."""
    if head.version != "1.1":
        return False
    return any(protocol.strip() == b"websocket" for protocol in head.upgrade.split(b","))


def check_handshake(head: RequestHead) -> None:
    """Check that the request is a valid handshake.

    Raises:
        Refusal: 400, or 426 where another version of the protocol is asked for.
    """
    if head.method != "GET":
        raise Refusal(400, "A WebSocket handshake is a GET.")
    if head.length:
        raise Refusal(400, "A WebSocket handshake has no body.")
    keys = values(head, b"sec-websocket-key")
    versions = values(head, b"sec-websocket-version")
    if versions != [b"13"]:
        refusal = Refusal(426 if versions else 400, "The only WebSocket version spoken here is 13.")
        if versions:
            refusal.upgrade = b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
        raise refusal
    if len(keys) != 1 or not _is_key(keys[0]):
        raise Refusal(400, "The Sec-WebSocket-Key header field must be there once, with 16 bytes in base64.")
    try:
        parse_extensions(extensions(head))
    except ValueError:
        # RFC 6455, section 9.1: what does not conform to the grammar fails the handshake.
        raise Refusal(400, "The Sec-WebSocket-Extensions header field is malformed.") from None


def values(head: RequestHead, wanted: bytes) -> list[bytes]:
    """Return the values of one field, in order."""
    return [value for name, value in head.headers if name == wanted]


def extensions(head: RequestHead) -> list[str]:
    """Return the values of the Sec-WebSocket-Extensions fields."""
    return [value.decode("latin-1") for value in values(head, b"sec-websocket-extensions")]


def subprotocols(head: RequestHead) -> list[str]:
    """Return the subprotocols that the client offers, in its order of preference."""
    offered = b",".join(values(head, b"sec-websocket-protocol")).decode("latin-1")
    return [entry for entry in (part.strip() for part in offered.split(",")) if entry]


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def render_accept(
    head: RequestHead,
    subprotocol: str | None,
    agreed: str,
    fields: Iterable[tuple[bytes, bytes]],
    static: tuple[bytes, bytes, bytes, bytes],
) -> bytes:
    """Render the 101 response; `agreed` are the extensions, `static` is as in `render_head`.

    Raises:
        RuntimeError: the app gave a subprotocol, a name or a value that cannot be sent.
    """
    parts = [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: %b\r\n" % _accept(values(head, b"sec-websocket-key")[0])
    ]
    if agreed:
        parts.append(b"sec-websocket-extensions: %b\r\n" % agreed.encode("ascii"))
    if subprotocol:
        chosen = subprotocol.encode("latin-1", "replace") if isinstance(subprotocol, str) else b""
        if not is_token(chosen):
            raise RuntimeError(f"Invalid subprotocol: {subprotocol!r}.")
        parts.append(b"sec-websocket-protocol: %b\r\n" % chosen)
    own = 0
    for name, value in fields:
        if not isinstance(name, bytes) or not is_token(name):
            raise RuntimeError(f"Invalid HTTP header name: {name!r}.")
        if not is_field_value(value):
            raise RuntimeError("Invalid HTTP header value: a control character is in it.")
        lower = name.lower()
        # The subprotocol has a key of its own in the message; some apps also give it as a field.
        if lower in _OWN or (subprotocol and lower == b"sec-websocket-protocol"):
            continue
        own |= (lower == b"server") | (lower == b"date") << 1
        parts.append(b"%b: %b\r\n" % (name, value))
    return b"".join((*parts, static[own], b"\r\n"))


def _accept(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
