"""Reads the PROXY header from a socket (`--proxy-protocol`), and gives the connection its client.

The header is the first thing on a connection, not encrypted even where TLS follows. It is taken to its last
byte and no further: what follows is for the TLS handshake or for HTTP.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from ostler.worker.accept.peek import peek
from ostler.worker.http.connection import Connection
from ostler.worker.proxies.proxy_protocol import LONGEST, Malformed, Origin, read_header


class ProxyPeers(Protocol):
    """Which peers may send a PROXY header, and which clients named in one may send forwarding fields."""

    def trusts(self, peer: str | None) -> bool:
        """Whether a peer may say which client it speaks for; `unix:` is any peer on a Unix socket."""

    def names(self, peer: str) -> bool:
        """Whether the list has an entry for this peer, other than `*`."""


class NoOrigin(Exception):
    """A connection has no valid PROXY header from a trusted peer, and is to be closed.

    The text says why. It is empty where that is not worth a log line.
    """


async def take_header(loop: asyncio.AbstractEventLoop, sock: socket.socket, deadline: float) -> Origin:
    """Take the PROXY header from the socket, and not one byte more.

    Args:
        loop: the running loop.
        sock: an accepted socket that does not block.
        deadline: when to give up, by the loop's clock.

    Raises:
        NoOrigin: it is malformed, or it did not come in time or not to its end.
        OSError: the peer has reset the connection.
    """
    received = b""
    while True:
        try:
            ahead = await peek(loop, sock, LONGEST, deadline)
        except TimeoutError:
            raise NoOrigin("the PROXY header took too long" if received else "") from None
        if not ahead:
            # A proxy's check of the port connects and leaves: that is not worth a line.
            raise NoOrigin("it ended within the PROXY header" if received else "")
        try:
            found = read_header(received + ahead)
        except Malformed as error:
            sock.recv(len(ahead))  # close(2) resets a connection with unread bytes
            raise NoOrigin(str(error)) from None
        if found is not None:
            origin, size = found
            sock.recv(size - len(received))
            return origin
        # All of this belongs to the header. Left in the socket, it would wake the loop again and again.
        received += sock.recv(len(ahead))


def apply_origin(connection: Connection, origin: Origin, peers: ProxyPeers) -> None:
    """Give the connection the client that the header names, and decide whether forwarding fields count."""
    if origin.kind == "local":
        return  # the proxy's own request: its client is the proxy
    if origin.kind == "unknown":
        # The connection keeps the proxy's address, but the proxy says nothing about the client behind it.
        connection.trusted = False
        return
    forwarding = connection.server_state.proxies is not None
    connection.client = origin.client
    # "*" trusts every peer that connects here. An address in a header proves nothing of that kind.
    connection.trusted = forwarding and peers.names(origin.client[0] if origin.client else "unix:")
    if origin.tls:
        connection.scheme = "https"
