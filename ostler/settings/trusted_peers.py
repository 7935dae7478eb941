"""Parses `--forwarded-allow-ips`: the list of peers whose X-Forwarded-* headers are trusted.

Pure. `ostler.settings.kinds` checks the setting with it; `ostler.worker.proxies.trusted` looks peers up in
it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ostler.records import record

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


class WrongPeer(ValueError):
    """One entry of the list is wrong; the message names it."""


@record
class TrustedPeers:
    """The parsed list. IPv4-mapped IPv6 addresses and networks are stored as IPv4."""

    everyone: bool
    addresses: frozenset[IPv4Address | IPv6Address]
    networks: tuple[IPv4Network | IPv6Network, ...]
    literals: frozenset[str]


def read_peers(text: str) -> TrustedPeers:
    """Parse a comma-separated list of peers: addresses, networks, `unix:`, `*`, or any other literal.

    A literal matches the same text in a forwarding header: nginx names a hop over a Unix socket `unix:`.

    Raises:
        WrongPeer: an entry looks like an address or a network and is none, or no peer can match it.
    """
    addresses: set[IPv4Address | IPv6Address] = set()
    networks: list[IPv4Network | IPv6Network] = []
    literals: set[str] = set()
    entries = [entry for entry in (part.strip() for part in text.split(",")) if entry]
    for entry in entries:
        if entry == "*":
            continue
        if not _like_an_address(entry):
            literals.add(_literal(entry))
        elif "/" in entry:
            networks.append(_network(entry))
        else:
            addresses.add(_address(entry))
    return TrustedPeers("*" in entries, frozenset(addresses), tuple(networks), frozenset(literals))


_NUMBERS = re.compile(r"[0-9.]+(:.*)?\Z|[0-9A-Fa-f:.\[\]]*:[0-9A-Fa-f:.\[\]]*(%.*)?\Z", re.DOTALL)
"""What was meant to be an IPv4 address, also with a port, or an IPv6 address, also in brackets or with a
zone, right or wrong."""


def _like_an_address(entry: str) -> bool:
    """Whether `entry` was meant to be an address or a network, so that a mistake in it is refused.

    A mistake would trust nobody, silently. Other texts are literals, such as `proxy` or `unix:///run/app.sock`.
    """
    host, _, prefix = entry.partition("/")
    return _NUMBERS.match(host) is not None or (bool(host) and prefix.isdigit())


def _literal(entry: str) -> str:
    # "10.0.*" and "10.0.0.1 10.0.0.2" would match no peer, silently.
    if "*" in entry or any(c.isspace() for c in entry):
        raise WrongPeer(f"{entry!r} matches nothing")
    return entry


# ipaddress costs 1 MB and 2 ms: it is imported only to parse a list that is not the default.


def _address(entry: str) -> IPv4Address | IPv6Address:
    import ipaddress

    try:
        address = ipaddress.ip_address(entry)
    except ValueError:
        raise WrongPeer(f"{entry!r} is no address") from None
    return getattr(address, "ipv4_mapped", None) or address


def _network(entry: str) -> IPv4Network | IPv6Network:
    import ipaddress

    try:
        network = ipaddress.ip_network(entry)
    except ValueError as error:
        # 10.0.0.7/8 is refused: to take it for 10.0.0.0/8 would be a guess about which peers to trust.
        why = "has bits set after its prefix" if "host bits" in str(error) else "is no network"
        raise WrongPeer(f"{entry!r} {why}") from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
