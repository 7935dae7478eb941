"""With TLS: takes an accepted socket through its handshake, and what comes before that, to a connection.

With `--proxy-protocol` the proxy's header comes in clear and first. It is read from the socket to its last
byte and no further, for what follows is for OpenSSL to read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

from ostler.worker.accept.introduction import Peers, introduce
from ostler.worker.http.connection import Connection
from ostler.worker.proxies.proxy_protocol import LONGEST, Malformed, Origin, read_header
from ostler.worker.server_state import ServerState
from ostler.worker.tls.credentials import Credentials

_SHUTDOWN = 3600.0
"""Seconds. asyncio would cut a slow client off in the midst of its response: the connection has a deadline
of its own, which heeds progress (`Connection.check`)."""

_UNCERTIFIED = "PEER_DID_NOT_RETURN_A_CERTIFICATE"


class _Closed(Exception):
    """There will be no connection; the text says why, and is empty where nobody needs to know."""


class Handshakes:
    """Welcomes accepted sockets, each in a task of its own; `peers` says who may send a PROXY header."""

    def __init__(
        self,
        server_state: ServerState,
        credentials: Credentials,
        make: Callable[[ServerState], Connection],
        peers: Peers | None,
    ) -> None:
        self._server_state = server_state
        self._loop = server_state.loop
        self._credentials = credentials
        self._make = make
        self._peers = peers
        self._patience = server_state.settings.timeout_request_header
        self._timeouts: dict[str, float] = {"ssl_handshake_timeout": self._patience}
        # asyncio has it since 3.11; before, closing has no time-out at all but the connection's own.
        if sys.version_info >= (3, 11) or not isinstance(self._loop, asyncio.BaseEventLoop):
            self._timeouts["ssl_shutdown_timeout"] = _SHUTDOWN

    async def welcome(self, sock: socket.socket) -> None:
        """Make a connection of `sock`, or close it; nothing is raised for what a client may do wrong."""
        peer = _name(sock)
        log = self._server_state.log
        try:
            await self._welcome(sock, peer)
        except _Closed as reason:
            sock.close()
            if str(reason):
                log.warning("Connection from %s closed: %s", peer, reason)
        except OSError as error:  # an SSLError is one, and so is asyncio's time-out
            sock.close()
            refused = _refused_certificate(error)
            if refused:
                log.warning("Connection from %s closed: %s", peer, refused)
            else:
                log.debug("Connection from %s closed: TLS handshake failed: %s", peer, _words(error))
        except BaseException:
            sock.close()
            raise

    async def _welcome(self, sock: socket.socket, peer: str) -> None:
        origin = None
        if self._peers is not None:
            if not self._peers.trusts(peer):
                raise _Closed("the peer is not in --forwarded-allow-ips")
            origin = await self._read_introduction(sock)
        first = await self._peek(sock, 1, self._loop.time() + self._patience)
        if not first:
            raise _Closed  # it looked whether the port is open, or changed its mind
        # A record of a handshake begins with 22 (RFC 8446, section 5.1), a request with a method.
        if first.isalpha() and first.isupper():
            await self._connect(sock, lambda transport: self._misdirected(transport, origin))
            return
        context = self._credentials.context
        if origin is None:
            make, server_state = self._make, self._server_state
            await self._loop.connect_accepted_socket(
                lambda: make(server_state), sock, ssl=context, **self._timeouts
            )
        else:
            enter = lambda transport: self._enter(transport, origin)  # noqa: E731
            await self._connect(sock, enter, ssl=context, **self._timeouts)

    async def _connect(
        self, sock: socket.socket, enter: Callable[[asyncio.BaseTransport], Connection], **options: Any
    ) -> None:
        await self._loop.connect_accepted_socket(lambda: _Threshold(enter), sock, **options)

    def _enter(self, transport: asyncio.BaseTransport, origin: Origin | None) -> Connection:
        connection = self._make(self._server_state)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if origin is not None:
            assert self._peers is not None
            introduce(connection, origin, self._peers)
        return connection

    def _misdirected(self, transport: asyncio.BaseTransport, origin: Origin | None) -> Connection:
        """Somebody typed http for https."""
        connection = self._enter(transport, origin)
        connection.misdirected("This port speaks TLS: the request must be https.")
        return connection

    async def _read_introduction(self, sock: socket.socket) -> Origin:
        """Take the PROXY header from the socket, and not one byte more."""
        received = b""
        deadline = self._loop.time() + self._patience
        while True:
            try:
                ahead = await self._peek(sock, LONGEST, deadline)
            except TimeoutError:
                raise _Closed("the PROXY header took too long" if received else "") from None
            if not ahead:
                # A proxy that looks whether the port is open connects and leaves.
                raise _Closed("it ended within the PROXY header" if received else "")
            try:
                found = read_header(received + ahead)
            except Malformed as error:
                raise _Closed(str(error)) from None
            if found is not None:
                origin, size = found
                sock.recv(size - len(received))
                return origin
            # All of it belongs to the header. Left there, it would wake us again and again.
            received += sock.recv(len(ahead))

    async def _peek(self, sock: socket.socket, size: int, deadline: float) -> bytes:
        """Return what the socket has to read, up to `size`, and leave it there; nothing at its end.

        Raises:
            TimeoutError: nothing came before the deadline.
        """
        while True:
            try:
                return sock.recv(size, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                await self._readable(sock, deadline)

    async def _readable(self, sock: socket.socket, deadline: float) -> None:
        ready = self._loop.create_future()

        def stir() -> None:
            if not ready.done():
                ready.set_result(None)

        def give_up() -> None:
            if not ready.done():
                ready.set_exception(TimeoutError("nothing came"))

        timer = self._loop.call_at(deadline, give_up)
        self._loop.add_reader(sock.fileno(), stir)
        try:
            await ready
        finally:
            timer.cancel()
            self._loop.remove_reader(sock.fileno())


class _Threshold(asyncio.Protocol):
    """Makes way for a connection as soon as there is a transport."""

    def __init__(self, enter: Callable[[asyncio.BaseTransport], Connection]) -> None:
        self._enter = enter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._enter(transport)


def _name(sock: socket.socket) -> str:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "unix:"
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return "a client that is gone"


def _refused_certificate(error: OSError) -> str:
    """What was wrong with the client's certificate; nothing where that was not it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and error.reason == _UNCERTIFIED:
        return "it shows no certificate"
    return ""


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__
