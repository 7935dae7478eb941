"""Client and scheme of a request from X-Forwarded-For and X-Forwarded-Proto, or from Forwarded.

The settings choose one of the two, and the other never counts: a proxy writes one, and passes the other on as
the client has sent it. If both counted, the client could choose.

Each proxy appends the address that it was called from, so the list is read from its right end. As long as the
hops are trusted, their entries count; the first hop that is not trusted is the client. The client may have
made up everything further left. An entry that is no address, or empty, ends the reading in the same way.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import re
from collections.abc import Iterable, MutableMapping
from typing import Any

from ostler.settings.trusted_peers import read_peers
from ostler.worker.proxies.forwarded import elements, node

_CACHED_PEERS = 4096
_LONGEST_ADDRESS = 64
"""Characters: an IPv6 address with its zone is shorter. A longer text is no address, and is not cached."""
_MOST_HOPS = 64
"""Elements of Forwarded that are read: with `*` all are trusted, and a head can have thousands."""

_PLAIN = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_WEBSOCKET = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}

Address = tuple[str, int]


class TrustedProxies:
    """Decides which peers to trust, and sets a scope's client and scheme accordingly.

    With `*` every peer is trusted, and so the left-most address counts, as with uvicorn. That is right only
    where every request comes through a proxy that discards what the client has sent.
    """

    def __init__(self, allowed: str, header: str = "x-forwarded") -> None:
        """Read `allowed`, a list as `--forwarded-allow-ips` takes it; `header` is `--forwarded-header`.

        Raises:
            WrongPeer: an entry is not valid; a ValueError.
        """
        self._peers = read_peers(allowed)
        self._rfc7239 = header == "forwarded"
        self._trusts = functools.lru_cache(_CACHED_PEERS)(self._judge)

    def trusts(self, peer: str | None) -> bool:
        """Whether to trust `peer`, an address; None or `unix:` is a peer on a Unix socket."""
        if self._peers.everyone:
            return True
        if not peer:
            return "unix:" in self._peers.literals
        return len(peer) <= _LONGEST_ADDRESS and self._trusts(peer)

    def names(self, peer: str) -> bool:
        """Whether the list has an entry for `peer`, other than `*`."""
        if peer == "unix:":
            return "unix:" in self._peers.literals
        return len(peer) <= _LONGEST_ADDRESS and self._trusts(peer)

    def apply(self, scope: MutableMapping[str, Any]) -> None:
        """Set `client` and `scheme` from the headers of a trusted peer; garbage changes nothing.

        The caller has to check `trusts` before: once for each connection is enough.
        """
        if self._rfc7239:
            values = [value for name, value in scope["headers"] if name == b"forwarded"]
            if values:
                self._apply_forwarded(scope, values)
            return
        hops: list[bytes] = []
        schemes: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                hops.append(value)
            elif name == b"x-forwarded-proto":
                schemes.append(value)
        if schemes and (entries := [entry for entry in _entries(schemes) if entry]):
            # The last entry is the nearest proxy's; the first is that of the proxy nearest to the client.
            self._set_scheme(scope, entries[0] if self._peers.everyone else entries[-1])
        if hops:
            address = self._client(_entries(hops))
            if address is not None:
                scope["client"] = address

    def _apply_forwarded(self, scope: MutableMapping[str, Any], values: list[bytes]) -> None:
        """Read the elements from the nearest hop to the first that is not trusted: that is the client.

        Each element was written by the hop that the element to its right names. So the last one that is read
        says how the client itself connected.
        """
        proto = ""
        for element in itertools.islice(elements(values), _MOST_HOPS):
            if element is None:
                break
            proto = element.get("proto", proto)
            entry = node(element)
            if entry in self._peers.literals:
                continue
            address = _address(entry)
            if address is None:
                if self._peers.everyone:
                    continue  # the left-most address counts
                break  # "unknown", "_hidden" (RFC 7239, section 6), or nothing
            scope["client"] = address
            if not self.trusts(address[0]):
                break
        self._set_scheme(scope, proto)

    def _set_scheme(self, scope: MutableMapping[str, Any], entry: str) -> None:
        schemes = _WEBSOCKET if scope["type"] == "websocket" else _PLAIN
        scheme = schemes.get(entry.lower())
        if scheme is not None:
            scope["scheme"] = scheme

    def _client(self, entries: list[str]) -> Address | None:
        if self._peers.everyone:
            found = map(_address, itertools.islice(entries, _MOST_HOPS))
            return next((address for address in found if address is not None), None)
        farthest: Address | None = None
        for entry in reversed(entries):
            if entry in self._peers.literals:  # nginx names a hop over a Unix socket "unix:"
                continue
            address = _address(entry)
            if address is None:
                # "unknown" and the like, or empty: no trusted proxy has named what is behind it. An empty
                # one is not skipped (RFC 9110, section 5.6.1): what is left of it may be the client's text.
                break
            farthest = address
            if not self.trusts(address[0]):
                break
        return farthest

    def _judge(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return peer in self._peers.literals
        # A dual-stack socket shows an IPv4 peer as ::ffff:192.0.2.1 (RFC 4291, section 2.5.5.2).
        plain = getattr(address, "ipv4_mapped", None) or address
        return plain in self._peers.addresses or any(plain in network for network in self._peers.networks)


def _entries(values: Iterable[bytes]) -> list[str]:
    """The members of a list header, in order, also empty ones. Only spaces and tabs around them go."""
    return [part.strip(" \t") for part in b",".join(values).decode("latin-1").split(",")]


_PORT = re.compile(r"[0-9]{1,5}\Z")
_ZONE = re.compile(r"[0-9A-Za-z._~-]+\Z")
"""The zone of an IPv6 address (RFC 6874). `ipaddress` takes any text there, markup too."""


def _address(entry: str) -> Address | None:
    """Read `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.

    Without a port it is 0. None for any other text: half of a broken entry would be a guess.
    """
    if len(entry) > _LONGEST_ADDRESS:
        return None
    host, port = entry, "0"
    if entry.startswith("["):
        host, bracket, rest = entry[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:] if rest else "0"
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    _, percent, zone = host.partition("%")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    if (percent and not _ZONE.match(zone)) or not _PORT.match(port) or int(port) > 65535:
        return None
    return host, int(port)
