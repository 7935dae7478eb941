"""With `--proxy-protocol`: a connection is introduced by its proxy before anything else is read from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ostler.worker.http.connection import Connection
from ostler.worker.proxies.proxy_protocol import Malformed, Origin, read_header
from ostler.worker.server_state import ServerState


class Peers(Protocol):
    """Who may introduce a connection, and whose word counts in turn."""

    def trusts(self, peer: str | None) -> bool:
        """Whether a peer may say whom it speaks for; `unix:` is any on a Unix socket."""

    def names(self, peer: str) -> bool:
        """Whether the list has this peer itself, and not just everyone."""


class Introduction(asyncio.Protocol):
    """Reads the PROXY header, and makes way for a `Connection` that knows its client.

    A peer that is not trusted is closed at once: it can only be a client that goes round the proxy, or a
    proxy that is not listed. The specification forbids to guess whether there is a header (section 2),
    so one is demanded of every other peer.
    """

    __slots__ = ("_deadline", "_make", "_peer", "_peers", "_received", "_transport", "server_state")

    _transport: asyncio.Transport

    def __init__(
        self, server_state: ServerState, make: Callable[[ServerState], Connection], peers: Peers
    ) -> None:
        self.server_state = server_state
        self._make = make
        self._peers = peers
        self._received = b""
        self._peer = "unix:"
        self._deadline = server_state.now + server_state.settings.timeout_request_header

    def __repr__(self) -> str:
        return f"<Introduction by {self._peer}, {len(self._received)} bytes>"

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass, but has its methods
        self.server_state.connections.add(self)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, (tuple, list)) and len(peer) >= 2:
            self._peer = str(peer[0])
        if not self._peers.trusts(self._peer):
            self._refuse("the peer is not in --forwarded-allow-ips")

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._received += data  # bounded: what is no header, or too long for one, is refused below
        try:
            found = read_header(self._received)
        except Malformed as error:
            self._refuse(str(error))
            return
        if found is not None:
            origin, size = found
            self._make_way(origin, self._received[size:])

    def eof_received(self) -> None:
        # A proxy that looks whether the port is open connects and leaves; that is not worth a line.
        if self._received and not self._transport.is_closing():
            self._refuse("it ended within the PROXY header")

    def connection_lost(self, exc: Exception | None) -> None:
        self.server_state.left(self)

    def _make_way(self, origin: Origin, rest: bytes) -> None:
        connection = self._make(self.server_state)
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        # After the other is in, lest a draining server take itself for empty.
        self.server_state.connections.discard(self)
        introduce(connection, origin, self._peers)
        if rest:
            connection.data_received(rest)

    def _refuse(self, reason: str) -> None:
        self.server_state.log.warning(
            "Connection from %s closed: %s", "unix socket" if self._peer == "unix:" else self._peer, reason
        )
        self._transport.close()

    # -- told by the service

    def check(self, settled: float) -> None:
        """Give the header no more time than the head of a request has."""
        if self._deadline > settled or self._transport.is_closing():
            return
        if self._received:
            self._refuse("the PROXY header took too long")
        else:
            self._transport.close()

    def leave(self) -> None:
        """Go on: the client has just connected, and its request is on the way."""

    def on_drain(self) -> None:
        """Nothing to do: nothing runs on it yet."""

    def cancel(self) -> None:
        """Close: nothing runs on it yet."""
        self._transport.close()

    def abort(self) -> None:
        """Cut it off."""
        self._transport.abort()


def introduce(connection: Connection, origin: Origin, peers: Peers) -> None:
    """Let the client be who the header says; whether forwarding fields count depends on that client."""
    if origin.kind == "local":
        return  # the proxy's own request: nothing else is known, and nobody else has had a word
    if origin.kind == "unknown":
        # The real endpoints stay, but behind the proxy is somebody it does not vouch for.
        connection.trusted = False
        return
    forwarding = connection.server_state.proxies is not None
    connection.client = origin.client
    # "*" is for who connects here. An address in a header is anybody's.
    connection.trusted = forwarding and peers.names(origin.client[0] if origin.client else "unix:")
    if origin.tls:
        connection.scheme = "https"
