"""X-Forwarded-For and X-Forwarded-Proto, or Forwarded, believed as far as their senders are trusted.

One of the two, as the settings say, and never the one where the other is missing: a proxy writes one and
passes the other on as the client has sent it. To take both would be to let the client choose.

Each proxy appends the address of whoever called it, so the list is read from its right end: as far as
the hops are trusted their word counts, and the first that is not is the client. What stands further
left, any client may have made up.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
from collections.abc import Iterable, MutableMapping
from typing import Any

from ostler.settings.trusted_peers import read_peers
from ostler.worker.proxies.forwarded import elements, node

_CACHED_PEERS = 4096
_LONGEST_ADDRESS = 64
"""An IPv6 address with its zone takes less; what is longer is no address, and is not worth caching."""
_MOST_HOPS = 64
"""Elements of Forwarded that are worth a look; with `*` all are trusted, and a head can hold thousands."""

_PLAIN = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_WEBSOCKET = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}

Address = tuple[str, int]


class TrustedProxies:
    """Decides whom to believe, and rewrites a scope accordingly.

    With `*` everyone is believed, and so the left-most address counts, as with uvicorn: right only
    where every request comes through a proxy that discards what the client sent.
    """

    def __init__(self, allowed: str, header: str = "x-forwarded") -> None:
        """Read `allowed`, a list as `--forwarded-allow-ips` takes it; `header` is `--forwarded-header`.

        Raises:
            WrongPeer: an entry is none; a ValueError.
        """
        self._peers = read_peers(allowed)
        self._rfc7239 = header == "forwarded"
        self._trusts = functools.lru_cache(_CACHED_PEERS)(self._judge)

    def trusts(self, peer: str | None) -> bool:
        """Whether to believe `peer`, an address; None or `unix:` is a peer over a Unix socket."""
        if self._peers.everyone:
            return True
        if not peer:
            return "unix:" in self._peers.literals
        return len(peer) <= _LONGEST_ADDRESS and self._trusts(peer)

    def names(self, peer: str) -> bool:
        """Whether `peer` is in the list itself, and not just one of everyone."""
        if peer == "unix:":
            return "unix:" in self._peers.literals
        return len(peer) <= _LONGEST_ADDRESS and self._trusts(peer)

    def apply(self, scope: MutableMapping[str, Any]) -> None:
        """Set `client` and `scheme` from the headers of a trusted peer; garbage changes nothing.

        The caller has asked `trusts`: once for each connection is enough.
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
        if schemes and (entries := _entries(schemes)):
            # The last is the nearest proxy's own word; the first is the client's own proxy's.
            self._set_scheme(scope, entries[0] if self._peers.everyone else entries[-1])
        if hops:
            address = self._client(_entries(hops))
            if address is not None:
                scope["client"] = address

    def _apply_forwarded(self, scope: MutableMapping[str, Any], values: list[bytes]) -> None:
        """Walk from the nearest hop to the first that is not trusted; what it is said of counts.

        Each element is the word of the hop that the one to its right names. So the last one of the walk
        tells how the client itself connected.
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
                    continue  # the left-most that is an address
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
            return _address(entries[0]) if entries else None
        farthest: Address | None = None
        for entry in reversed(entries):
            if entry in self._peers.literals:  # nginx names a hop over a Unix socket "unix:"
                continue
            address = _address(entry)
            if address is None:
                break  # "unknown" and the like: whoever is behind it, nobody trusted vouches for
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
    """The members of a list header, in order; empty ones do not count (RFC 9110, section 5.6.1)."""
    return [
        entry for entry in (part.strip() for part in b",".join(values).decode("latin-1").split(",")) if entry
    ]


def _address(entry: str) -> Address | None:
    """Read `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; without a port it is 0."""
    if len(entry) > _LONGEST_ADDRESS:
        return None
    host, port = entry, ""
    if entry.startswith("["):
        host, bracket, rest = entry[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:]
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    if not port:
        return host, 0
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    return host, int(port)
