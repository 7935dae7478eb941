"""Reads Sec-WebSocket-Extensions (RFC 6455, 9.1), and agrees to permessage-deflate (RFC 7692, 7)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ostler.records import record
from ostler.settings.field_grammar import TOKEN_CHARACTERS

_WINDOW_BITS = 12
"""A window of 4 KiB instead of 32 KiB costs little compression, and saves most of the memory that zlib takes
for each connection."""
_LEAST_BITS = 9
"""zlib does not compress with a window of 8 bits (https://github.com/madler/zlib/issues/171)."""
_BITS = tuple(str(bits) for bits in range(8, 16))
"""RFC 7692, section 7.1.2: decimal, without leading zeros."""
_TOKEN = f"[{TOKEN_CHARACTERS.decode()}]+"
_IS_TOKEN = re.compile(rf"{_TOKEN}\Z")
_PIECE = re.compile(rf"""[ \t]*({_TOKEN})[ \t]*(?:=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")[ \t]*)?""")
"""A name, or a parameter with its value, which may be quoted (RFC 6455, section 9.1)."""

_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
"""Parameters without a value."""
_DEFINED = frozenset((*_FLAGS, "server_max_window_bits", "client_max_window_bits"))

_Parameters = list[tuple[str, str | None]]


@record
class Deflate:
    """permessage-deflate, as it was agreed to."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_bits: int
    """Of the window that we compress with."""
    client_bits: int | None
    """Of the client's window; None if it may be the largest, as the client does not take a limit."""

    @property
    def inflate_bits(self) -> int:
        """The window to decompress with: at least the client's, and never one that zlib does not have."""
        return 15 if self.client_bits is None else max(self.client_bits, _LEAST_BITS)

    @property
    def response(self) -> str:
        """The value of Sec-WebSocket-Extensions for the response."""
        parts = ["permessage-deflate"]
        if self.server_no_context_takeover:
            parts.append("server_no_context_takeover")
        if self.client_no_context_takeover:
            parts.append("client_no_context_takeover")
        parts.append(f"server_max_window_bits={self.server_bits}")
        if self.client_bits is not None:
            parts.append(f"client_max_window_bits={self.client_bits}")
        return "; ".join(parts)


def agree_to_deflate(values: Iterable[str]) -> Deflate | None:
    """Agree to the first offer of permessage-deflate that is valid; None if there is none.

    Args:
        values: the values of the client's Sec-WebSocket-Extensions fields.

    Raises:
        ValueError: one is malformed.
    """
    for name, parameters in parse_extensions(values):
        if name == "permessage-deflate" and (deflate := _agree(parameters)) is not None:
            return deflate
    return None


def _agree(parameters: _Parameters) -> Deflate | None:
    """Return what is agreed to; None to decline, as RFC 7692, section 7, wants of what it does not define."""
    given = dict(parameters)
    if len(given) != len(parameters) or not given.keys() <= _DEFINED:
        return None
    if any(given.get(flag) is not None for flag in _FLAGS):
        return None
    server_bits = given.get("server_max_window_bits", str(_WINDOW_BITS))
    client_bits = given.get("client_max_window_bits") or str(_WINDOW_BITS)
    if server_bits not in _BITS or client_bits not in _BITS or int(server_bits) < _LEAST_BITS:
        return None
    return Deflate(
        server_no_context_takeover="server_no_context_takeover" in given,
        client_no_context_takeover="client_no_context_takeover" in given,
        server_bits=min(int(server_bits), _WINDOW_BITS),
        client_bits=min(int(client_bits), _WINDOW_BITS) if "client_max_window_bits" in given else None,
    )


def parse_extensions(values: Iterable[str]) -> list[tuple[str, _Parameters]]:
    """Return the extensions that are offered, in order, with their parameters.

    Raises:
        ValueError: a value does not conform to the grammar of RFC 6455, section 9.1.
    """
    offers = []
    for value in values:
        at = 0
        while at < len(value):
            if value[at] in ", \t":
                at += 1  # a list may have empty elements (RFC 9110, section 5.6.1)
                continue
            offer, at = _parse_offer(value, at)
            offers.append(offer)
    return offers


def _parse_offer(value: str, at: int) -> tuple[tuple[str, _Parameters], int]:
    """Parse one offer of a list; return it, and where its end or the comma behind it is."""
    name: str | None = None
    parameters: _Parameters = []
    while True:
        piece = _PIECE.match(value, at)
        if piece is None:
            raise ValueError(value)
        token, given, quoted = piece.groups()
        if quoted is not None:
            given = re.sub(r"\\(.)", r"\1", quoted)
            if _IS_TOKEN.match(given) is None:
                raise ValueError(value)
        if name is not None:
            parameters.append((token, given))
        elif given is None:
            name = token
        else:
            raise ValueError(value)
        at = piece.end()
        if at == len(value) or value[at] == ",":
            return (name, parameters), at
        if value[at] != ";":
            raise ValueError(value)
        at += 1
